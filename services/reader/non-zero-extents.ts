// Where a target holds anything but zeros: what a differential restore has to make zero.
import type { BlockTarget, Extent } from "#lib/ports/block-device.ts";
import type { SlotPool } from "#lib/ports/compute.ts";

/** How a target is looked at. */
export interface NonZeroOptions {
  /** Slots to read into, one at a time; at least as large as a piece. */
  readonly pool: SlotPool;
  /** A piece with one byte that is not zero counts as a whole. */
  readonly pieceBytes: number;
  readonly signal: AbortSignal;
}

/** What a look at the target showed. */
export interface Checked {
  /** Up to here everything was looked at. */
  readonly end: number;
  /** What is not zero before that, behind the last look: in pieces, ascending, neighbours merged. */
  readonly nonZero: readonly Extent[];
}

/**
 * Looks at `extent` of the target in order, a slot at a time, up to its end. What the target knows to be holes is not read.
 * What one look found may be overwritten before the next one.
 */
export async function* nonZeroExtents(
  target: BlockTarget,
  extent: Extent,
  options: NonZeroOptions,
): AsyncGenerator<Checked> {
  const { pool, pieceBytes, signal } = options;
  const readBytes = Math.floor(pool.slotBytes / pieceBytes) * pieceBytes;
  const zeros = Buffer.alloc(Math.min(pieceBytes, extent.length));
  for await (const { offset, length } of target.extents(extent)) {
    for (let at = offset; at < offset + length; at += readBytes) {
      signal.throwIfAborted();
      const end = Math.min(at + readBytes, offset + length);
      const slot = await pool.acquire(signal);
      let nonZero: Extent[];
      try {
        const bytes = slot.bytes.subarray(0, end - at);
        await target.read(bytes, at);
        nonZero = differing(bytes, at, zeros);
      } finally {
        slot.release();
      }
      yield { end, nonZero };
    }
  }
  yield { end: extent.offset + extent.length, nonZero: [] };
}

function differing(bytes: Uint8Array, start: number, zeros: Buffer): Extent[] {
  const out: Extent[] = [];
  for (let at = 0; at < bytes.length; at += zeros.length) {
    const piece = bytes.subarray(at, at + zeros.length);
    if (Buffer.compare(piece, zeros.subarray(0, piece.length)) === 0) continue;
    const offset = start + at;
    const last = out.at(-1);
    if (last !== undefined && last.offset + last.length === offset) {
      out[out.length - 1] = { offset: last.offset, length: last.length + piece.length };
    } else out.push({ offset, length: piece.length });
  }
  return out;
}
