/**
 * One thread of the limit program. It takes the next piece of work from a shared counter and does
 * the whole chain on it synchronously, in buffers that it uses again and again.
 */
import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fsync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  writeSync,
  writevSync,
} from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { promisify } from "node:util";
import { parentPort, workerData } from "node:worker_threads";
import { HEADER_BYTES, hashBlock, openObject, sealBlock } from "./limit-object.ts";
import type { LimitStage, LimitTally, LimitWork } from "./limit.ts";

const fdatasyncLater = promisify(fdatasync);
const fsyncLater = promisify(fsync);

/** Batches of one thread that are being flushed while it works on. */
const FLUSHING_MAX = 3;

/** An object that is written under its temporary name and not yet durable. */
interface Pending {
  readonly fd: number;
  readonly temporary: string;
  readonly final: string;
}

/**
 * Writes objects with the durability of a storage. The flushes, which only wait, run beside the
 * computing thread; a batch shares the flush of its folder and most journal commits.
 */
class ObjectFolder {
  readonly #folder: string;
  readonly #folderFd: number;
  readonly #batchMax: number;
  #pending: Pending[] = [];
  readonly #flushing: Promise<void>[] = [];

  constructor(folder: string, batchMax: number) {
    mkdirSync(folder, { recursive: true });
    this.#folder = folder;
    this.#folderFd = openSync(folder, "r");
    this.#batchMax = batchMax;
  }

  /** Writes one object; it is durable once `close` returned. */
  async write(name: string, parts: readonly Buffer[]): Promise<void> {
    const final = join(this.#folder, name);
    const temporary = `${final}.tmp`;
    const fd = openSync(temporary, "wx");
    const written = writevSync(fd, parts);
    const expected = parts.reduce((sum, part) => sum + part.length, 0);
    if (written !== expected) throw new Error(`short write to ${temporary}`);
    this.#pending.push({ fd, temporary, final });
    if (this.#pending.length < this.#batchMax) return;
    this.#flushing.push(this.#flush(this.#pending));
    this.#pending = [];
    if (this.#flushing.length >= FLUSHING_MAX) await this.#flushing.shift();
  }

  /** Data first, then the names, then the folder that holds the names. */
  async #flush(batch: readonly Pending[]): Promise<void> {
    await Promise.all(batch.map(({ fd }) => fdatasyncLater(fd)));
    for (const { fd, temporary, final } of batch) {
      closeSync(fd);
      renameSync(temporary, final);
    }
    await fsyncLater(this.#folderFd);
  }

  async close(): Promise<void> {
    this.#flushing.push(this.#flush(this.#pending));
    await Promise.all(this.#flushing);
    closeSync(this.#folderFd);
  }
}

/** Fills `buffer` from `position`; a short answer before that is an error. */
function readFully(fd: number, buffer: Buffer, position: number): void {
  let done = 0;
  while (done < buffer.length) {
    const count = readSync(fd, buffer, done, buffer.length - done, position + done);
    if (count === 0) throw new Error(`the file ends at ${position + done}`);
    done += count;
  }
}

/** What a backup computes for a block: its object, or nothing when it is only hashed. */
function chain(stage: LimitStage, block: Buffer, index: number): readonly Buffer[] | undefined {
  const id = hashBlock(block);
  return stage === "hash" ? undefined : sealBlock(block, id, index);
}

/** Reads an image block by block: hash, and by stage also seal, and write. */
async function readImage(work: LimitWork, tally: LimitTally): Promise<void> {
  const next = new Int32Array(work.counter);
  const buffer = Buffer.alloc(work.blockBytes);
  const zero = Buffer.alloc(work.blockBytes);
  const image = openSync(work.image, "r");
  const folder =
    work.stage === "store" || work.stage === "write"
      ? new ObjectFolder(join(work.objects, `t${work.thread}`), work.batchMax)
      : undefined;
  const blockCount = Math.ceil(work.imageBytes / work.blockBytes);
  for (;;) {
    const index = Atomics.add(next, 1, 1);
    if (index >= blockCount) break;
    const offset = index * work.blockBytes;
    const block = buffer.subarray(0, Math.min(work.blockBytes, work.imageBytes - offset));
    readFully(image, block, offset);
    tally.bytes += block.length;
    tally.blocks += 1;
    if (block.equals(block.length === zero.length ? zero : zero.subarray(0, block.length))) {
      tally.zeroBlocks += 1;
      continue;
    }
    const parts = work.stage === "write" ? [block] : chain(work.stage, block, index);
    if (parts === undefined) continue;
    for (const part of parts) tally.storedBytes += part.length;
    if (folder === undefined) continue;
    await folder.write(String(index), parts);
    // A turn of the event loop, so that finished flushes are seen.
    await setImmediate();
  }
  await folder?.close();
  closeSync(image);
}

/** Reads objects: open and verify, and by stage also write to the target. */
function readObjects(work: LimitWork, tally: LimitTally): void {
  const next = new Int32Array(work.counter);
  const buffer = Buffer.alloc(work.blockBytes + HEADER_BYTES);
  const target = work.stage === "restore" ? openSync(work.image, "r+") : undefined;
  for (;;) {
    const index = Atomics.add(next, 1, 1);
    const name = work.names[index];
    if (name === undefined) break;
    const fd = openSync(join(work.objects, name), "r");
    const length = readSync(fd, buffer, 0, buffer.length, 0);
    closeSync(fd);
    const { block, blockIndex } = openObject(buffer.subarray(0, length));
    tally.bytes += block.length;
    tally.blocks += 1;
    tally.storedBytes += length;
    if (target !== undefined) {
      const written = writeSync(target, block, 0, block.length, blockIndex * work.blockBytes);
      if (written !== block.length) throw new Error("short write to the target");
    }
  }
  if (target !== undefined) {
    fdatasyncSync(target);
    closeSync(target);
  }
}

const work = workerData as LimitWork;
const start = new Int32Array(work.counter);
parentPort?.postMessage("ready");
// All threads begin at once, so that starting them does not count as work.
Atomics.wait(start, 0, 0);
const tally: LimitTally = { bytes: 0, blocks: 0, zeroBlocks: 0, storedBytes: 0 };
if (work.stage === "verify" || work.stage === "restore") readObjects(work, tally);
else await readImage(work, tally);
parentPort?.postMessage(tally);
