// The Random of a real process: the kernel's generator.
import { randomBytes, randomInt } from "node:crypto";
import type { Random } from "#lib/ports/random.ts";

/** Identities are asked for one by one, thousands in a transaction, and each call of the generator costs as much as writing a record. */
const POOLED_BYTES_MAX = 16;
const POOL_BYTES = 4096;

/** Opens the system's source of randomness. */
export function systemRandom(): Random {
  let pool = Buffer.alloc(0);
  let used = 0;
  return {
    // Keys are longer, and never lie in the pool.
    bytes: (count) => {
      if (count > POOLED_BYTES_MAX) return randomBytes(count);
      if (used + count > pool.length) {
        pool = randomBytes(POOL_BYTES);
        used = 0;
      }
      used += count;
      return pool.subarray(used - count, used);
    },
    below: (limit) => randomInt(limit),
  };
}
