// The states that were met, by a 64-bit hash of their canonical text, and how each was first reached.

const GROWTH_LOAD = 0.6;

/** A set of states in flat arrays; states are numbered in the order in which they are added. */
export class VisitedStates {
  /** Two words a slot: the hash, 0 and 0 where the slot is free. */
  #slots = new Uint32Array(2 << 16);
  #parents = new Int32Array(1 << 15);
  #steps = new Int32Array(1 << 15);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Adds a state that was reached from `parent` by its step number `step`; its number, or -1 when it was there already. */
  add(text: string, parent: number, step: number): number {
    const [low, high] = hashOf(text);
    const at = this.#find(low, high);
    if (at === -1) return -1;
    this.#slots[at] = low;
    this.#slots[at + 1] = high;
    const index = this.#size;
    if (index === this.#parents.length) this.#growOrigins();
    this.#parents[index] = parent;
    this.#steps[index] = step;
    this.#size += 1;
    if (this.#size > (this.#slots.length / 2) * GROWTH_LOAD) this.#growSlots();
    return index;
  }

  /** The numbers of the steps that lead from the first state to this one. */
  path(index: number): number[] {
    const steps: number[] = [];
    for (let at = index; at > 0; at = this.#parents[at] ?? 0) steps.push(this.#steps[at] ?? 0);
    return steps.toReversed();
  }

  /** The slot for this hash; -1 when it is taken by it. */
  #find(low: number, high: number): number {
    const mask = this.#slots.length / 2 - 1;
    for (let slot = low & mask; ; slot = (slot + 1) & mask) {
      const at = slot * 2;
      if (this.#slots[at] === 0 && this.#slots[at + 1] === 0) return at;
      if (this.#slots[at] === low && this.#slots[at + 1] === high) return -1;
    }
  }

  #growSlots(): void {
    const old = this.#slots;
    this.#slots = new Uint32Array(old.length * 2);
    for (let at = 0; at < old.length; at += 2) {
      const [low = 0, high = 0] = [old[at], old[at + 1]];
      if (low === 0 && high === 0) continue;
      const to = this.#find(low, high);
      this.#slots[to] = low;
      this.#slots[to + 1] = high;
    }
  }

  #growOrigins(): void {
    const grow = (old: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> => {
      const out = new Int32Array(old.length * 2);
      out.set(old);
      return out;
    };
    this.#parents = grow(this.#parents);
    this.#steps = grow(this.#steps);
  }
}

/** Two independent multiplicative hashes, mixed at the end as in MurmurHash3; never both 0. */
function hashOf(text: string): [number, number] {
  let low = 0x9e3779b9;
  let high = 0x85ebca6b;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    low = Math.imul(low ^ code, 0x01000193);
    high = Math.imul(high ^ code, 0x5bd1e995);
    high ^= high >>> 15;
  }
  low = Math.imul(low ^ (high >>> 13), 0xc2b2ae35);
  high = Math.imul(high ^ (low >>> 16), 0x27d4eb2f);
  low ^= high >>> 16;
  high ^= low >>> 13;
  return [low >>> 0, (high | 1) >>> 0];
}
