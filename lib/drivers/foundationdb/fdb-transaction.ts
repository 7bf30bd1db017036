// A transaction of FoundationDB as the Kv port has it: keys below a prefix, bounds checked, nothing used after its body.
import { assert } from "#lib/core/assert.ts";
import { assertKey, KEY_BYTES_MAX, VALUE_BYTES_MAX } from "#lib/drivers/optimistic/write-buffer.ts";
import type { KvEntry, KvRange, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import { isFdbError } from "./fdb-errors.ts";
import type { NativeTransaction } from "./fdb-library.ts";

/** fdb.options: MutationType.Add, and StreamingMode.Exact and WantAll. */
const ADD = 2;
const EXACT = 0;
const COUNTER_BYTES = 8;

/** Reads, all at the transaction's version. */
export class FdbReader implements KvReader {
  protected readonly native: NativeTransaction;
  protected readonly prefix: Buffer;
  readonly #isSnapshot: boolean;
  readonly #state: TransactionState;

  constructor(
    native: NativeTransaction,
    prefix: Buffer,
    isSnapshot: boolean,
    state: TransactionState,
  ) {
    this.native = native;
    this.prefix = prefix;
    this.#isSnapshot = isSnapshot;
    this.#state = state;
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    this.assertOpen();
    assertKey(key);
    return this.#noting(() => this.native.get(this.full(key), this.#isSnapshot));
  }

  async getMany(keys: readonly Buffer[]): Promise<(Buffer | undefined)[]> {
    this.assertOpen();
    for (const key of keys) assertKey(key);
    return this.#noting(() =>
      Promise.all(keys.map((key) => this.native.get(this.full(key), this.#isSnapshot))),
    );
  }

  async range(range: KvRange): Promise<KvEntry[]> {
    this.assertOpen();
    assertBounds(range.start, range.end);
    const { limit, reverse = false } = range;
    assert(Number.isSafeInteger(limit) && limit > 0, "a range has a limit above 0");
    if (range.start.compare(range.end) >= 0) return [];
    const entries: KvEntry[] = [];
    let [start, end] = [this.full(range.start), this.full(range.end)];
    for (;;) {
      const left = limit - entries.length;
      const page = await this.#noting(() => this.#page(start, end, left, reverse));
      for (const [key, value] of page.results) {
        entries.push({ key: key.subarray(this.prefix.length), value });
      }
      const last = page.results.at(-1);
      if (!page.more || last === undefined || entries.length >= limit) return entries;
      if (reverse) end = last[0];
      else start = Buffer.concat([last[0], Buffer.alloc(1)]);
    }
  }

  #page(start: Buffer, end: Buffer, limit: number, reverse: boolean) {
    // Key selectors: the first key that is at or after each bound.
    const args = [start, false, 1, end, false, 1, limit, 0, EXACT, 0] as const;
    return this.native.getRange(...args, this.#isSnapshot, reverse);
  }

  protected full(key: Buffer): Buffer {
    return Buffer.concat([this.prefix, key]);
  }

  protected assertOpen(): void {
    assert(this.#state.isOpen, "a transaction is not used after its body");
  }

  /** A read that failed is not recorded as a conflict: no body may go on as if it had found nothing. */
  async #noting<T>(read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      if (isFdbError(error)) this.#state.failure ??= error;
      throw error;
    }
  }
}

/** What the readers of one transaction share. */
export interface TransactionState {
  isOpen: boolean;
  hasWrites: boolean;
  /** The first read that failed. */
  failure: Error | undefined;
}

/** The transaction that a body gets. */
export class FdbTransaction extends FdbReader implements KvTransaction {
  readonly snapshot: KvReader;
  readonly state: TransactionState;

  constructor(native: NativeTransaction, prefix: Buffer) {
    const state: TransactionState = { isOpen: true, hasWrites: false, failure: undefined };
    super(native, prefix, false, state);
    this.state = state;
    this.snapshot = new FdbReader(native, prefix, true, state);
  }

  set(key: Buffer, value: Buffer): void {
    this.#beginWrite(key);
    assert(value.length <= VALUE_BYTES_MAX, "a value has at most 90,000 bytes");
    this.native.set(this.full(key), value);
  }

  clear(key: Buffer): void {
    this.#beginWrite(key);
    this.native.clear(this.full(key));
  }

  clearRange(start: Buffer, end: Buffer): void {
    this.assertOpen();
    assertBounds(start, end);
    if (start.compare(end) >= 0) return;
    this.state.hasWrites = true;
    this.native.clearRange(this.full(start), this.full(end));
  }

  add(key: Buffer, delta: bigint): void {
    this.#beginWrite(key);
    const operand = Buffer.allocUnsafe(COUNTER_BYTES);
    operand.writeBigInt64LE(BigInt.asIntN(64, delta));
    this.native.atomicOp(ADD, this.full(key), operand);
  }

  #beginWrite(key: Buffer): void {
    this.assertOpen();
    assertKey(key);
    this.state.hasWrites = true;
  }
}

function assertBounds(start: Buffer, end: Buffer): void {
  assert(
    start.length <= KEY_BYTES_MAX + 1 && end.length <= KEY_BYTES_MAX + 1,
    "a bound of a range is no longer than a key and one byte",
  );
}
