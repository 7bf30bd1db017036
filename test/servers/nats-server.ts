// Real nats-servers for tests: on loopback, on free ports, in a temporary folder, stopped by their pids.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { freePort as findFreePort } from "../../infra/local-cluster/free-ports.ts";

/** One server of {@link startNats}. */
export interface NatsServer {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** SIGKILL, and its folder stays. */
  kill(): Promise<void>;
  signal(signal: NodeJS.Signals): void;
  /** Starts it again where it was, after {@link kill}. */
  start(): Promise<void>;
}

/** A running NATS. */
export interface NatsCluster {
  readonly servers: readonly NatsServer[];
  readonly urls: readonly string[];
  stop(): Promise<void>;
}

/** Options of {@link startNats}. */
export interface StartNatsOptions {
  /** 1, or 3 for a cluster. */
  readonly count?: 1 | 3;
  /** Bytes; default 24 MiB. */
  readonly maxPayload?: number;
  /** JetStream's section; null for none. */
  readonly jetstream?: string | null;
  /** A file of users, which every server includes. */
  readonly users?: string;
  /** The section `accounts`, given the line that includes the users, which are in one of them then. */
  readonly accounts?: (include: string) => string;
  /** Further lines of the configuration. */
  readonly extra?: string;
  /** Where clients connect, if not on loopback; only an address of a network that the test has made. */
  readonly address?: string;
}

const LOOPBACK = "127.0.0.1";
const MAX_PAYLOAD = 24 * 1024 * 1024;
const START_MS = 20_000;

/** Why servers cannot be started here, or undefined. */
export function natsMissing(): string | undefined {
  return spawnSync("nats-server", ["--version"]).error === undefined
    ? undefined
    : "nats-server is not installed (apt-get install nats-server)";
}

const handedOut = new Set<number>();

/** A port that nobody has now, and that is given out once: whoever has it may stop, and start again there. */
export async function freePort(): Promise<number> {
  const port = await findFreePort(handedOut);
  handedOut.add(port);
  return port;
}

/** Starts one server, or three as a cluster; resolves when they take connections and, with JetStream, have a leader. */
export async function startNats(options: StartNatsOptions = {}): Promise<NatsCluster> {
  const { count = 1, address = LOOPBACK } = options;
  const folder = await mkdtemp(path.join(tmpdir(), "ashlar-nats-"));
  const ports: { client: number; route: number; monitor: number }[] = [];
  for (let index = 0; index < count; index += 1) {
    ports.push({ client: await freePort(), route: await freePort(), monitor: await freePort() });
  }
  // Of its own: servers look for the others for ever, and would join whoever has taken the port of one that has stopped.
  const name = `test-${randomBytes(8).toString("hex")}`;
  const routes = ports.map(({ route }) => `nats://127.0.0.1:${route}`);
  const servers: RunningServer[] = [];
  for (const [index, port] of ports.entries()) {
    const home = path.join(folder, `n${index}`);
    await mkdir(home);
    const file = path.join(home, "nats.conf");
    const cluster = count > 1 ? { name, routes } : undefined;
    await writeFile(file, configuration(options, home, `${name}-${index}`, port, cluster));
    servers.push(new RunningServer(file, port.client, port.monitor, address));
  }
  await Promise.all(servers.map((server) => server.start()));
  return {
    servers,
    urls: servers.map(({ url }) => url),
    stop: async () => {
      await Promise.all(servers.map((server) => server.kill()));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function configuration(
  {
    maxPayload = MAX_PAYLOAD,
    jetstream = "",
    users,
    accounts = (include) => (include === "" ? "" : `authorization { ${include} }`),
    extra = "",
    address = LOOPBACK,
  }: StartNatsOptions,
  home: string,
  name: string,
  port: { readonly client: number; readonly route: number; readonly monitor: number },
  cluster: { readonly name: string; readonly routes: readonly string[] } | undefined,
): string {
  const lines = [
    `server_name: ${name}`,
    `listen: "${address}:${port.client}"`,
    `http: "127.0.0.1:${port.monitor}"`,
    `max_payload: ${maxPayload}`,
    `max_pending: ${Math.max(64 * 1024 * 1024, maxPayload * 4)}`,
    jetstream === null ? "" : `jetstream { store_dir: "${home}/store"\n${jetstream}\n}`,
    cluster === undefined
      ? ""
      : `cluster { name: ${cluster.name}, listen: "127.0.0.1:${port.route}", routes: [${cluster.routes.join(", ")}] }`,
    // Included files are looked for below the configuration's folder.
    accounts(users === undefined ? "" : `include "${path.relative(home, users)}"`),
    extra,
  ];
  return `${lines.join("\n")}\n`;
}

/** Starts servers whose configurations a test has written; nothing is known of them but their ports. */
export async function startConfigured(
  servers: readonly { readonly file: string; readonly port: number }[],
): Promise<{ stop(): Promise<void> }> {
  const running = servers.map(({ file, port }) => new RunningServer(file, port, undefined));
  await Promise.all(running.map((server) => server.start()));
  return {
    stop: async () => {
      await Promise.all(running.map((server) => server.kill()));
    },
  };
}

class RunningServer implements NatsServer {
  readonly port: number;
  readonly url: string;
  readonly #file: string;
  readonly #address: string;
  readonly #monitor: number | undefined;
  #process: ChildProcess | undefined;

  constructor(file: string, port: number, monitor: number | undefined, address = LOOPBACK) {
    this.#file = file;
    this.port = port;
    this.#monitor = monitor;
    this.#address = address;
    this.url = `nats://${address}:${port}`;
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  async start(): Promise<void> {
    const child = spawn("nats-server", ["-c", this.#file], { stdio: "ignore" });
    this.#process = child;
    const untilMs = Date.now() + START_MS;
    while (this.#monitor !== undefined && !(await isHealthy(this.#monitor))) {
      if (child.exitCode !== null) throw new Error(`nats-server ended with ${child.exitCode}`);
      if (Date.now() > untilMs) throw new Error("nats-server does not get ready");
      await setTimeout(20);
    }
    while (!(await isListening(this.port, this.#address))) {
      if (child.exitCode !== null) throw new Error(`nats-server ended with ${child.exitCode}`);
      await setTimeout(20);
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  }
}

/** With JetStream that includes a leader of its metadata. */
async function isHealthy(monitor: number): Promise<boolean> {
  try {
    const answer = await fetch(`http://127.0.0.1:${monitor}/healthz`);
    return answer.ok;
  } catch {
    return false;
  }
}

async function isListening(port: number, address: string): Promise<boolean> {
  const socket = connectSocket(port, address);
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
