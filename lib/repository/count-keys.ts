// Counting keys of the metadata, in steps that each are a transaction of their own.
import type { Kv } from "#lib/ports/kv.ts";
import { keyAfter, type KeyRange } from "./keyspace.ts";

/** A count that stops somewhere. */
export interface BoundedCount {
  readonly count: number;
  /** There are more. */
  readonly more: boolean;
}

/** Counting reads every key: beyond this, the answer is "many". */
export const COUNT_MAX = 1_000_000;
const STEP = 2000;

/** How many keys a range has, up to `most` and the rest of a step. Others may change it meanwhile. */
export async function countKeys(
  kv: Kv,
  { start, end }: KeyRange,
  most = COUNT_MAX,
): Promise<BoundedCount> {
  let count = 0;
  for (let from = start; ;) {
    const at = from;
    const entries = await kv.read((reader) => reader.range({ start: at, end, limit: STEP }));
    count += entries.length;
    const last = entries.at(-1);
    if (last === undefined || entries.length < STEP) return { count, more: false };
    if (count >= most) return { count, more: true };
    from = keyAfter(last.key);
  }
}
