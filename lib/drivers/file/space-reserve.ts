// Space that a file storage keeps back, so that stamps, heads and keys can still be put when its disk is full: without
// them a backup that is whole could not be acknowledged, and nothing could be deleted to make room.
import { randomFillSync } from "node:crypto";
import { constants } from "node:fs";
import { stat, truncate } from "node:fs/promises";
import { fromSystemError } from "#lib/core/errors.ts";
import {
  closeFile,
  errnoOf,
  flushData,
  openFile,
  truncateOpenFile,
  writeAllAt,
} from "./file-calls.ts";

/** What one small object may take beside its content: blocks of its folder, its inode. */
const OVERHEAD_BYTES = 64 * 1024;

/** A file that takes up space until the space is needed. */
export class SpaceReserve {
  readonly #file: string;
  readonly #sizeBytes: number;
  #isWhole = false;

  constructor(file: string, sizeBytes: number) {
    this.#file = file;
    this.#sizeBytes = sizeBytes;
  }

  /** False after some of it was given back, or before the first look at it. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** Fills it up; where there is no room it stays as it is. */
  async fill(): Promise<void> {
    if (this.#isWhole || this.#sizeBytes === 0) return;
    try {
      const hasBytes = await this.#currentBytes();
      if (hasBytes < this.#sizeBytes) await this.#grow(hasBytes);
      this.#isWhole = true;
    } catch (error) {
      if (!isFull(error)) throw fromSystemError(error, `keeping space back in ${this.#file}`);
    }
  }

  /** Gives back enough for an object of that size; false when there is nothing left to give. */
  async release(objectBytes: number): Promise<boolean> {
    this.#isWhole = false;
    const hasBytes = await this.#currentBytes();
    if (hasBytes === 0) return false;
    await truncate(this.#file, Math.max(0, hasBytes - objectBytes - OVERHEAD_BYTES));
    return true;
  }

  async #currentBytes(): Promise<number> {
    try {
      return (await stat(this.#file)).size;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return 0;
      throw error;
    }
  }

  async #grow(hasBytes: number): Promise<void> {
    const fd = await openFile(this.#file, constants.O_WRONLY | constants.O_CREAT, 0o600);
    try {
      // Random bytes: zeros would take no space on a file system that compresses.
      const bytes = randomFillSync(new Uint8Array(this.#sizeBytes - hasBytes));
      await writeAllAt(fd, bytes, hasBytes);
      await flushData(fd);
    } catch (error) {
      await truncateOpenFile(fd, hasBytes);
      throw error;
    } finally {
      await closeFile(fd);
    }
  }
}

/** Whether this is the error of a disk, or a quota, without room. */
export function isFull(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT"].includes(errnoOf(error) ?? "");
}
