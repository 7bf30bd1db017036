// A scrub cut into pieces that others do: which copies go together, and how many pieces are under way at once.
import type { StorageId } from "#lib/core/ids.ts";
import type { ScrubCopy } from "./scrub-copies.ts";

/** Copies that are asked for together: all of them at one storage, and either all bad or none. */
export interface ScrubPiece {
  readonly storage: StorageId;
  readonly bad: boolean;
  readonly copies: readonly ScrubCopy[];
}

/** Sealed bytes of a piece, unless a single copy has more: small enough for every writer to get a share, and to be stopped soon. */
const PIECE_BYTES = 64 * 1024 * 1024;

/** Cuts a page of copies, each kept in its order, into pieces. */
export function* cutPieces(page: readonly ScrubCopy[]): Generator<ScrubPiece> {
  const groups = Map.groupBy(page, ({ storage, state }) => `${storage} ${state}`);
  for (const group of groups.values()) {
    let copies: ScrubCopy[] = [];
    let bytes = 0;
    for (const copy of group) {
      if (copies.length > 0 && bytes + copy.storedBytes > PIECE_BYTES) {
        yield pieceOf(copies);
        copies = [];
        bytes = 0;
      }
      copies.push(copy);
      bytes += copy.storedBytes;
    }
    yield pieceOf(copies);
  }
}

function pieceOf(copies: readonly ScrubCopy[]): ScrubPiece {
  const { storage, state } = copies[0] as ScrubCopy;
  return { storage, bad: state === "bad", copies };
}

const WINDOW_FIRST = 4;
const WINDOW_MIN = 2;
const WINDOW_MAX = 64;
/** What a message takes anyway, in ms. */
const WAY_MS = 50;

/**
 * How many pieces are under way: a few more than are worked on, so that nobody who could work on one is idle, and little waits.
 * Nobody knows how many writers there are; but a piece that waited long beside what it took says that all have something to do.
 */
export class PieceWindow {
  #size = WINDOW_FIRST;

  get size(): number {
    return this.#size;
  }

  /** An answer came: what the work took, and how long it was waited for in all, in ms. */
  answered(workMs: number, totalMs: number): void {
    const waitedMs = totalMs - workMs - WAY_MS;
    if (waitedMs <= workMs / 4) this.#size = Math.min(WINDOW_MAX, this.#size + 1);
    else if (waitedMs > workMs) this.#size = Math.max(WINDOW_MIN, this.#size - 1);
  }
}
