// A storage or a writer that is slow: whatever the size of the image, each process keeps to what its configuration allows, the NATS
// server included, and the reader reads no further ahead of the storage than its slots reach. Everything is measured from outside.
import assert from "node:assert/strict";
import { createReadStream, readFileSync } from "node:fs";
import { open, readFile, writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { parseDocument } from "yaml";
import { MIB, noise } from "#test/fixtures/integration-image.ts";
import type { RunningProcess } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import { slowStorageEnv } from "#test/fixtures/slow-storage.ts";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import { natsMissing } from "#test/servers/nats-server.ts";
import { MemorySampler, type MemoryPeak } from "../../bench/memory-sampler.ts";

const skip = natsMissing() ?? false;

const BLOCK_BYTES = 4 * MIB;
/** Half of a reader's budget are its slots: what it may have read that is not stored yet. */
const READER_BUDGET_BYTES = 192 * MIB;
const WINDOW_BYTES = READER_BUDGET_BYTES / 2;
const WRITER_BUDGET_BYTES = 32 * MIB;
const WRITER_SLOTS = WRITER_BUDGET_BYTES / 2 / BLOCK_BYTES;
/** More than the writer's slots and less than the reader's window, so that all three fill up. */
const BLOCKS_STREAM_BYTES = 48 * MIB;
const OTHER_STREAM_BYTES = 4 * MIB;
/** Claims, blocks, requests and readers are in memory. */
const STREAM_BYTES = BLOCKS_STREAM_BYTES + 3 * OTHER_STREAM_BYTES;
/** Of the test's own NATS: max_pending, for clients that are slow. */
const PENDING_BYTES = 96 * MIB;
/** What V8 lets lie before it looks for what is no longer in use, with what messages are received into (64 MiB at most). */
const UNCOLLECTED_BYTES = 128 * MIB;

const STORAGE_BYTES_PER_SECOND = 28 * MIB;
const SMALL_BYTES = 112 * MIB;
const LARGE_BYTES = 4 * SMALL_BYTES;
/** What a process reads that is not the image: messages, code that is loaded late. */
const OTHER_READS_BYTES = 8 * MIB;

/** The processes of a cluster by their roles. */
type Processes = Readonly<Record<"nats" | "core" | "writer" | "reader", number>>;
type Peaks = Readonly<Record<keyof Processes, MemoryPeak>>;

interface Cluster {
  readonly cluster: TestCluster;
  readonly pids: Processes;
  readonly writer: RunningProcess;
  /** Most that each may take. */
  readonly bounds: Readonly<Record<keyof Processes, number>>;
}

/** Watches all until the function that it gives is called. */
function watch(pids: Processes): () => Peaks {
  const samplers = Object.entries(pids).map(
    ([name, pid]) => [name, new MemorySampler(pid)] as const,
  );
  return () => Object.fromEntries(samplers.map(([name, each]) => [name, each.stop()])) as Peaks;
}

/** Each role a process of its own, with small budgets. */
async function start(
  cluster: TestCluster,
  writerEnv: Readonly<Record<string, string>> = {},
): Promise<Cluster> {
  const { repo, nats } = cluster;
  await repo.configure(
    [["memory", "budget"], WRITER_BUDGET_BYTES],
    [["nats", "streams", "blocks"], BLOCKS_STREAM_BYTES],
    [["nats", "streams", "claims"], OTHER_STREAM_BYTES],
    [["nats", "streams", "requests"], OTHER_STREAM_BYTES],
  );
  const hv1 = await cluster.enroll("hv1");
  const document = parseDocument(await readFile(hv1, "utf8"));
  document.setIn(["memory", "budget"], READER_BUDGET_BYTES);
  await writeFile(hv1, document.toString());
  const core = await cluster.startAgent("dedup,coordinator");
  const writer = await cluster.startAgent("writer", undefined, { env: writerEnv });
  const reader = await cluster.startAgent("reader", hv1);
  const pids = {
    nats: (nats.servers[0] as { readonly pid: number }).pid,
    core: core.pid,
    writer: writer.pid,
    reader: reader.pid,
  };
  const stop = watch(pids);
  await setTimeout(500);
  const idle = stop();
  return {
    cluster,
    pids,
    writer,
    bounds: {
      // Go's heap may be twice what is in use.
      nats: idle.nats.bytes + 2 * STREAM_BYTES + PENDING_BYTES,
      core: idle.core.bytes + WRITER_BUDGET_BYTES,
      writer: idle.writer.bytes + WRITER_BUDGET_BYTES + UNCOLLECTED_BYTES,
      reader: idle.reader.bytes + READER_BUDGET_BYTES + UNCOLLECTED_BYTES,
    },
  };
}

/** Noise that is never whole in memory; its hash. */
async function writeLargeNoise(file: string, seed: string, sizeBytes: number): Promise<string> {
  const hash = createHash("sha256");
  await using handle = await open(file, "w");
  for (let at = 0; at < sizeBytes; at += BLOCK_BYTES) {
    const piece = noise(`${seed}/${at}`, BLOCK_BYTES);
    hash.update(piece);
    await handle.write(piece, 0, piece.length, at);
  }
  return hash.digest("hex");
}

async function hashOf(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(file)) hash.update(piece as Buffer);
  return hash.digest("hex");
}

