// What a transaction has read from its snapshot, kept to be checked at commit.
import type { KvEntry, KvRange } from "#lib/ports/kv.ts";

/** The store at one point in time, read synchronously. What it returns belongs to the caller. */
export interface Snapshot {
  get(key: Buffer): Buffer | undefined;
  range(range: KvRange): KvEntry[];
}

/**
 * The read set. It is checked by value: a transaction whose reads would all give the same answers now could just as
 * well have run now, so committing it now is serializable. Ranges are read again as a whole: phantoms show.
 */
export class ReadSet {
  // Two flat lists instead of a map: a batch of claims reads 256 keys once each, and this is the hot path.
  readonly #keys: Buffer[] = [];
  readonly #values: (Buffer | undefined)[] = [];
  readonly #ranges: { readonly range: KvRange; readonly entries: readonly KvEntry[] }[] = [];

  /** Records a point read. Copies are kept: the caller owns what it passed and what it gets. */
  recordKey(key: Buffer, value: Buffer | undefined): void {
    this.#keys.push(Buffer.from(key));
    this.#values.push(value === undefined ? undefined : Buffer.from(value));
  }

  /** Records a range read with what it found. */
  recordRange(range: KvRange, entries: readonly KvEntry[]): void {
    this.#ranges.push({
      range: { ...range, start: Buffer.from(range.start), end: Buffer.from(range.end) },
      entries: entries.map(({ key, value }) => ({
        key: Buffer.from(key),
        value: Buffer.from(value),
      })),
    });
  }

  /** Whether every read would give the same answer in `current`. */
  holdsIn(current: Snapshot): boolean {
    for (const [index, key] of this.#keys.entries()) {
      if (!sameValue(current.get(key), this.#values[index])) return false;
    }
    return this.#ranges.every(({ range, entries }) => sameEntries(current.range(range), entries));
  }
}

function sameValue(now: Buffer | undefined, before: Buffer | undefined): boolean {
  if (now === undefined || before === undefined) return now === before;
  return now.equals(before);
}

function sameEntries(now: readonly KvEntry[], before: readonly KvEntry[]): boolean {
  if (now.length !== before.length) return false;
  return now.every((entry, index) => {
    const other = before[index];
    return other !== undefined && entry.key.equals(other.key) && entry.value.equals(other.value);
  });
}
