// A scrub of a cluster is the work of all processes that reach the storages: each takes a share, no object is read twice in a cycle,
// whoever dies meanwhile, and it stops everywhere when it is told to.
import assert from "node:assert/strict";
import { unlink } from "node:fs/promises";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { overwrite, writeNoise } from "#test/fixtures/integration-image.ts";
import { until, type RunningProcess } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import { metricsAt, seriesOf } from "#test/fixtures/prometheus.ts";
import { TestCluster, type JobDocument } from "#test/fixtures/test-cluster.ts";
import { freePort, natsMissing } from "#test/servers/nats-server.ts";

const skip = natsMissing() ?? false;
const KIB = 1024;
const BLOCK_BYTES = 4 * KIB;
const BLOCKS = 3000;

/** A process that tells what it reads. */
interface Told {
  readonly agent: RunningProcess;
  /** How many bytes of blocks and nodes of a storage it has read so far: of keys others may read some. */
  reads(storage: string): Promise<number>;
}

async function startTold(cluster: TestCluster, roles: string): Promise<Told> {
  const port = await freePort();
  await cluster.repo.configure([["agent", "health"], `127.0.0.1:${port}`]);
  const agent = await cluster.startAgent(roles);
  return {
    agent,
    reads: async (storage) => {
      const text = await metricsAt(port);
      const read = (kind: string): number =>
        seriesOf(text, "ashlar_storage_bytes_total", { storage, direction: "read", kind });
      return read("blocks") + read("nodes");
    },
  };
}

/** A repository with a version in it, whose storages are read at so many bytes per second by each process. */
async function makeCluster(storages: readonly string[], bytesPerSecond: number) {
  const cluster = await TestCluster.make({ storages, blockBytes: BLOCK_BYTES });
  const { repo } = cluster;
  const image = repo.fresh("image");
  await writeNoise(image, "scrubbed", BLOCKS * BLOCK_BYTES);
  await repo.backup(image);
  for (const index of storages.keys()) {
    await repo.configure([["storages", index, "bandwidthRead"], bytesPerSecond]);
  }
  const blocks = await repo.objects("a", "blocks");
  const nodes = await repo.objects("a", "nodes");
  const objects = [...blocks, ...nodes];
  const bytes = objects.reduce((total, { sizeBytes }) => total + sizeBytes, 0);
  return { cluster, count: objects.length, bytes, blocks };
}

async function sum(all: readonly Told[], storage: string): Promise<number> {
  const each = await Promise.all(all.map((one) => one.reads(storage)));
  return each.reduce((total, reads) => total + reads, 0);
}

/** What a scrub of storages has looked at, by their order. */
function checked(result: Readonly<Record<string, unknown>>): number[] {
  return (result["storages"] as { checked: number }[]).map((each) => each.checked);
}

const details = ({ error }: JobDocument) =>
  (error as unknown as { details: Record<string, unknown> }).details;

