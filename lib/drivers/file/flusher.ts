// Makes files and folders durable, several at once. From two on, one flush of the whole file system is cheaper than one
// each: every single flush makes the disk write out its cache. But it also waits for whatever others have written there, so
// where it takes long it is left alone for a while.
import { openSync, closeSync } from "node:fs";
import { release } from "node:os";
import { syncFileSystem } from "#lib/drivers/linux/system-calls.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { closeFile, flushData, flushFile, openFile } from "./file-calls.ts";

/** From so many on, everything at once: measured, two are enough. */
const TOGETHER_COUNT_MIN = 2;

/** A flush of everything that takes longer than this per file, and than the base, is not worth it. */
const TOGETHER_BASE_MS = 500;
const TOGETHER_MS_PER_FILE = 20;
/** How long it is left alone then. */
const TOGETHER_PAUSE_MS = 60_000;

/** What went wrong with one file or folder; undefined when it is durable. */
export type FlushOutcome = Error | undefined;

/** Flushes within one file system. */
export class Flusher {
  /** Open for as long as anything is written: only then is a failed write reported to it. */
  readonly #root: number;
  readonly #clock: Clock;
  #notBeforeMs = isTogetherSafe() ? -Infinity : Infinity;

  constructor(folder: string, clock: Clock) {
    this.#root = openSync(folder, "r");
    this.#clock = clock;
  }

  /** Makes the contents of open files durable, in their order. */
  async files(fds: readonly number[]): Promise<FlushOutcome[]> {
    if (await this.#together(fds.length)) return fds.map(() => undefined);
    return Promise.all(fds.map((fd) => outcomeOf(flushData(fd))));
  }

  /** Makes the entries of folders durable, in their order. */
  async folders(paths: readonly string[]): Promise<FlushOutcome[]> {
    if (await this.#together(paths.length)) return paths.map(() => undefined);
    return Promise.all(paths.map((path) => outcomeOf(flushFolder(path))));
  }

  close(): void {
    closeSync(this.#root);
  }

  /** False when each has to be flushed by itself: too few, too slow, or something failed and it must be told what. */
  async #together(count: number): Promise<boolean> {
    const beginMs = this.#clock.monotonic();
    if (count < TOGETHER_COUNT_MIN || beginMs < this.#notBeforeMs) return false;
    if ((await outcomeOf(syncFileSystem(this.#root))) !== undefined) return false;
    const endMs = this.#clock.monotonic();
    if (endMs - beginMs > TOGETHER_BASE_MS + count * TOGETHER_MS_PER_FILE) {
      this.#notBeforeMs = endMs + TOGETHER_PAUSE_MS;
    }
    return true;
  }
}

/** Makes the entries of a folder durable. */
export async function flushFolder(path: string): Promise<void> {
  const fd = await openFile(path, "r");
  try {
    await flushFile(fd);
  } finally {
    await closeFile(fd);
  }
}

async function outcomeOf(flush: Promise<void>): Promise<FlushOutcome> {
  try {
    await flush;
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

/** Only since Linux 5.8 does syncfs tell that a write has failed. */
function isTogetherSafe(): boolean {
  const [major = 0, minor = 0] = release().split(".").map(Number);
  return major > 5 || (major === 5 && minor >= 8);
}