/** Bytes that a process has read, from whatever. */
function bytesRead(pid: number): number {
  const [, count] = /^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8")) ?? [];
  return Number(count);
}

async function bytesStored({ repo }: TestCluster): Promise<number> {
  const objects = await repo.objects(undefined, "blocks");
  return objects.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

interface Measured {
  readonly uid: string;
  readonly peaks: Peaks;
  readonly seconds: number;
  /** Most that had been read and was not at the storage yet. */
  readonly aheadBytes: number;
  /** Most that NATS held, and most messages that the writer had taken and not dealt with. */
  readonly streamBytes: number;
  readonly taken: number;
}

/** What NATS tells of the blocks. */
async function askStream({ bare }: TestCluster): Promise<{ bytes: number; taken: number }> {
  const { state } = await bare.ask<{ state: { bytes: number } }>(
    "$JS.API.STREAM.INFO.ashlar-blocks",
  );
  const { num_ack_pending: taken } = await bare.ask<{ num_ack_pending: number }>(
    "$JS.API.CONSUMER.INFO.ashlar-blocks.default",
  );
  return { bytes: state.bytes, taken };
}

/** Backs up, and looks from outside. */
async function measure({ cluster, pids }: Cluster, source: string): Promise<Measured> {
  const readBefore = bytesRead(pids.reader);
  const storedBefore = await bytesStored(cluster);
  const stop = watch(pids);
  const startMs = Date.now();
  const job = await cluster.submit({ kind: "backup", volume: source, source, host: "hv1" });
  const most = { aheadBytes: 0, streamBytes: 0, taken: 0 };
  const ended = new AbortController();
  const looking = (async () => {
    while (!ended.signal.aborted) {
      // In this order: what is stored meanwhile makes it less, never more.
      const read = bytesRead(pids.reader) - readBefore;
      const stored = (await bytesStored(cluster)) - storedBefore;
      const { bytes, taken } = await askStream(cluster);
      most.aheadBytes = Math.max(most.aheadBytes, read - stored);
      most.streamBytes = Math.max(most.streamBytes, bytes);
      most.taken = Math.max(most.taken, taken);
      await setTimeout(100);
    }
  })();
  const { uid } = await cluster.done(job, TEST_TIMEOUT_MS).finally(() => ended.abort());
  await looking;
  const seconds = (Date.now() - startMs) / 1000;
  return { uid: String(uid), peaks: stop(), seconds, ...most };
}

const inMib = (bytes: number): string => `${Math.round(bytes / MIB)} MiB`;

/** All keep to their bounds, and what lies before the writer is full: that is what holds the reader up. */
function assertBounded({ bounds, pids }: Cluster, measured: Measured): void {
  const { peaks, aheadBytes, streamBytes, taken } = measured;
  for (const name of Object.keys(pids) as (keyof Processes)[]) {
    const { bytes } = peaks[name];
    const told = `${name} took ${inMib(bytes)}, and may take ${inMib(bounds[name])}`;
    assert.ok(bytes > 0 && bytes <= bounds[name], told);
  }
  const told = `${inMib(aheadBytes)} ahead of the storage, with a window of ${inMib(WINDOW_BYTES)}`;
  assert.ok(aheadBytes <= WINDOW_BYTES + OTHER_READS_BYTES, `read ${told}`);
  assert.ok(aheadBytes >= WINDOW_BYTES / 2, `read ${told}: nothing held it up`);
  assert.ok(streamBytes <= BLOCKS_STREAM_BYTES, `NATS held ${inMib(streamBytes)} of blocks`);
  assert.ok(streamBytes >= BLOCKS_STREAM_BYTES / 2, `NATS held no more than ${inMib(streamBytes)}`);
  // The server may give out the next one before it has counted the acknowledgement of the last.
  const isTaken = taken >= WRITER_SLOTS && taken <= WRITER_SLOTS + 1;
  assert.ok(isTaken, `the writer took ${taken} blocks, with ${WRITER_SLOTS} slots`);
}

function tell(test: { diagnostic(text: string): void }, bytes: number, measured: Measured): void {
  const { peaks, seconds, aheadBytes, streamBytes, taken } = measured;
  const each = Object.entries(peaks).map(([name, peak]) => `${name} ${inMib(peak.bytes)}`);
  const ahead = `at most ${inMib(aheadBytes)} ahead, ${inMib(streamBytes)} in NATS, ${taken} taken`;
  test.diagnostic(`${inMib(bytes)} in ${seconds.toFixed(1)} s, ${ahead}; ${each.join(", ")}`);
}

async function assertRestored({ cluster }: Cluster, uid: string, hash: string): Promise<void> {
  const target = cluster.repo.fresh("restored");
  await cluster.repo.run(["restore", uid, target]);
  assert.equal(await hashOf(target), hash, "what was restored is what was backed up");
}

describe("back-pressure across a cluster", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  let made: TestCluster;
  let cluster: Cluster;
  before(async () => {
    made = await TestCluster.make({ blockBytes: BLOCK_BYTES });
    cluster = await start(made, slowStorageEnv(STORAGE_BYTES_PER_SECOND));
  });
  after(() => made[Symbol.asyncDispose]());

  it("keeps memory bounded and the reader back while a storage is slow, whatever the image's size", async (test) => {
    const measured: Measured[] = [];
    for (const bytes of [SMALL_BYTES, LARGE_BYTES]) {
      const image = made.repo.fresh("image");
      const hash = await writeLargeNoise(image, `slow storage/${bytes}`, bytes);
      const one = await measure(cluster, image);
      tell(test, bytes, one);
      assertBounded(cluster, one);
      // It waited for the storage.
      const leastSeconds = bytes / STORAGE_BYTES_PER_SECOND;
      assert.ok(one.seconds >= 0.95 * leastSeconds, `${one.seconds} s are too few`);
      if (bytes === SMALL_BYTES) await assertRestored(cluster, one.uid, hash);
      measured.push(one);
    }
    const [small, large] = measured as [Measured, Measured];
    for (const name of Object.keys(cluster.pids) as (keyof Processes)[]) {
      const [less, more] = [small.peaks[name].bytes, large.peaks[name].bytes];
      // When memory that is no longer in use is collected varies a little from run to run.
      const isSame = more <= 1.2 * less + UNCOLLECTED_BYTES / 8;
      assert.ok(isSame, `${name} grew from ${inMib(less)} to ${inMib(more)} with the image`);
    }
  });

  it("does so while a writer stands still most of the time, for less than its lease", async (test) => {
    const image = made.repo.fresh("image");
    const hash = await writeLargeNoise(image, "slow writer", SMALL_BYTES);
    const ended = new AbortController();
    const stopping = (async () => {
      while (!ended.signal.aborted) {
        cluster.writer.signal("SIGSTOP");
        await setTimeout(1000);
        cluster.writer.signal("SIGCONT");
        await setTimeout(500);
      }
    })();
    const one = await measure(cluster, image).finally(() => ended.abort());
    await stopping;
    tell(test, SMALL_BYTES, one);
    assertBounded(cluster, one);
    await assertRestored(cluster, one.uid, hash);
    await made.stopAgents();
    await made.repo.assertNoOrphans();
  });
});
