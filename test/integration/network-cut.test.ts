// The network between an agent and the cluster is cut in the middle of a backup, for less than the lease and for more, also so that
// nobody is told: when it is back the job ends without a hand, the version restores bit-exactly, fsck is clean, and the storage
// holds what is referenced and nothing else.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, it, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { parseDocument } from "yaml";
import { BLOCK, MIB, writeNoise } from "#test/fixtures/integration-image.ts";
import { until, type RunningProcess } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import {
  leaveNetwork,
  NetworkHost,
  networkSkip,
  OUTSIDE_ADDRESS,
  type Cut,
} from "#test/fixtures/network-host.ts";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import { natsMissing } from "#test/servers/nats-server.ts";

const skip = natsMissing() ?? networkSkip;

const IMAGE_BYTES = 32 * MIB;
const HOSTS = ["hv1", "hv2"] as const;
/** So that a backup takes long enough to be cut in the middle, and no more than a half of it is under way at once. */
const READ_RATE = "5MiB";
const READER_BUDGET = "32MiB";
/** Signs of life come every 750 ms; the cluster's lease is 3 s. */
const WITHIN_LEASE_MS = 2000;
const BEYOND_LEASE_MS = 6000;
/** A client of NATS takes its server for dead after 10 to 15 s without an answer. */
const BEYOND_CONNECTION_MS = 17_000;
const JOB_MS = 180_000;

type Agent = "reader" | "writer of another pool" | "core";

async function configure(file: string, changes: Readonly<Record<string, string>>, to = file) {
  const document = parseDocument(await readFile(file, "utf8"));
  for (const [at, value] of Object.entries(changes)) {
    const [section = "", key = ""] = at.split(".");
    if ((document.get(section) ?? undefined) === undefined)
      document.set(section, document.createNode({}));
    document.setIn([section, key], value);
  }
  await writeFile(to, document.toString());
}

describe("a network that is cut", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  const resources = new AsyncDisposableStack();
  let cluster: TestCluster;
  let hosts: Readonly<Record<Agent, NetworkHost>>;
  let second: { readonly config: string; agent: RunningProcess };
  before(async () => {
    await leaveNetwork();
    const host = async (): Promise<NetworkHost> => resources.use(await NetworkHost.make());
    hosts = { reader: await host(), "writer of another pool": await host(), core: await host() };
    cluster = resources.use(await TestCluster.make({ nats: { address: OUTSIDE_ADDRESS } }));
    const { repo } = cluster;
    const limits = { "agent.readRate": READ_RATE, "memory.budget": READER_BUDGET };
    const [hv1, hv2] = [await cluster.enroll("hv1"), await cluster.enroll("hv2")];
    await configure(hv1, limits);
    // The blocks of hv2 go to the other pool.
    const other = { "agent.pool": "other" };
    await configure(hv2, { ...limits, ...other });
    const writer = path.join(repo.folder, "other.yaml");
    await configure(repo.configFile, other, writer);
    const [agent] = await Promise.all([
      cluster.startAgent("reader", hv2),
      cluster.startAgent("dedup,coordinator", undefined, hosts.core),
      cluster.startAgent("writer"),
      cluster.startAgent("writer", writer, hosts["writer of another pool"]),
      cluster.startAgent("reader", hv1, hosts.reader),
    ]);
    second = { config: hv2, agent };
  });
  after(() => resources.disposeAsync());

  /** Backups of both hosts, which are cut when an eighth of them is stored. */
  async function survive(test: TestContext, cut: readonly Agent[], how: Cut, ms: number) {
    const { repo } = cluster;
    const backups: { job: string; bytes: Buffer }[] = [];
    const stored = await repo.blockCount();
    const fresh = async (): Promise<number> => ((await repo.blockCount()) - stored) * BLOCK;
    for (const host of HOSTS) {
      const source = repo.fresh("image");
      const volume = `${host} of ${cut.join(", ")}`.replaceAll(/\W+/g, "-");
      const bytes = await writeNoise(source, volume, IMAGE_BYTES);
      backups.push({
        job: await cluster.submit({ kind: "backup", volume, source, host }),
        bytes,
      });
    }
    const allBytes = IMAGE_BYTES * backups.length;
    await until(async () => ((await fresh()) >= allBytes / 8 ? true : undefined), 100);
    await Promise.all(cut.map((each) => hosts[each].cut(how)));
    await setTimeout(ms / 2);
    const halfway = await fresh();
    await setTimeout(ms / 2);
    const atEnd = await fresh();
    await Promise.all(cut.map((each) => hosts[each].heal()));
    const healedMs = Date.now();
    assert.ok(atEnd < allBytes, `all of ${allBytes} bytes were stored by then`);
    const affected = cut.length === 2 || cut.includes("core");
    if (affected) assert.equal(atEnd, halfway, "nothing is stored while all are cut off");
    for (const { job, bytes } of backups) {
      const { uid } = await cluster.done(job, JOB_MS);
      const { attempts } = await cluster.get(job);
      const seconds = ((Date.now() - healedMs) / 1000).toFixed(1);
      test.diagnostic(`done ${seconds} s after the cut of ${ms / 1000} s, tries: ${attempts}`);
      await repo.assertRestores(String(uid), bytes);
    }
  }

  it("between a reader and the cluster, for less than the lease", (test) =>
    survive(test, ["reader"], "down", WITHIN_LEASE_MS));

  it("between dedup and coordinator and the cluster, for more than the lease", (test) =>
    survive(test, ["core"], "down", BEYOND_LEASE_MS));

  it("between a reader, a writer and the cluster, without a word, until connections are taken for dead", (test) =>
    survive(test, ["reader", "writer of another pool"], "silent", BEYOND_CONNECTION_MS));

  it("between a reader and the cluster for good: another agent that reaches the source goes on", async (test) => {
    const { repo } = cluster;
    const source = repo.fresh("image");
    const bytes = await writeNoise(source, "taken-over", IMAGE_BYTES);
    second.agent.signal("SIGTERM");
    await second.agent.ended;
    const stored = await repo.blockCount();
    const job = await cluster.submit({ kind: "backup", volume: "taken-over", source });
    const fresh = async (): Promise<number> => ((await repo.blockCount()) - stored) * BLOCK;
    await until(async () => ((await fresh()) >= IMAGE_BYTES / 8 ? true : undefined), 100);
    second.agent = await cluster.startAgent("reader", second.config);
    await hosts.reader.cut("silent");
    const cutMs = Date.now();
    // While the first one is still cut off, and believes that it is at work.
    const { uid } = await cluster.done(job, JOB_MS);
    test.diagnostic(`done ${((Date.now() - cutMs) / 1000).toFixed(1)} s after the cut`);
    assert.ok((await cluster.get(job)).attempts > 1);
    await hosts.reader.heal();
    await repo.assertRestores(String(uid), bytes);
    const other = repo.fresh("image");
    const more = await writeNoise(other, "again", MIB);
    const again = { kind: "backup", volume: "again", source: other, host: "hv1" };
    const restored = await cluster.done(await cluster.submit(again), JOB_MS);
    await repo.assertRestores(String(restored["uid"]), more);
  });

  it("and nothing is left over", async () => {
    const { repo } = cluster;
    await cluster.stopAgents();
    await repo.run(["gc", "--abandon", "--sweep"]);
    await repo.assertNoOrphans();
  });
});
