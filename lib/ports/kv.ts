// Kv: the metadata store. Drivers: lmdb (embedded), memory (tests, simulation), foundationdb (cluster).

/** One key and its value. Both belong to the caller: a driver never reuses them. */
export interface KvEntry {
  readonly key: Buffer;
  readonly value: Buffer;
}

/** A half-open range of keys in unsigned byte order, `start` ≤ key < `end`. */
export interface KvRange {
  readonly start: Buffer;
  readonly end: Buffer;
  /** At most so many entries; always set, so that no read is unbounded. */
  readonly limit: number;
  /** From the end backwards. */
  readonly reverse?: boolean;
}

/** Reads at one point in time. */
export interface KvReader {
  /** The value, or undefined. */
  get(key: Buffer): Promise<Buffer | undefined>;
  /** The values of many keys, in their order; read in one go where the driver can. */
  getMany(keys: readonly Buffer[]): Promise<(Buffer | undefined)[]>;
  /** The entries of a range, in key order (or its reverse). */
  range(range: KvRange): Promise<KvEntry[]>;
}

/** A serializable transaction: reads see its own writes; everything read, ranges too, is checked at commit. */
export interface KvTransaction extends KvReader {
  /** Reads that raise no conflict: at the transaction's point in time, without its own writes. */
  readonly snapshot: KvReader;
  /** Sets a key. Keys ≤ 1 KiB, values ≤ 90 kB. */
  set(key: Buffer, value: Buffer): void;
  /** Removes a key; one that is absent is fine. */
  clear(key: Buffer): void;
  /** Removes all keys with `start` ≤ key < `end`. */
  clearRange(start: Buffer, end: Buffer): void;
  /** Adds to a signed 64-bit little-endian counter (absent counts as 0) without reading it, so without conflicts. */
  add(key: Buffer, delta: bigint): void;
}

/** How a transaction is run. */
export interface TransactOptions {
  /** Resolve only when the commit survives a power failure. Default true; claims need not be. */
  readonly durable?: boolean;
  /** For error messages and traces. */
  readonly label?: string;
}

/**
 * An ordered, transactional key-value store.
 *
 * - `transact` runs `body`, commits, and runs it again on a conflict (bounded, with back-off; then AshlarError TryAgain).
 *   So `body` may run several times, may be interleaved with others, and must have no effect but through its transaction.
 *   An error thrown by `body` aborts: nothing is written, and the error passes through.
 * - Where a commit's result is unknown (the cluster), the driver runs `body` again: every transaction must change nothing
 *   when it lands twice.
 * - A body that writes nothing commits without taking any lock, at its reads' point in time.
 * - A full disk is AshlarError Io with `details.errno = "ENOSPC"`. Transactions labelled `free:` may then still use space that a
 *   driver keeps back. So are labelled those that free space, and the small ones that restores, removals and collecting cannot
 *   do without: of sessions, jobs and copies found bad.
 */
export interface Kv {
  /** Runs `body` over one consistent snapshot. Never outlives a batch: keep it short. */
  read<T>(body: (reader: KvReader) => Promise<T>): Promise<T>;
  transact<T>(body: (tx: KvTransaction) => Promise<T>, options?: TransactOptions): Promise<T>;
  /** Makes everything committed so far durable. */
  flush(): Promise<void>;
  close(): Promise<void>;
}
