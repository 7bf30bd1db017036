// infra/dev-cluster: a stranger's first cluster. It starts, works, survives the death of one process and of all of them, and leaves
// nothing behind when it is stopped.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { describe, it } from "node:test";
import { parse } from "yaml";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { writeNoise } from "#test/fixtures/integration-image.ts";
import {
  describeEnd,
  runAshlar,
  RunningProcess,
  until,
  type Ended,
} from "#test/fixtures/integration-process.ts";
import {
  filesBelow,
  parseJson,
  TemporaryFolder,
  TEST_TIMEOUT_MS,
} from "#test/fixtures/integration-repository.ts";
import type { JobDocument } from "#test/fixtures/test-cluster.ts";
import { natsMissing } from "#test/servers/nats-server.ts";
import { startFoundationDb } from "../../infra/local-cluster/foundationdb.ts";
import { choosePorts } from "../../infra/local-cluster/free-ports.ts";
import { LocalCluster } from "../../infra/local-cluster/local-cluster.ts";
import { Place } from "../../infra/local-cluster/place.ts";
import {
  isRunning,
  recordOf,
  stopAll,
  type ProcessRecord,
} from "../../infra/local-cluster/process-record.ts";
import { newState, type ClusterState } from "../../infra/local-cluster/state.ts";
import { findTools } from "../../infra/local-cluster/tools.ts";

const DEV_CLUSTER = path.resolve(import.meta.dirname, "../../infra/dev-cluster");
const MIB = 1024 * 1024;
const BLOCK = MIB / 4;
const BIG_BLOCKS = 512;

async function devCluster(code: number, ...args: string[]): Promise<Ended> {
  const ended = await new RunningProcess(DEV_CLUSTER, args).ended;
  assert.equal(ended.code, code, describeEnd(ended));
  return ended;
}

/** A cluster in a temporary folder. */
class DevCluster implements AsyncDisposable {
  readonly home: TemporaryFolder;
  readonly place: Place;
  /** All that were ever recorded. */
  readonly seen = new Map<number, ProcessRecord>();

  constructor(home: TemporaryFolder) {
    this.home = home;
    this.place = new Place(home.at("cluster"));
  }

  async run(code: number, verb: string): Promise<string> {
    const ended = await devCluster(code, verb, this.place.folder);
    for (const record of this.records()) this.seen.set(record.pid, record);
    return ended.stdout.toString();
  }

  records(): readonly ProcessRecord[] {
    return (JSON.parse(readFileSync(this.place.stateFile, "utf8")) as ClusterState).processes;
  }

  kill(name: string): void {
    const record = this.records().find((each) => each.name === name);
    assert.ok(record !== undefined && isRunning(record), `${name} runs`);
    process.kill(record.pid, "SIGKILL");
  }

  /** As somebody who may submit jobs and no more. */
  async client(...args: string[]): Promise<JobDocument> {
    return parseJson<JobDocument>(
      await runAshlar(["--json", "--config", this.place.clientConfig, ...args]),
    );
  }

  async assertRestores(version: string, source: string): Promise<void> {
    const target = path.join(this.place.disks("hv2"), `${version}-${Date.now()}`);
    const restore = ["restore", `version=${version}@latest`, `target=${target}`, "host=hv2"];
    const job = await this.client("submit", "--wait", ...restore);
    assert.equal(job.state, "done", JSON.stringify(job));
    assert.ok((await readFile(source)).equals(await readFile(target)), "it is what was backed up");
  }

