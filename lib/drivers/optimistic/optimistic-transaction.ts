// A transaction over a snapshot: reads are recorded, writes are buffered, the driver checks and applies both at commit.
import { assert } from "#lib/core/assert.ts";
import type { KvEntry, KvRange, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import { addToCounter } from "./counter.ts";
import { ReadSet, type Snapshot } from "./read-set.ts";
import { assertKey, KEY_BYTES_MAX, type PendingWrite, WriteBuffer } from "./write-buffer.ts";

/** Awaited before every read, so that a simulation decides who goes next. */
export type Turn = () => Promise<void>;

/** Reads of a snapshot that are not recorded. */
export class SnapshotReader implements KvReader {
  readonly #snapshot: Snapshot;
  readonly #turn: Turn | undefined;
  #open = true;

  constructor(snapshot: Snapshot, turn?: Turn) {
    this.#snapshot = snapshot;
    this.#turn = turn;
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    await this.#begin();
    assertKey(key);
    return this.#snapshot.get(key);
  }

  async getMany(keys: readonly Buffer[]): Promise<(Buffer | undefined)[]> {
    await this.#begin();
    return keys.map((key) => {
      assertKey(key);
      return this.#snapshot.get(key);
    });
  }

  async range(range: KvRange): Promise<KvEntry[]> {
    await this.#begin();
    return isEmptyRange(range) ? [] : this.#snapshot.range(range);
  }

  /** Ends the reader: a read after it is a defect of the caller, who has let it outlive its body. */
  end(): void {
    this.#open = false;
  }

  async #begin(): Promise<void> {
    if (this.#turn !== undefined) await this.#turn();
    assert(this.#open, "a reader is not used after its body");
  }
}

/** The transaction that a body gets from a driver with optimistic concurrency. */
export class OptimisticTransaction implements KvTransaction {
  readonly snapshot: KvReader;
  readonly reads = new ReadSet();
  readonly writes = new WriteBuffer();
  readonly #base: Snapshot;
  readonly #unrecorded: SnapshotReader;
  readonly #turn: Turn | undefined;
  #open = true;

  constructor(base: Snapshot, turn?: Turn) {
    this.#base = base;
    this.#turn = turn;
    this.#unrecorded = new SnapshotReader(base, turn);
    this.snapshot = this.#unrecorded;
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    await this.#begin();
    return this.#get(key);
  }

  async getMany(keys: readonly Buffer[]): Promise<(Buffer | undefined)[]> {
    await this.#begin();
    return keys.map((key) => this.#get(key));
  }

  async range(range: KvRange): Promise<KvEntry[]> {
    await this.#begin();
    if (isEmptyRange(range)) return [];
    return this.writes.isEmpty ? this.#readRange(range) : this.#mergedRange(range);
  }

  set(key: Buffer, value: Buffer): void {
    this.#assertOpen();
    this.writes.set(key, value);
  }

  clear(key: Buffer): void {
    this.#assertOpen();
    this.writes.clear(key);
  }

  clearRange(start: Buffer, end: Buffer): void {
    this.#assertOpen();
    assertBounds(start, end);
    this.writes.clearRange(start, end);
  }

  add(key: Buffer, delta: bigint): void {
    this.#assertOpen();
    this.writes.add(key, delta);
  }

  /** Ends the transaction: nothing is read or written any more. */
  end(): void {
    this.#open = false;
    this.#unrecorded.end();
  }

  async #begin(): Promise<void> {
    if (this.#turn !== undefined) await this.#turn();
    this.#assertOpen();
  }

  #assertOpen(): void {
    assert(this.#open, "a transaction is not used after its body");
  }

  #get(key: Buffer): Buffer | undefined {
    assertKey(key);
    const own = this.writes.lookup(key);
    if (own !== undefined && own.delta === undefined) {
      return own.value === undefined ? undefined : Buffer.from(own.value);
    }
    const value = this.#base.get(key);
    this.reads.recordKey(key, value);
    return own === undefined ? value : addToCounter(value, own.delta);
  }

  #readRange(range: KvRange): KvEntry[] {
    const entries = this.#base.range(range);
    this.reads.recordRange(range, entries);
    return entries;
  }

  /** A range with own writes laid over it. */
  #mergedRange(range: KvRange): KvEntry[] {
    const own = this.writes.between(range.start, range.end);
    const parts = this.writes.uncleared(range.start, range.end);
    if (range.reverse === true) {
      own.reverse();
      parts.reverse();
    }
    // Each own write hides at most one entry of the snapshot, so this many are always enough.
    const limit = range.limit + own.length;
    const base: KvEntry[] = [];
    for (const part of parts) {
      if (base.length >= limit) break;
      base.push(...this.#readRange({ ...range, ...part, limit: limit - base.length }));
    }
    return mergeEntries(base, own, range);
  }
}

/** Lays `own` over `base`; both in the direction of the range. */
function mergeEntries(
  base: readonly KvEntry[],
  own: readonly PendingWrite[],
  range: KvRange,
): KvEntry[] {
  const sign = range.reverse === true ? -1 : 1;
  const merged: KvEntry[] = [];
  let [at, ownAt] = [0, 0];
  while (merged.length < range.limit) {
    const entry = base[at];
    const write = own[ownAt];
    if (entry === undefined && write === undefined) break;
    const order =
      entry === undefined ? 1 : write === undefined ? -1 : sign * entry.key.compare(write.key);
    if (order <= 0) at++;
    if (order >= 0) ownAt++;
    if (write === undefined || order < 0) {
      if (entry !== undefined) merged.push(entry);
      continue;
    }
    const value = valueAfter(write, order === 0 ? entry?.value : undefined);
    if (value !== undefined) merged.push({ key: Buffer.from(write.key), value });
  }
  return merged;
}

function valueAfter(write: PendingWrite, before: Buffer | undefined): Buffer | undefined {
  if (write.delta !== undefined) return addToCounter(before, write.delta);
  return write.value === undefined ? undefined : Buffer.from(write.value);
}

function isEmptyRange(range: KvRange): boolean {
  assertBounds(range.start, range.end);
  assert(Number.isSafeInteger(range.limit) && range.limit > 0, "a range has a limit above 0");
  return range.start.compare(range.end) >= 0;
}

function assertBounds(start: Buffer, end: Buffer): void {
  assert(
    start.length <= KEY_BYTES_MAX + 1 && end.length <= KEY_BYTES_MAX + 1,
    "a bound of a range is no longer than a key and one byte",
  );
}
