// What a backup has done so far.
import { NO_COUNTS, type BackupCounts } from "#proto/message-parts.ts";
import type { BroughtBlock } from "./block-pipeline.ts";

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Counts of one backup, in bytes of plaintext and blocks. */
export class Counts {
  readonly #counts: Mutable<BackupCounts> = { ...NO_COUNTS };

  /** A block was read and brought. */
  brought(block: BroughtBlock): void {
    const counts = this.#counts;
    counts.bytesRead += block.length;
    counts.blocksRead += 1;
    counts.bytesStored += block.storedBytes;
    switch (block.outcome) {
      case "zero":
        this.sparse(block.length, 1);
        break;
      case "known":
        counts.bytesKnown += block.length;
        counts.blocksKnown += 1;
        break;
      case "new":
        counts.bytesNew += block.length;
        counts.blocksNew += 1;
        break;
    }
  }

  /** Blocks are zero. */
  sparse(bytes: number, blocks: number): void {
    this.#counts.bytesSparse += bytes;
    this.#counts.blocksSparse += blocks;
  }

  /** Blocks are the base's, without reading. */
  unchanged(bytes: number, blocks: number): void {
    this.#counts.bytesUnchanged += bytes;
    this.#counts.blocksUnchanged += blocks;
  }

  /** All counts. */
  snapshot(): BackupCounts {
    return { ...this.#counts };
  }

  /** What a progress bar shows. */
  progress(): { bytesDone: number; bytesNew: number; bytesKnown: number; bytesSparse: number } {
    const { bytesNew, bytesKnown, bytesSparse, bytesUnchanged } = this.#counts;
    return {
      bytesDone: bytesNew + bytesKnown + bytesSparse + bytesUnchanged,
      bytesNew,
      bytesKnown: bytesKnown + bytesUnchanged,
      bytesSparse,
    };
  }
}
