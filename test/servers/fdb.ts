// FoundationDB for tests: in no package registry, so tests use the cluster that FDB_CLUSTER_FILE names. Each store that they open is
// a part of it that nobody else has, and is emptied when it is closed.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { openFoundationDbKv } from "#lib/drivers/foundationdb/foundationdb-kv.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { freePort } from "./nats-server.ts";

/** Why FoundationDB is not tested, or undefined. */
export function fdbMissing(): string | undefined {
  return process.env["FDB_CLUSTER_FILE"] === undefined
    ? "there is no FoundationDB (FDB_CLUSTER_FILE, and LD_LIBRARY_PATH for libfdb_c.so, name one)"
    : undefined;
}

/** The cluster file of the cluster under test. */
export function fdbClusterFile(): string {
  const file = process.env["FDB_CLUSTER_FILE"];
  if (file === undefined) throw new Error(fdbMissing());
  return file;
}

/** A prefix that nobody else has. */
export function freshFdbPrefix(): string {
  return `test-${randomBytes(8).toString("hex")}`;
}

/** Opens a part of the cluster. */
export async function openFdb(prefix: string, options: { timeoutMs?: number } = {}): Promise<Kv> {
  return openFoundationDbKv({
    clusterFile: fdbClusterFile(),
    prefix: Buffer.from(`${prefix}/`),
    clock: systemClock(),
    random: systemRandom(),
    ...options,
  });
}

/** Opens a new part of the cluster, which is emptied when it is closed. */
export async function openFreshFdb(): Promise<Kv> {
  const kv = await openFdb(freshFdbPrefix());
  return {
    read: (body) => kv.read(body),
    transact: (body, options) => kv.transact(body, options),
    flush: () => kv.flush(),
    close: async () => {
      await emptyKv(kv);
      await kv.close();
    },
  };
}

/** Removes everything from a store. */
export function emptyKv(kv: Kv): Promise<void> {
  return kv.transact(async (tx) => tx.clearRange(Buffer.alloc(0), Buffer.from([0xff])));
}

/** Why no server can be started here, or undefined. */
export function fdbServerMissing(): string | undefined {
  const isThere = (tool: string): boolean => spawnSync(tool, ["--version"]).error === undefined;
  if (fdbMissing() !== undefined) return fdbMissing();
  return isThere("fdbserver") && isThere("fdbcli")
    ? undefined
    : "fdbserver and fdbcli are not in the PATH";
}

/** A FoundationDB of one process, which a test may kill. */
export class FdbServer implements AsyncDisposable {
  readonly clusterFile: string;
  readonly #folder: string;
  readonly #port: number;
  #process: ChildProcess | undefined;

  private constructor(folder: string, port: number) {
    this.#folder = folder;
    this.#port = port;
    this.clusterFile = path.join(folder, "fdb.cluster");
  }

  /** Starts one with an empty database in a temporary folder. */
  static async start(): Promise<FdbServer> {
    const folder = await mkdtemp(path.join(tmpdir(), "ashlar-fdb-"));
    const port = await freePort();
    const server = new FdbServer(folder, port);
    await mkdir(path.join(folder, "data"));
    await writeFile(server.clusterFile, `test:test@127.0.0.1:${port}\n`);
    server.start();
    await server.#cli("configure new single ssd");
    while (!(await server.#cli("status minimal")).includes("is available.")) await setTimeout(200);
    return server;
  }

  /** Starts it again, where it was, after {@link kill}. */
  start(): void {
    const folder = this.#folder;
    this.#process = spawn(
      "fdbserver",
      [
        "-p",
        `127.0.0.1:${this.#port}`,
        "-C",
        this.clusterFile,
        "-d",
        path.join(folder, "data"),
        "-L",
        folder,
      ],
      { stdio: "ignore" },
    );
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    this.#process = undefined;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  }

  /** Stands still for so long, in ms. */
  async pause(ms: number): Promise<void> {
    this.#process?.kill("SIGSTOP");
    await setTimeout(ms);
    this.#process?.kill("SIGCONT");
  }

  async #cli(command: string): Promise<string> {
    const args = ["-C", this.clusterFile, "--timeout", "30", "--exec", command];
    const child = spawn("fdbcli", args);
    let text = "";
    child.stdout.on("data", (data: Buffer) => (text += data.toString()));
    await once(child, "close");
    return text;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
