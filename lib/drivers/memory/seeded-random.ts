// The Random of tests and simulation: the same seed gives the same numbers, on every machine.
// The generator is xoshiro128** (Blackman and Vigna), its state filled from the seed by a mixing function.
import { assert } from "#lib/core/assert.ts";
import type { Random } from "#lib/ports/random.ts";

/** A Random that can be repeated. */
export interface SeededRandom extends Random {
  /** True with this probability. */
  chance(probability: number): boolean;
  /** One element of a list that is not empty. */
  pick<T>(list: readonly T[]): T;
  /** The elements in another order. */
  shuffle<T>(list: readonly T[]): T[];
  /** A generator of its own, so that what one part draws does not change what another part gets. */
  fork(label: string): SeededRandom;
}

const TWO_32 = 2 ** 32;

/** Makes a generator; seeds that differ give unrelated numbers. */
export function seededRandom(seed: number | string): SeededRandom {
  return new Xoshiro(String(seed));
}

class Xoshiro implements SeededRandom {
  readonly #seed: string;
  readonly #state: Uint32Array;

  constructor(seed: string) {
    this.#seed = seed;
    this.#state = stateOf(seed);
  }

  bytes(count: number): Buffer {
    const out = Buffer.alloc(count);
    for (let at = 0; at < count; at += 4) {
      const word = this.#next();
      for (let index = at; index < Math.min(at + 4, count); index++)
        out[index] = word >>> (8 * (index - at));
    }
    return out;
  }

  below(limit: number): number {
    assert(Number.isSafeInteger(limit) && limit > 0, "the limit is a whole number above 0");
    // 53 bits; what lies above the last whole multiple of the limit is drawn again, so that all results are as likely.
    const bound = Number.MAX_SAFE_INTEGER - (Number.MAX_SAFE_INTEGER % limit);
    for (;;) {
      const value = (this.#next() >>> 11) * TWO_32 + this.#next();
      if (value < bound) return value % limit;
    }
  }

  chance(probability: number): boolean {
    return this.#next() < probability * TWO_32;
  }

  pick<T>(list: readonly T[]): T {
    assert(list.length > 0, "there is something to pick from");
    return list[this.below(list.length)] as T;
  }

  shuffle<T>(list: readonly T[]): T[] {
    const out = [...list];
    for (let last = out.length - 1; last > 0; last--) {
      const other = this.below(last + 1);
      [out[last], out[other]] = [out[other] as T, out[last] as T];
    }
    return out;
  }

  fork(label: string): SeededRandom {
    return new Xoshiro(`${this.#seed}/${label}`);
  }

  #next(): number {
    const state = this.#state;
    const [a = 0, b = 0, c = 0, d = 0] = state;
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    state[0] = a ^ d ^ b;
    state[1] = b ^ c ^ a;
    state[2] = c ^ a ^ (b << 9);
    state[3] = rotate(d ^ b, 11);
    return result;
  }
}

function rotate(value: number, bits: number): number {
  return ((value << bits) | (value >>> (32 - bits))) >>> 0;
}

/** Four words out of a text: FNV-1a, then a finalizer that spreads every bit over the word. */
function stateOf(seed: string): Uint32Array {
  let hash = 0x811c9dc5;
  for (let index = 0; index < seed.length; index++)
    hash = Math.imul(hash ^ seed.charCodeAt(index), 0x01000193);
  const state = new Uint32Array(4);
  for (let index = 0; index < state.length; index++) {
    hash = (hash + 0x9e3779b9) | 0;
    let word = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
    state[index] = word ^ (word >>> 16);
  }
  return state;
}
