// Which blocks of a device have to be read where hints say what has changed.
import { blocksToRead, parseHints, sampleUnchanged } from "#lib/core/hints.ts";
import type { BlockSource } from "#lib/ports/block-device.ts";
import { blockCountOf } from "#lib/repository/tree.ts";
import type { Requests } from "#proto/messages.ts";
import { onlyAllocated, type PlannedRange } from "./backup-plan.ts";

/** With a base: what changed. Without: what is allocated. What the source has as holes is not read in either case. */
export function hintedRanges(
  source: BlockSource,
  hintsText: string,
  request: Requests["backup"]["request"],
  sizeBytes: number,
): AsyncIterable<PlannedRange> {
  const { blockBytes, base, sampleRate, sampleRound } = request;
  const hints = parseHints(hintsText, sizeBytes);
  const blockCount = blockCountOf(sizeBytes, blockBytes);
  // From the first block on that the base has in another length, or not at all, everything is read.
  const sameBlocks =
    base === null || base.sizeBytes === sizeBytes
      ? blockCount
      : Math.floor(Math.min(base.sizeBytes, sizeBytes) / blockBytes);
  function* ranges(): Generator<PlannedRange> {
    for (const { first, end, state } of blocksToRead(hints, sizeBytes, blockBytes)) {
      if (first < sameBlocks || state === "zero") {
        const to = state === "zero" ? end : Math.min(end, sameBlocks);
        if (state !== "unchanged") yield { from: first, to, state };
        else {
          for (const at of sampleUnchanged(blockCount, sampleRound, sampleRate, first, to)) {
            yield { from: at, to: at + 1, state: "sample" };
          }
        }
      }
      if (end > sameBlocks && state !== "zero") {
        yield { from: Math.max(first, sameBlocks), to: end, state: "read" };
      }
    }
  }
  return onlyAllocated(source, sizeBytes, blockBytes, ranges());
}
