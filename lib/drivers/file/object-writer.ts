// Writes an unfinished object into a temporary file. Large ones go past the page cache (O_DIRECT): nobody reads an object
// soon after it was put, and filling the cache with it costs several times the CPU time and drives out what is in use.
import { constants } from "node:fs";
import { Semaphore } from "#lib/core/semaphore.ts";
import { addressOf } from "#lib/drivers/linux/system-calls.ts";
import {
  closeFile,
  errnoOf,
  flushData,
  openFile,
  truncateOpenFile,
  writeAllAt,
} from "./file-calls.ts";

/** Objects from this size on are written directly; below it costs more than it saves. */
export const DIRECT_BYTES_MIN = 1024 * 1024;

/** What memory, offsets and lengths of direct writes are aligned to: enough for every disk. */
const ALIGNMENT = 4096;

/** Memory to copy unaligned objects through, piece by piece. */
const BOUNCE_BYTES = 1024 * 1024;
const BOUNCE_COUNT = 4;

const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;

/** Writes objects into new files. */
export class ObjectWriter {
  #isDirectPossible = true;
  readonly #bounceTurns = new Semaphore(BOUNCE_COUNT);
  readonly #bounces: Uint8Array[] = [];

  /**
   * Writes a new file. Gives its descriptor when the data still has to be flushed, and undefined when it is durable: large
   * objects are flushed one by one, for they gain nothing by waiting for others.
   */
  async write(file: string, bytes: Uint8Array): Promise<number | undefined> {
    if (bytes.length < DIRECT_BYTES_MIN) return this.#writeBuffered(file, bytes);
    if (!this.#isDirectPossible || !(await this.#writeDirect(file, bytes))) {
      const fd = await this.#writeBuffered(file, bytes);
      await flushAndClose(fd);
    }
    return undefined;
  }

  async #writeBuffered(file: string, bytes: Uint8Array): Promise<number> {
    // Without O_EXCL: a direct try may have left the file behind.
    const fd = await openFile(
      file,
      constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC,
      0o600,
    );
    try {
      await writeAllAt(fd, bytes, 0);
      return fd;
    } catch (error) {
      await closeFile(fd);
      throw error;
    }
  }

  /** False where the file system knows no direct writes. */
  async #writeDirect(file: string, bytes: Uint8Array): Promise<boolean> {
    let fd: number | undefined;
    try {
      fd = await openFile(file, NEW_FILE | constants.O_DIRECT, 0o600);
      await this.#writeAligned(fd, bytes);
      await flushData(fd);
      return true;
    } catch (error) {
      if (errnoOf(error) !== "EINVAL") throw error;
      this.#isDirectPossible = false;
      return false;
    } finally {
      if (fd !== undefined) await closeFile(fd);
    }
  }

  async #writeAligned(fd: number, bytes: Uint8Array): Promise<void> {
    const wholeBytes = bytes.length - (bytes.length % ALIGNMENT);
    const isAligned = addressOf(bytes) % BigInt(ALIGNMENT) === 0n;
    if (isAligned) await writeAllAt(fd, bytes.subarray(0, wholeBytes), 0);
    const restBegin = isAligned ? wholeBytes : 0;
    if (restBegin === bytes.length) return;
    await this.#withBounce(async (bounce) => {
      for (let at = restBegin; at < bytes.length; at += bounce.length) {
        const piece = bytes.subarray(at, at + bounce.length);
        const paddedBytes = Math.ceil(piece.length / ALIGNMENT) * ALIGNMENT;
        bounce.set(piece);
        // Never what an earlier object left there: it would stand in the file for a moment.
        bounce.fill(0, piece.length, paddedBytes);
        await writeAllAt(fd, bounce.subarray(0, paddedBytes), at);
      }
    });
    if (wholeBytes !== bytes.length) await truncateOpenFile(fd, bytes.length);
  }

  #withBounce(use: (bounce: Uint8Array) => Promise<void>): Promise<void> {
    return this.#bounceTurns.run(async () => {
      const bounce = this.#bounces.pop() ?? alignedMemory(BOUNCE_BYTES);
      try {
        await use(bounce);
      } finally {
        this.#bounces.push(bounce);
      }
    });
  }
}

async function flushAndClose(fd: number): Promise<void> {
  try {
    await flushData(fd);
  } finally {
    await closeFile(fd);
  }
}

function alignedMemory(sizeBytes: number): Uint8Array {
  const memory = new Uint8Array(sizeBytes + ALIGNMENT);
  const begin = Number(-addressOf(memory) & BigInt(ALIGNMENT - 1));
  return memory.subarray(begin, begin + sizeBytes);
}
