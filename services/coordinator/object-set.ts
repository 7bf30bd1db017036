// The objects that a storage listed, as a set that takes 8 bytes for each (16 while it is sorted): a listing comes in any
// order, and millions of names do not fit as text.
import { assert } from "#lib/core/assert.ts";

const FIRST_CAPACITY = 4096;

/**
 * Objects of one folder by id and generation. Of both, 64 bits are kept: generations are random, so two objects share them
 * once in 2^64 / n tries, and then a missing object would be found by the next scrub instead.
 */
export class ObjectSet {
  #prints = new BigUint64Array(FIRST_CAPACITY);
  #size = 0;
  #isSorted = false;

  get size(): number {
    return this.#size;
  }

  /** Adds an object; both in hex. */
  add(id: string, generation: string): void {
    assert(!this.#isSorted, "everything is added before anything is looked up");
    if (this.#size === this.#prints.length) {
      const grown = new BigUint64Array(this.#size * 2);
      grown.set(this.#prints);
      this.#prints = grown;
    }
    this.#prints[this.#size] = printOf(id, generation);
    this.#size += 1;
  }

  /** Whether it was added. */
  has(id: string, generation: string): boolean {
    this.#sort();
    const wanted = printOf(id, generation);
    let [low, high] = [0, this.#size];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#prints[middle] as bigint) < wanted) low = middle + 1;
      else high = middle;
    }
    return low < this.#size && this.#prints[low] === wanted;
  }

  #sort(): void {
    if (this.#isSorted) return;
    this.#prints.subarray(0, this.#size).sort();
    this.#isSorted = true;
  }
}

const DIGITS = 16;

function printOf(id: string, generation: string): bigint {
  return BigInt(`0x${id.slice(0, DIGITS)}`) ^ BigInt(`0x${generation}`);
}