describe("a scrub of a cluster", { skip, timeout: TEST_TIMEOUT_MS, concurrency: 2 }, () => {
  it("is shared by all writers, reads each object once, heals what is wrong, and keeps its budget", async () => {
    const { cluster, count, bytes, blocks } = await makeCluster(["a", "b"], 1024 * KIB);
    await using _ = cluster;
    const writers = [
      await startTold(cluster, "dedup,writer"),
      await startTold(cluster, "dedup,writer"),
    ];
    const all = [...writers, await startTold(cluster, "coordinator")];
    const budget = 400 * KIB;
    const some = { kind: "scrub", deep: true, storages: ["a"], budgetBytes: budget };
    const { storages, budgetSpent } = await cluster.done(await cluster.submit(some));
    assert.ok(budgetSpent);
    const [first] = storages as { bytes: number; checked: number }[];
    assert.ok(first!.bytes >= budget && first!.bytes < budget + 2 * BLOCK_BYTES, `${first!.bytes}`);
    assert.equal(await sum(all, "a"), first!.bytes);

    await unlink(blocks[5]!.file);
    await overwrite(blocks[70]!.file, Buffer.from("rot"), 200);
    const ended = await cluster.finished(await cluster.submit({ kind: "scrub", deep: true }));
    assert.equal(ended.error?.code, "DAMAGED");
    assert.match(ended.error?.message ?? "", /2 damaged objects were found, 2 of them healed/);
    const told = details(ended)["damaged"] as { name: string; versions: object[] }[];
    assert.deepEqual(
      told.map(({ name }) => name).toSorted(),
      [blocks[5]!.name, blocks[70]!.name].toSorted(),
    );
    assert.ok(told.every(({ versions }) => versions.length === 1));
    assert.deepEqual(checked(details(ended)), [count, count]);
    // Once by the first scrub, once by this one; to heal two objects the other storage's are read once more.
    const [gone, rotten] = [blocks[5]!.sizeBytes, blocks[70]!.sizeBytes];
    assert.equal(await sum(all, "a"), first!.bytes + bytes - gone);
    assert.equal(await sum(all, "b"), bytes + gone + rotten);
    for (const storage of ["a", "b"]) {
      for (const writer of writers) assert.ok((await writer.reads(storage)) > bytes / 8);
    }
    await cluster.stopAgents();
    await cluster.repo.run(["gc"]);
    await cluster.repo.assertNoOrphans();
  });

  it("goes on when a writer dies, and where its coordinator has died", async () => {
    const { cluster, count, bytes } = await makeCluster(["a"], 256 * KIB);
    await using _ = cluster;
    const writer = await startTold(cluster, "dedup,writer");
    const victim = await startTold(cluster, "dedup,writer");
    const coordinator = await startTold(cluster, "coordinator");
    const job = await cluster.submit({ kind: "scrub", deep: true });
    await until(async () => ((await victim.reads("a")) > bytes / 8 ? true : undefined), 50);
    const before = await victim.reads("a");
    await victim.agent.kill();
    await until(async () => ((await writer.reads("a")) > bytes / 3 ? true : undefined), 50);
    const atCoordinator = await coordinator.reads("a");
    await coordinator.agent.kill();
    const next = await startTold(cluster, "coordinator");
    const again = checked(await cluster.done(job));
    const total = before + atCoordinator + (await sum([writer, next], "a"));
    assert.ok(total < bytes * 1.5, `${total} bytes were read of ${bytes}`);
    assert.ok(again[0]! < count, "the second try has found marks of the first");
    await cluster.stopAgents();
    const { storages } = await cluster.repo.json<{ storages: { verifiedSince: string }[] }>([
      "storage",
      "stats",
    ]);
    assert.ok(Date.parse(storages[0]!.verifiedSince) > Date.now() - 600_000);
    await cluster.repo.assertNoOrphans();
  });

  it("stops within seconds, in every process", async () => {
    const { cluster, bytes } = await makeCluster(["a"], 64 * KIB);
    await using _ = cluster;
    const all = [
      await startTold(cluster, "dedup,writer"),
      await startTold(cluster, "dedup,writer"),
      await startTold(cluster, "coordinator"),
    ];
    const job = await cluster.submit({ kind: "scrub", deep: true });
    await until(async () => {
      const reads = await Promise.all(all.map((each) => each.reads("a")));
      return reads.every((each) => each > 0) ? true : undefined;
    }, 50);
    await cluster.bare.ask("ashlar.v1.jobs.cancel", { job });
    assert.equal((await cluster.finished(job)).state, "cancelled");
    const reads = await sum(all, "a");
    let quiet = reads;
    for (let before = -1; before !== quiet; quiet = await sum(all, "a")) {
      before = quiet;
      await setTimeout(2000);
    }
    // What waits for its turn is hundreds of objects in each process.
    const late = quiet - reads;
    assert.ok(quiet < bytes && late < 100 * BLOCK_BYTES, `${late} bytes were read afterwards`);
    await cluster.stopAgents();
  });
});
