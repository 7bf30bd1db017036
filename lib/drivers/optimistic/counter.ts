// The encoding of Kv counters: signed 64-bit little-endian, as FoundationDB's atomic add has it.
import { assert } from "#lib/core/assert.ts";

const COUNTER_BYTES = 8;

/**
 * The counter `value` (absent counts as 0) plus `delta`, encoded.
 * It wraps around at 64 bits, as FoundationDB does.
 */
export function addToCounter(value: Buffer | undefined, delta: bigint): Buffer {
  assert(value === undefined || value.length === COUNTER_BYTES, "a counter has 8 bytes");
  const sum = Buffer.allocUnsafe(COUNTER_BYTES);
  sum.writeBigInt64LE(BigInt.asIntN(64, (value?.readBigInt64LE(0) ?? 0n) + delta));
  return sum;
}
