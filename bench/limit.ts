/**
 * The machine's own limit: a small program that does, on all cores, what a block backup cannot
 * avoid, with the primitives that Ashlar uses, and nothing besides. Ashlar is measured against it.
 *
 *   node bench/limit.ts STAGE IMAGE [OBJECTS] [--block-size N] [--threads N] [--bytes N]
 *
 * Stages: hash (read, zero check, keyed BLAKE3), seal (+ zstd, AES-256-GCM), store (+ durable
 * objects below OBJECTS), write (read and durable objects, without the chain); verify (read objects,
 * open, prove), restore (+ write IMAGE). --bytes stops after that much of the image.
 * It prints one JSON document.
 */
import { closeSync, openSync, readdirSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";

export const LIMIT_STAGES = ["hash", "seal", "store", "write", "verify", "restore"] as const;
export type LimitStage = (typeof LIMIT_STAGES)[number];

/** What a thread is told. `counter`: [0] start signal, [1] next piece of work. */
export interface LimitWork {
  readonly stage: LimitStage;
  readonly image: string;
  readonly imageBytes: number;
  readonly objects: string;
  readonly names: readonly string[];
  readonly blockBytes: number;
  readonly batchMax: number;
  readonly thread: number;
  readonly counter: SharedArrayBuffer;
}

/** What a thread, or all of them together, did. */
export interface LimitTally {
  bytes: number;
  blocks: number;
  zeroBlocks: number;
  storedBytes: number;
}

/** The document that the program prints: its work, without its own start-up. */
export interface LimitResult extends LimitTally {
  readonly stage: LimitStage;
  readonly threads: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
}

/** Objects in a batch that shares its flushes, by bytes, so that small blocks share more. */
const BATCH_BYTES = 32 * 1024 * 1024;
const BATCH_OBJECTS_MAX = 64;
/** Threads for each core where some are held up by a disk, so that the cores are not. */
const WRITING_THREADS_PER_CORE = 1.5;

function isStage(text: string | undefined): text is LimitStage {
  return LIMIT_STAGES.some((stage) => stage === text);
}

function positiveInteger(text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new Error(`not a count: ${text}`);
  return value;
}

/** Every object below a folder of the store stage, as `thread/index`. */
function listObjects(folder: string): string[] {
  const names: string[] = [];
  for (const thread of readdirSync(folder)) {
    for (const name of readdirSync(join(folder, thread))) names.push(join(thread, name));
  }
  return names;
}

/** Starts the threads, lets them begin at once, and adds up what they did. */
async function runThreads(base: LimitWork, threads: number): Promise<LimitResult> {
  const start = new Int32Array(base.counter);
  const workerUrl = new URL("limit-worker.ts", import.meta.url);
  const total: LimitTally = { bytes: 0, blocks: 0, zeroBlocks: 0, storedBytes: 0 };
  const workers = Array.from(
    { length: threads },
    (_, thread) => new Worker(workerUrl, { workerData: { ...base, thread } }),
  );
  const failed = new Promise<never>((_, reject) => {
    for (const worker of workers) worker.once("error", reject);
  });
  const message = (worker: Worker): Promise<unknown> =>
    new Promise((resolve) => {
      worker.once("message", resolve);
    });
  await Promise.race([Promise.all(workers.map(message)), failed]);

  const done = workers.map(message);
  const startedAt = process.hrtime.bigint();
  const startedCpu = process.cpuUsage();
  Atomics.store(start, 0, 1);
  Atomics.notify(start, 0);
  for (const tally of (await Promise.race([Promise.all(done), failed])) as LimitTally[]) {
    total.bytes += tally.bytes;
    total.blocks += tally.blocks;
    total.zeroBlocks += tally.zeroBlocks;
    total.storedBytes += tally.storedBytes;
  }
  const cpu = process.cpuUsage(startedCpu);
  const seconds = Number(process.hrtime.bigint() - startedAt) / 1e9;
  const cpuSeconds = (cpu.user + cpu.system) / 1e6;
  return { stage: base.stage, threads, seconds, cpuSeconds, ...total };
}

async function main(): Promise<void> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      "block-size": { type: "string" },
      threads: { type: "string" },
      bytes: { type: "string" },
    },
  });
  const [stage, image = "", objects = ""] = positionals;
  if (!isStage(stage)) throw new Error(`the stage must be one of ${LIMIT_STAGES.join(", ")}`);
  const blockBytes = positiveInteger(values["block-size"], 4 * 1024 * 1024);
  const cores = availableParallelism();
  const isReading = stage === "verify" || stage === "restore";
  const isWriting = stage === "store" || stage === "write";
  const threads = isWriting ? Math.ceil(cores * WRITING_THREADS_PER_CORE) : cores;
  const imageBytes = isReading ? 0 : statSync(image).size;
  const work: LimitWork = {
    stage,
    image,
    imageBytes: Math.min(imageBytes, positiveInteger(values.bytes, Number.MAX_SAFE_INTEGER)),
    objects,
    names: isReading ? listObjects(objects) : [],
    blockBytes,
    batchMax: Math.max(1, Math.min(BATCH_OBJECTS_MAX, Math.floor(BATCH_BYTES / blockBytes))),
    thread: 0,
    counter: new SharedArrayBuffer(8),
  };
  // The target of a restore has to exist before the threads open it.
  if (stage === "restore") closeSync(openSync(image, "w"));
  const result = await runThreads(work, positiveInteger(values.threads, threads));
  console.log(JSON.stringify(result));
}

await main();