  /** Nothing that was started, and nothing else that works in this folder. */
  assertNothingRuns(): void {
    assert.deepEqual([...this.seen.values()].filter(isRunning), []);
    const left = readdirSync("/proc").filter((pid) => {
      try {
        return (
          /^\d+$/.test(pid) &&
          readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(this.home.path) &&
          recordOf("", Number(pid)) !== undefined
        );
      } catch {
        return false;
      }
    });
    assert.deepEqual(left, []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new RunningProcess(DEV_CLUSTER, ["stop", this.place.folder]).ended;
    await this.home[Symbol.asyncDispose]();
  }
}

const options = { timeout: TEST_TIMEOUT_MS, skip: natsMissing() ?? false };

describe("infra/dev-cluster", options, () => {
  it("runs jobs while a writer dies, and leaves no process behind", async () => {
    await using cluster = new DevCluster(await TemporaryFolder.make());
    const { place } = cluster;
    const said = await cluster.run(0, "start");
    assert.match(said, /nats --server .* req ashlar\.v1\.jobs\.submit/);
    assert.match(said, /submit --wait backup/);
    assert.ok(findTools().foundationDb !== undefined || said.includes("Without FoundationDB"));
    assert.doesNotMatch(await cluster.run(0, "status"), /stopped|not ready/);

    const before = readFileSync(place.stateFile, "utf8");
    assert.match(await cluster.run(0, "start"), /runs already; nothing was changed/);
    assert.equal(readFileSync(place.stateFile, "utf8"), before);

    const source = path.join(place.disks("hv1"), "big.img");
    await writeNoise(source, "dev-cluster", BIG_BLOCKS * BLOCK);
    const backup = ["backup", "volume=big", `source=${source}`, "host=hv1"];
    const { job } = await cluster.client("submit", ...backup);
    const stored = async () => (await filesBelow(place.at("storages/here/blocks"))).length;
    await until(async () => (await stored()) >= 16 || undefined);
    cluster.kill("writer-1");
    assert.ok((await stored()) < BIG_BLOCKS, "the writer died in the middle");
    assert.equal((await cluster.client("watch", job)).state, "done");
    await cluster.assertRestores("big", source);

    assert.match(await cluster.run(69, "status"), /writer-1 +stopped/);
    const others = cluster.records().filter(({ name }) => name !== "writer-1");
    assert.match(await cluster.run(0, "start"), /Starting what does not run/);
    assert.ok(others.every(isRunning), "what ran was left alone");
    assert.doesNotMatch(await cluster.run(0, "status"), /stopped|not ready/);
    await cluster.run(0, "stop");
    cluster.assertNothingRuns();
    assert.match(await cluster.run(0, "stop"), /did not run/);
  });

  it("keeps its data, over a stop and over a crash of everything", async () => {
    await using cluster = new DevCluster(await TemporaryFolder.make());
    const source = path.join(cluster.place.disks("hv1"), "sample.img");
    await cluster.run(0, "start");
    const backup = ["backup", "volume=vm1", `source=${source}`, "host=hv1"];
    await cluster.client("submit", "--wait", ...backup);
    await cluster.run(0, "stop");
    cluster.assertNothingRuns();
    await cluster.run(0, "start");
    await cluster.assertRestores("vm1", source);
    for (const { name } of cluster.records()) cluster.kill(name);
    await cluster.run(69, "status");
    await cluster.run(0, "start");
    await cluster.assertRestores("vm1", source);
    await cluster.run(0, "stop");
    cluster.assertNothingRuns();
  });

  it("stops what it has started where it cannot go on, and says why", async () => {
    await using cluster = new DevCluster(await TemporaryFolder.make());
    await cluster.run(0, "start");
    await cluster.run(0, "stop");
    const config = cluster.place.repositoryConfig;
    const text = await readFile(config, "utf8");
    await writeFile(config, text.replace("#budget: 256MiB", "budgget: 256MiB"));
    const wrong = await devCluster(69, "start", cluster.place.folder);
    assert.match(wrong.stderr, /dedup has ended:[^]*budgget[^]*logs\/dedup\.log/);
    cluster.assertNothingRuns();
    await writeFile(config, `${text}\n}\n`);
    const broken = await devCluster(78, "start", cluster.place.folder);
    assert.match(broken.stderr, /ashlar\.yaml: /);
    cluster.assertNothingRuns();
  });
});

describe("the parts of infra/dev-cluster", { timeout: TEST_TIMEOUT_MS }, () => {
  it("touches no folder that has something else in it, and names what it does not know", async () => {
    await using home = await TemporaryFolder.make();
    const none = await devCluster(66, "stop", home.path);
    assert.match(none.stderr, /there is no cluster in/);
    if (natsMissing() === undefined) {
      await writeFile(home.at("letter"), "mine");
      assert.match((await devCluster(77, "start", home.path)).stderr, /something else in it/);
      assert.deepEqual(await filesBelow(home.path), ["letter"]);
    }
    await devCluster(64, "strat", home.path);
    assert.match((await devCluster(0, "--help")).stdout.toString(), /start\|stop\|status/);
  });

  it("names what is missing, and how to get it", () => {
    assert.throws(
      () => findTools(["/nonexistent"]),
      (error) =>
        isErrorCode(error, ErrorCode.Unavailable) && error.remedy === "apt-get install nats-server",
    );
  });

  it("never stops a process that only has the same number", async () => {
    const child = spawn("sleep", ["600"], { stdio: "ignore" });
    await once(child, "spawn");
    const record = recordOf("sleep", child.pid ?? 0);
    assert.ok(record !== undefined);
    await stopAll([{ ...record, startTicks: "1" }], 1000);
    await stopAll([{ ...record, bootId: "another" }], 1000);
    assert.ok(isRunning(record), "it was left alone");
    const ended = once(child, "exit");
    await stopAll([record], 1000);
    assert.deepEqual(await ended, [null, "SIGTERM"]);
    assert.ok(!isRunning(record));
  });

  it("keeps ports that are free, and chooses others for the rest", async () => {
    const first = await choosePorts(["a", "b"], {});
    const server = createServer().listen(first["a"], "127.0.0.1");
    await once(server, "listening");
    const second = await choosePorts(["a", "b", "c"], first);
    server.close();
    assert.notEqual(second["a"], first["a"]);
    assert.equal(second["b"], first["b"]);
    assert.equal(new Set(Object.values(second)).size, 3);
  });

  // Stand-ins for FoundationDB's programs: what is tested is which commands are given, and how often.
  it("makes a database once, and moves the metadata there once", async () => {
    await using home = await TemporaryFolder.make();
    const place = new Place(home.path);
    const script = async (name: string, text: string): Promise<string> => {
      await writeFile(home.at(name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
      return home.at(name);
    };
    const told = `echo "$@" >> ${home.at("told")}`;
    const tools = {
      ashlar: await script("ashlar", told),
      natsServer: "none",
      foundationDb: {
        fdbserver: await script("fdbserver", "exec sleep 600"),
        fdbcli: await script("fdbcli", `${told}; echo "The database is available."`),
      },
    };
    for (const folder of ["logs", "repository"]) await mkdir(place.at(folder));
    await writeFile(place.repositoryConfig, "version: 1\n");
    const state = { ...newState(), ports: { foundationdb: 20_000 } };
    const surroundings = { say: () => undefined, signal: new AbortController().signal };
    const cluster = new LocalCluster(place, tools, state, surroundings);
    try {
      await startFoundationDb(cluster);
      await startFoundationDb(cluster);
      const lines = (await readFile(home.at("told"), "utf8")).trim().split("\n");
      const words = [
        "configure new single ssd",
        "status minimal",
        "kv copy foundationdb",
        "status",
      ];
      assert.equal(lines.length, words.length, lines.join("\n"));
      for (const [index, word] of words.entries()) assert.ok(lines[index]?.includes(word), word);
      const file = await readFile(place.foundationDbFile, "utf8");
      assert.match(file, /^ashlar:[0-9a-f]{8}@127\.0\.0\.1:20000\n$/);
      const { foundationdb } = parse(await readFile(place.repositoryConfig, "utf8")) as {
        foundationdb: unknown;
      };
      assert.deepEqual(foundationdb, { clusterFile: place.foundationDbFile, prefix: "ashlar-dev" });
      const without = { ...tools, foundationDb: undefined };
      await assert.rejects(
        startFoundationDb(new LocalCluster(place, without, state, surroundings)),
        /are in FoundationDB, which is not installed/,
      );
    } finally {
      await stopAll(cluster.launched, 1000);
    }
  });
});
