// The lmdb module behind a small synchronous interface: snapshots, and write transactions that do not flush.
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { open, type Transaction } from "lmdb";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, fromSystemError } from "#lib/core/errors.ts";
import type { Snapshot } from "#lib/drivers/optimistic/read-set.ts";
import type { WriteTarget } from "#lib/drivers/optimistic/write-buffer.ts";
import type { KvEntry, KvRange } from "#lib/ports/kv.ts";
import { fromLmdbError, isSpurious } from "./lmdb-errors.ts";
import { chooseMapBytes, LOCK_FILE, prepareFiles, READERS_MAX } from "./lmdb-files.ts";

/** Page counts of one tree. */
export interface TreePages {
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
}

/** The native environment, which the module's types leave out. */
interface NativeEnvironment {
  info(): { readonly lastPageNumber: number };
  stat(): TreePages & { readonly pageSize: number };
  freeStat(): TreePages;
}

interface RangeOptions {
  readonly start: Buffer;
  readonly end: Buffer;
  readonly limit: number;
  readonly reverse?: boolean;
  readonly exclusiveStart?: boolean;
  readonly inclusiveEnd?: boolean;
  readonly transaction?: Transaction;
}

/** The parts of the module that are used, with the arguments that its types leave out. */
interface Database {
  readonly env: NativeEnvironment;
  /** Into a buffer that the next call overwrites; only its first `length` bytes count. */
  getBinaryFast(key: Buffer, options?: { transaction: Transaction }): Buffer | undefined;
  getRange(options: RangeOptions): Iterable<KvEntry>;
  getKeys(options: RangeOptions): Iterable<Buffer>;
  put(key: Buffer, value: Buffer): unknown;
  remove(key: Buffer): unknown;
  transactionSync<T>(action: () => T, flags: number): T;
  getWriteTxnId(): number;
  useReadTransaction(): Transaction;
  resetReadTxn(): void;
  readerCheck(): number;
  close(): Promise<void>;
}

/** Where in LMDB's lock file the number of the last transaction is. */
const LOCK_TXN_AT = 8;
/** Commit before returning, without waiting for the disk: see lmdb-durability.ts. */
const COMMIT_FLAGS = 0x1_00_02;
/** How often a transaction is tried that fails spuriously. */
const SPURIOUS_TRIES = 4;
/**
 * The folders of the stores that this process has open, by device and inode. A second opening would share LMDB's
 * environment with the first, and closing one of the two would drop the locks of both.
 */
const openStores = new Set<string>();

/** Options of {@link LmdbStore.open}. */
export interface LmdbStoreOptions {
  /** The folder. */
  readonly path: string;
  readonly readOnly: boolean;
}

/** A read transaction. It holds pages back from reuse until it ends. */
export interface StoreSnapshot extends Snapshot {
  /** The last transaction that it certainly sees; it may see a later one. */
  readonly txnId: number;
  end(): void;
}

/** One open LMDB environment with one tree of binary keys and values. A process opens a store once. */
export class LmdbStore {
  readonly path: string;
  readonly #identity: string;
  readonly #database: Database;
  /** For reading LMDB's lock file; undefined where there is none, as nobody can write. */
  readonly #lockFd: number | undefined;
  readonly #number = Buffer.alloc(8);

  private constructor(path: string, database: Database, identity: string) {
    this.path = path;
    this.#identity = identity;
    this.#database = database;
    this.#lockFd = openIfThere(join(path, LOCK_FILE));
  }

  /** Opens or creates it, and frees the reader slots of processes that died. While the door is shut. */
  static open(options: LmdbStoreOptions): LmdbStore {
    const { path } = options;
    const { dev, ino } = statSync(path);
    const identity = `${dev}:${ino}`;
    assert(!openStores.has(identity), "a process has a store open once");
    prepareFiles(path, options.readOnly);
    try {
      const store = new LmdbStore(path, openDatabase(options), identity);
      openStores.add(identity);
      return store;
    } catch (error) {
      throw fromLmdbError(error, path);
    }
  }

