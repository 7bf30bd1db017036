// The Random of a real process: the kernel's generator.
import { randomBytes, randomInt } from "node:crypto";
import type { Random } from "#lib/ports/random.ts";

/** Opens the system's source of randomness. */
export function systemRandom(): Random {
  return {
    bytes: (count) => randomBytes(count),
    below: (limit) => randomInt(limit),
  };
}
