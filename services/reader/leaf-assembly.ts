// The ids of one leaf while its blocks are brought, in any order.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId } from "#lib/core/ids.ts";
import type { BroughtBlock } from "./block-pipeline.ts";

/** The details mark of an error that says that a hint was wrong. */
export const WRONG_HINT = "wrongHint";

/** The ids of one leaf as they come in. */
export class LeafAssembly {
  readonly blocks: (BlockId | undefined)[];
  readonly #releases: (() => void)[] = [];
  #pending = 0;
  #read = 0;
  #sealed = false;

  constructor(keep: (BlockId | undefined)[]) {
    this.blocks = keep;
  }

  /** One more span is under way. */
  begin(): void {
    this.#pending += 1;
    this.#read += 1;
  }

  /** Nothing was read into it. */
  isEmpty(): boolean {
    return this.#read === 0;
  }

  /** A span has come in. */
  set(
    position: number,
    brought: readonly BroughtBlock[],
    check: ((id: BlockId | undefined) => void) | undefined,
  ): void {
    for (const [at, block] of brought.entries()) {
      check?.(block.id);
      this.blocks[position + at] = block.id;
      if (block.release !== undefined) this.#releases.push(block.release);
    }
    this.#pending -= 1;
  }

  /** True when all is there; false while more may begin. */
  done(): boolean {
    return this.#sealed && this.#pending === 0;
  }

  /** Nothing more begins; true when all is there already. */
  sealAndDone(): boolean {
    this.#sealed = true;
    return this.#pending === 0;
  }

  /** The leaf is committed or known: the epochs of its blocks' claims may go. */
  release(): void {
    for (const release of this.#releases) release();
  }
}

/** Compares a sampled block with what the base has there; Damaged with the mark {@link WRONG_HINT} when it differs. */
export function checkSample(
  block: number,
  expected: BlockId | undefined,
): (id: BlockId | undefined) => void {
  return (id) => {
    if (id === expected) return;
    throw new AshlarError(
      ErrorCode.Damaged,
      `block ${block} has changed, although the hints say that it has not`,
      {
        remedy: "distrust the source of the hints; a backup without hints reads everything",
        details: { [WRONG_HINT]: true, block },
      },
    );
  };
}
