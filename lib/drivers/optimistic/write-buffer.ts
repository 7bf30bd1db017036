// What a transaction has written and not yet committed: an overlay over its snapshot.
import { assert } from "#lib/core/assert.ts";
import { addToCounter } from "./counter.ts";

/** Longest key, in bytes. A bound of a range may be one byte longer: the key after a longest key. */
export const KEY_BYTES_MAX = 1024;
/** Longest value, in bytes. */
export const VALUE_BYTES_MAX = 90_000;

/** One buffered write: a value, a removal (`value` undefined), or a sum to add to whatever is there. */
export type PendingWrite =
  | { readonly key: Buffer; readonly value: Buffer | undefined; readonly delta?: undefined }
  | { readonly key: Buffer; readonly value?: undefined; readonly delta: bigint };

/** Where committed writes go. Reads see what was written before. */
export interface WriteTarget {
  get(key: Buffer): Buffer | undefined;
  /** The first `limit` keys with `start` ≤ key < `end`. */
  keys(start: Buffer, end: Buffer, limit: number): Buffer[];
  put(key: Buffer, value: Buffer): void;
  /** Removes a key that may be absent. */
  remove(key: Buffer): void;
}

/** A span of cleared keys, as texts: `start` ≤ key < `end`. */
interface Span {
  readonly start: string;
  readonly end: string;
}

/** How many keys one step of clearing a range holds in memory. */
const CLEAR_STEP = 1000;

/**
 * A key as a string with one character per byte: usable in maps, and strings compare as the bytes do.
 * @param key any bytes
 */
export function keyText(key: Buffer): string {
  return key.toString("latin1");
}

/** The inverse of {@link keyText}. */
export function keyOfText(text: string): Buffer {
  return Buffer.from(text, "latin1");
}

/** Throws unless `key` is one that every driver can store. */
export function assertKey(key: Buffer): void {
  assert(key.length > 0 && key.length <= KEY_BYTES_MAX, "a key has 1 to 1024 bytes");
}

/** The writes of one transaction, in effect order: what is written last counts. */
export class WriteBuffer {
  /** By key text. None lies under a span of `#cleared` unless it was written after the clearing. */
  readonly #pending = new Map<string, PendingWrite>();
  /** Disjoint, in key order. */
  #cleared: Span[] = [];

  /** True when nothing was written. */
  get isEmpty(): boolean {
    return this.#pending.size === 0 && this.#cleared.length === 0;
  }

  /** About how many pages of `pageBytes` it takes: one for each key, and what its value fills. */
  pageCount(pageBytes: number): number {
    let pages = this.#pending.size + this.#cleared.length;
    for (const { value } of this.#pending.values()) {
      if (value !== undefined) pages += Math.floor(value.length / pageBytes);
    }
    return pages;
  }

  set(key: Buffer, value: Buffer): void {
    assertKey(key);
    assert(value.length <= VALUE_BYTES_MAX, "a value has at most 90,000 bytes");
    // Copied: the caller may use both buffers again before the commit.
    this.#pending.set(keyText(key), { key: Buffer.from(key), value: Buffer.from(value) });
  }

  clear(key: Buffer): void {
    assertKey(key);
    const text = keyText(key);
    if (this.#isCleared(text)) this.#pending.delete(text);
    else this.#pending.set(text, { key: Buffer.from(key), value: undefined });
  }

  clearRange(start: Buffer, end: Buffer): void {
    let [low, high] = [keyText(start), keyText(end)];
    if (low >= high) return;
    for (const text of this.#pending.keys()) {
      if (text >= low && text < high) this.#pending.delete(text);
    }
    const apart: Span[] = [];
    for (const span of this.#cleared) {
      if (span.end < low || span.start > high) {
        apart.push(span);
        continue;
      }
      if (span.start < low) low = span.start;
      if (span.end > high) high = span.end;
    }
    apart.push({ start: low, end: high });
    this.#cleared = apart.sort((a, b) => (a.start < b.start ? -1 : 1));
  }

  add(key: Buffer, delta: bigint): void {
    assertKey(key);
    const text = keyText(key);
    const before = this.#pending.get(text);
    const copy = Buffer.from(key);
    if (before?.delta !== undefined) {
      this.#pending.set(text, { key: copy, delta: BigInt.asIntN(64, before.delta + delta) });
    } else if (before !== undefined || this.#isCleared(text)) {
      this.#pending.set(text, { key: copy, value: addToCounter(before?.value, delta) });
    } else {
      this.#pending.set(text, { key: copy, delta: BigInt.asIntN(64, delta) });
    }
  }

  /** What was written to `key`: undefined when nothing was, so that the snapshot decides. */
  lookup(key: Buffer): PendingWrite | undefined {
    if (this.isEmpty) return undefined;
    const text = keyText(key);
    const pending = this.#pending.get(text);
    if (pending !== undefined || !this.#isCleared(text)) return pending;
    return { key, value: undefined };
  }

  /** The writes with `start` ≤ key < `end`, in key order; cleared ranges are not among them. */
  between(start: Buffer, end: Buffer): PendingWrite[] {
    const [low, high] = [keyText(start), keyText(end)];
    const found: [string, PendingWrite][] = [];
    for (const entry of this.#pending) {
      if (entry[0] >= low && entry[0] < high) found.push(entry);
    }
    return found.sort((a, b) => (a[0] < b[0] ? -1 : 1)).map(([, write]) => write);
  }

  /** The parts of a range that were not cleared, in key order. */
  uncleared(start: Buffer, end: Buffer): { start: Buffer; end: Buffer }[] {
    const parts: { start: Buffer; end: Buffer }[] = [];
    const high = keyText(end);
    let low = keyText(start);
    for (const span of this.#cleared) {
      if (span.end <= low) continue;
      if (span.start >= high) break;
      if (span.start > low) parts.push({ start: keyOfText(low), end: keyOfText(span.start) });
      low = span.end;
    }
    if (low < high) parts.push({ start: keyOfText(low), end });
    return parts;
  }

  /** Makes all writes in `target`. */
  applyTo(target: WriteTarget): void {
    for (const span of this.#cleared) clearKeys(target, keyOfText(span.start), keyOfText(span.end));
    for (const write of this.#pending.values()) {
      if (write.delta !== undefined) {
        target.put(write.key, addToCounter(target.get(write.key), write.delta));
      } else if (write.value === undefined) {
        target.remove(write.key);
      } else {
        target.put(write.key, write.value);
      }
    }
  }

  #isCleared(text: string): boolean {
    return this.#cleared.some((span) => text >= span.start && text < span.end);
  }
}

function clearKeys(target: WriteTarget, start: Buffer, end: Buffer): void {
  for (;;) {
    const keys = target.keys(start, end, CLEAR_STEP);
    for (const key of keys) target.remove(key);
    if (keys.length < CLEAR_STEP) return;
  }
}