  /**
   * The last committed transaction, of any process: what a snapshot taken now sees. The module tells another number,
   * that of the newest meta page, which is written first; a process that is killed in between leaves the two apart.
   */
  get lastTxnId(): number {
    if (this.#lockFd === undefined) return 0;
    readSync(this.#lockFd, this.#number, 0, 8, LOCK_TXN_AT);
    return Number(this.#number.readBigUInt64LE(0));
  }

  /** The transaction that {@link write} is running. */
  get writeTxnId(): number {
    return this.#database.getWriteTxnId();
  }

  /** Bytes of the file that hold pages, free ones too. */
  get fileBytes(): number {
    const { env } = this.#database;
    return (env.info().lastPageNumber + 1) * env.stat().pageSize;
  }

  /** Bytes of the pages in use. Only within {@link write}. */
  get usedBytes(): number {
    const { env } = this.#database;
    const data = env.stat();
    return (2 + pagesOf(data) + pagesOf(env.freeStat())) * data.pageSize;
  }

  /** Begins a read transaction at the newest commit of any process. */
  snapshot(): StoreSnapshot {
    const database = this.#database;
    const txnId = this.lastTxnId;
    let transaction: Transaction;
    try {
      // The module shares one read transaction within a turn of the event loop. Resetting before makes sure that this
      // one is not older than another process's commit; resetting after keeps it from being renewed under us.
      database.resetReadTxn();
      transaction = database.useReadTransaction();
      database.resetReadTxn();
    } catch (error) {
      throw fromLmdbError(error, this.path);
    }
    const options = { transaction };
    return {
      txnId,
      get: (key) => this.#translated(() => copyOf(database.getBinaryFast(key, options))),
      range: (range) =>
        this.#translated(() => [...database.getRange({ ...rangeOptions(range), transaction })]),
      end: () => transaction.done(),
    };
  }

  /**
   * Runs `action` in a write transaction under LMDB's lock, which all processes share; commits when it returns, aborts
   * when it throws. It may run again, so it has no other effect. One that writes nothing commits nothing.
   */
  write<T>(action: (access: WriteTarget & Snapshot) => T): T {
    for (let tries = 1; ; tries++) {
      try {
        return this.#database.transactionSync(() => action(this.#access), COMMIT_FLAGS);
      } catch (error) {
        if (tries >= SPURIOUS_TRIES || !isSpurious(error)) throw fromLmdbError(error, this.path);
        this.clearDeadReaders();
      }
    }
  }

  /** Frees the reader slots of processes that died: what they saw would be held back for ever. */
  clearDeadReaders(): void {
    this.#database.readerCheck();
  }

  /** Closes it. No snapshot is open any more. While the door is shut. */
  async close(): Promise<void> {
    await this.#database.close();
    // Not before: closing any descriptor of a file drops all locks that LMDB has on it in this process.
    if (this.#lockFd !== undefined) closeSync(this.#lockFd);
    openStores.delete(this.#identity);
  }

  /** Reads and writes of the write transaction that is running. */
  readonly #access: WriteTarget & Snapshot = {
    get: (key) => copyOf(this.#database.getBinaryFast(key)),
    range: (range) => [...this.#database.getRange(rangeOptions(range))],
    keys: (start, end, limit) => [...this.#database.getKeys({ start, end, limit })],
    put: (key, value) => {
      const outcome = this.#database.put(key, value) as { readonly result?: unknown };
      assert(outcome.result === true, "a value is put, or an error is thrown");
    },
    remove: (key) => {
      this.#database.remove(key);
    },
  };

  #translated<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      throw error instanceof AshlarError ? error : fromLmdbError(error, this.path);
    }
  }
}

function openDatabase(options: LmdbStoreOptions): Database {
  const settings = {
    path: options.path,
    noSubdir: false,
    readOnly: options.readOnly,
    encoding: "binary" as const,
    keyEncoding: "binary" as const,
    maxDbs: 1,
    maxReaders: READERS_MAX,
    mapSize: chooseMapBytes(),
    permissionsMode: 0o600,
    overlappingSync: false,
  };
  // Opening clears the reader slots of dead processes.
  return open<Buffer, Buffer>(settings) as unknown as Database;
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw fromSystemError(error, `opening ${path}`);
  }
}

function copyOf(bytes: Buffer | undefined): Buffer | undefined {
  if (bytes === undefined) return undefined;
  // Twice as fast as the module's own getBinary.
  const { length } = bytes;
  const copy = Buffer.allocUnsafe(length);
  bytes.copy(copy, 0, 0, length);
  return copy;
}

/** The module walks a reversed range from `start` down to `end`, and takes the first bound in, not the second. */
function rangeOptions(range: KvRange): RangeOptions {
  const { start, end, limit } = range;
  if (range.reverse !== true) return { start, end, limit };
  return { start: end, end: start, limit, reverse: true, exclusiveStart: true, inclusiveEnd: true };
}

function pagesOf(tree: TreePages): number {
  return tree.treeBranchPageCount + tree.treeLeafPageCount + tree.overflowPages;
}
