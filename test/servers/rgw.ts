// A real S3 service for tests: Ceph's object gateway over a monitor and one OSD that keeps everything in memory; on loopback, on free
// ports, in a temporary folder, stopped by their pids.
import { execFile, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";
import { freePort } from "./nats-server.ts";

/** A running gateway with one user. */
export interface Rgw {
  /** `http://127.0.0.1:PORT`. */
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Runs radosgw-admin. */
  admin(...args: readonly string[]): Promise<string>;
  /** The gateway answers nothing any more until {@link start}. */
  kill(): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
}

const run = promisify(execFile);
const START_MS = 60_000;
const COMMAND_MS = 60_000;
const TOOLS = ["ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool", "monmaptool"];
/** Of the OSD's memory; what is written is really held. */
const STORE_BYTES = 8 * 1024 ** 3;

/** Why it cannot be started here, or undefined. */
export function rgwMissing(): string | undefined {
  const missing = TOOLS.filter((tool) => spawnSync(tool, ["--version"]).error !== undefined);
  return missing.length === 0
    ? undefined
    : `${missing.join(", ")}: not installed (apt-get install ceph-mon ceph-osd radosgw ceph-common)`;
}

/** Starts one; resolves when it answers. */
export async function startRgw(): Promise<Rgw> {
  const folder = await mkdtemp(path.join(tmpdir(), "ashlar-rgw-"));
  const ceph = new Ceph(folder, await freePort(), await freePort());
  try {
    await ceph.create();
    return ceph;
  } catch (error) {
    await ceph.stop();
    throw error;
  }
}

class Ceph implements Rgw {
  readonly endpoint: string;
  readonly accessKeyId = "ashlar-test";
  readonly secretAccessKey = randomUUID();
  readonly #folder: string;
  readonly #monPort: number;
  readonly #port: number;

  constructor(folder: string, monPort: number, port: number) {
    this.#folder = folder;
    this.#monPort = monPort;
    this.#port = port;
    this.endpoint = `http://127.0.0.1:${port}`;
  }

  async create(): Promise<void> {
    const fsid = randomUUID();
    for (const folder of ["run", "log", "mon", "osd", "rgw"]) {
      await mkdir(path.join(this.#folder, folder));
    }
    await writeFile(path.join(this.#folder, "ceph.conf"), this.#configuration(fsid));
    const keyring = path.join(this.#folder, "keyring");
    await this.#run("ceph-authtool", "-C", keyring);
    for (const [name, ...caps] of [
      ["mon.", "mon", "allow *"],
      ["client.admin", "mon", "allow *", "osd", "allow *", "mgr", "allow *"],
      ["osd.0", "mon", "allow profile osd", "osd", "allow *"],
      ["client.rgw", "mon", "allow rw", "osd", "allow rwx"],
    ]) {
      const pairs: string[] = [];
      for (let at = 0; at < caps.length; at += 2) {
        pairs.push("--cap", caps[at] as string, caps[at + 1] as string);
      }
      await this.#run("ceph-authtool", keyring, "--gen-key", "-n", name as string, ...pairs);
    }
    const monmap = path.join(this.#folder, "monmap");
    const address = `[v2:127.0.0.1:${this.#monPort}/0]`;
    await this.#run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap);
    await this.#run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring);
    await this.#run("ceph-mon", "-i", "a");
    await this.#run("ceph", "osd", "create");
    await this.#run("ceph-osd", "-i", "0", "--mkfs");
    await this.#run("ceph-osd", "-i", "0");
    const keys = [`--access-key=${this.accessKeyId}`, `--secret-key=${this.secretAccessKey}`];
    await this.admin("user", "create", "--uid=test", "--display-name=test", ...keys);
    await this.start();
  }

  async start(): Promise<void> {
    const frontend = `--rgw-frontends=beast endpoint=127.0.0.1:${this.#port}`;
    await this.#run("radosgw", "-n", "client.rgw", frontend);
    const untilMs = Date.now() + START_MS;
    for (;;) {
      const answer = await fetch(this.endpoint).catch(() => undefined);
      if (answer?.ok === true) return;
      if (Date.now() > untilMs) throw new Error("the object gateway does not answer");
      await setTimeout(50);
    }
  }

  async admin(...args: readonly string[]): Promise<string> {
    return this.#run("radosgw-admin", ...args);
  }

  async kill(): Promise<void> {
    await this.#end("client.rgw");
  }

  async stop(): Promise<void> {
    for (const name of ["client.rgw", "osd.0", "mon.a"]) await this.#end(name);
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** A throw-away cluster is ended by SIGKILL: nothing of it is kept. */
  async #end(name: string): Promise<void> {
    const file = path.join(this.#folder, "run", `${name}.pid`);
    const pid = Number(await readFile(file, "utf8").catch(() => "0"));
    if (pid <= 0) return;
    try {
      process.kill(pid, "SIGKILL");
      while (process.kill(pid, 0)) await setTimeout(10);
    } catch {
      // It has ended.
    }
    await rm(file, { force: true });
  }

  async #run(tool: string, ...args: readonly string[]): Promise<string> {
    const env = { ...process.env, CEPH_CONF: path.join(this.#folder, "ceph.conf") };
    const { stdout } = await run(tool, [...args], { env, timeout: COMMAND_MS });
    return stdout;
  }

  #configuration(fsid: string): string {
    const at = (name: string): string => path.join(this.#folder, name);
    return `[global]
fsid = ${fsid}
mon host = [v2:127.0.0.1:${this.#monPort}/0]
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind msgr1 = false
keyring = ${at("keyring")}
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd pool default pg num = 8
mon max pg per osd = 1000
mon data avail warn = 5
osd crush chooseleaf type = 0
paxos propose interval = 0.05
osd objectstore = memstore
memstore device bytes = ${STORE_BYTES}
run dir = ${at("run")}
pid file = ${at("run")}/$name.pid
admin socket = ${at("run")}/$name.asok
log file = ${at("log")}/$name.log
mon cluster log file = ${at("log")}/cluster.log
crash dir = ${at("run")}
mon data = ${at("mon")}
osd data = ${at("osd")}
rgw data = ${at("rgw")}
osd client watch timeout = 3
rgw thread pool size = 64
`;
  }
}
