// Space kept back, so that removal, collection and restores still work when the store is full: they write, too.
//
// Against a full limit: ordinary transactions stop short of it. Against a full disk: a file holds space that a removal
// may give up; ordinary transactions then have to wait until it can be filled again, or until the data file itself has as
// many free pages, so that they do not eat what was freed.
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { ErrorCode, fromSystemError, isErrorCode } from "#lib/core/errors.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import { fullError, isFull } from "./lmdb-errors.ts";
import type { LmdbStore } from "./lmdb-store.ts";

/** Transactions with such a label may use what is kept back. */
const FREEING_LABEL = "free:";
/** Name of the file that holds space, within the store's folder. */
export const RESERVE_FILE = "reserve";

const CHUNK_BYTES = 2 ** 20;
/** Filling the file again is not tried more often. */
const REFILL_MS_MIN = 1000;
/** Pages that a commit may need beyond those of its keys: the paths to them, and the list of free pages. */
const EXTRA_PAGES = 64;
/** LMDB's page size where nobody has chosen another. */
export const PAGE_BYTES = 4096;

/** Options of {@link LmdbSpace}. */
export interface LmdbSpaceOptions {
  /** The data does not grow beyond this. */
  readonly mapSizeBytes: number;
  /** How much of it, and how much of the disk, is kept back. */
  readonly reserveBytes: number;
  readonly clock: Clock;
  readonly random: Random;
}

/** Whether a transaction may use what is kept back, by its label. */
export function isFreeing(label: string): boolean {
  return label.startsWith(FREEING_LABEL);
}

/** The space of one open, writable store. */
export class LmdbSpace {
  readonly #store: LmdbStore;
  readonly #options: LmdbSpaceOptions;
  readonly #fd: number;
  #refillNotBefore = 0;
  /** Whether the commit that was prepared last leaves enough behind for removals. */
  #held = false;

  constructor(store: LmdbStore, options: LmdbSpaceOptions) {
    this.#store = store;
    this.#options = options;
    const path = join(store.path, RESERVE_FILE);
    try {
      this.#fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    } catch (error) {
      throw fromSystemError(error, `opening ${path}`);
    }
  }

  /** Fills the reserve for the first time. A full disk is no error: whoever opens the store may be about to remove. */
  fill(): void {
    if (!this.#isFilled()) this.#refill();
  }

  /** Before the write transaction of an ordinary commit: fills the reserve again if it was used and can be filled. */
  prepare(label: string): void {
    this.#held = isFreeing(label) || this.#isFilled() || this.#refill();
  }

  /** Within the write transaction, before it writes: throws when an ordinary one has no space left. */
  check(label: string, pageCount: number): void {
    // The limit is one of our own: a removal can always go beyond it for a moment.
    if (isFreeing(label)) return;
    const { mapSizeBytes, reserveBytes } = this.#options;
    const growth = (pageCount + EXTRA_PAGES) * PAGE_BYTES;
    const limit = mapSizeBytes - reserveBytes;
    const { fileBytes } = this.#store;
    if (this.#held && fileBytes + growth <= limit) return;
    // What matters are the pages in use: the file does not shrink, but its free pages are used again.
    const wanted = this.#store.usedBytes + growth;
    if (wanted > limit) {
      throw fullError(this.#store.path, `it has reached its limit of ${mapSizeBytes} bytes`);
    }
    if (!this.#held && wanted + reserveBytes > fileBytes) {
      throw fullError(this.#store.path, "the space kept back for removals is in use");
    }
  }

  /**
   * What an error of a commit means: LMDB tells a disk that fills up in the middle of a write as EIO.
   * @returns the error to throw, with ENOSPC where the disk is full
   */
  explain(error: unknown): unknown {
    if (!isErrorCode(error, ErrorCode.Io) || error.details["errno"] !== "EIO") return error;
    return this.#isDiskFull()
      ? fullError(this.#store.path, "no space left on the device", error)
      : error;
  }

  /** Gives the space up that the file holds; false when it holds none. */
  giveUp(): boolean {
    const held = fstatSync(this.#fd).size > 0;
    ftruncateSync(this.#fd, 0);
    this.#refillNotBefore = this.#options.clock.monotonic() + REFILL_MS_MIN;
    return held;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #isDiskFull(): boolean {
    const { size } = fstatSync(this.#fd);
    const probe = this.#options.random.bytes(CHUNK_BYTES);
    try {
      return writeSync(this.#fd, probe, 0, CHUNK_BYTES, size) < CHUNK_BYTES;
    } catch (error) {
      return isNoSpace(error);
    } finally {
      ftruncateSync(this.#fd, size);
    }
  }

  #isFilled(): boolean {
    return fstatSync(this.#fd).size >= this.#options.reserveBytes;
  }

  /** True when the file holds all that it should. */
  #refill(): boolean {
    const now = this.#options.clock.monotonic();
    if (now < this.#refillNotBefore) return false;
    this.#refillNotBefore = now + REFILL_MS_MIN;
    let held = fstatSync(this.#fd).size;
    if (held >= this.#options.reserveBytes) return true;
    try {
      while (held < this.#options.reserveBytes) {
        const wanted = Math.min(CHUNK_BYTES, this.#options.reserveBytes - held);
        // Random, because a file system that compresses holds no space for zeros.
        held += writeSync(this.#fd, this.#options.random.bytes(wanted), 0, wanted, held);
      }
      fdatasyncSync(this.#fd);
      return true;
    } catch (error) {
      if (!isNoSpace(error))
        throw fromSystemError(error, `filling ${RESERVE_FILE} of ${this.#store.path}`);
      // What there is belongs to those who remove.
      ftruncateSync(this.#fd, 0);
      return false;
    }
  }
}

function isNoSpace(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return code === "ENOSPC" || code === "EDQUOT" || isFull(error);
}
