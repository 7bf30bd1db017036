// When commits reach the disk, and what is left of them after a power failure.
//
// LMDB flushes within each commit, under its write lock: tens of milliseconds for which this process stands still and
// the others wait. The module's own remedy (`overlappingSync`) flushes after the lock is given up, but still within a
// synchronous commit, and a process that opens the store takes what others have not flushed yet for flushed. So commits
// are made here without any flushing (NOSYNC), which alone would be wrong: the disk may get a meta page before the pages
// that it points to. Three rules make it right.
//
// 1. *Flush.* A flush reads the newest root, then flushes the data file (fdatasync, on a thread), then records that root
//    in the file `flushed`, and flushes that. One at a time per process; every durable commit made before it began
//    resolves with it.
// 2. *Pin.* A process commits only while it holds a read transaction that is no newer than a root that it has flushed.
//    LMDB does not reuse the pages that a reader sees. So no page of the recorded root, whoever recorded it, is ever
//    overwritten, however many commits follow, and whichever process dies: a process that writes has its own pin.
// 3. *Recover.* The first one to open the store after a boot goes back to the recorded root if the newest meta page is
//    another, under LMDB's write lock: pages that came after may be missing. That loses nothing that was durable. Within
//    the run of a machine the page cache has everything, also after SIGKILL, so nothing is lost at all.
//
// A process that has committed nothing for a while gives its pin up, as a pin holds pages back from reuse.
import { closeSync, constants, fdatasync, fdatasyncSync, openSync } from "node:fs";
import { join } from "node:path";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { DAMAGED_REMEDY } from "./lmdb-errors.ts";
import { DATA_FILE, flushFolder } from "./lmdb-files.ts";
import { FlushRecord, readBootId } from "./lmdb-flush-record.ts";
import { lastTxnIdOnPages, readNewestRoot, type Root, rollBackTo } from "./lmdb-root.ts";
import type { LmdbStore, StoreSnapshot } from "./lmdb-store.ts";

/** What is not durable is flushed after so long, and a pin that is not needed is given up. */
const FLUSH_AFTER_MS = 500;
/** And after so many pages: the pin holds those back from reuse that they replace. */
const FLUSH_AFTER_PAGES = 4096;
/** Commits wait for the disk when so many pages are not flushed: this bounds how much the file grows on a slow one. */
const UNFLUSHED_PAGES_MAX = 16_384;

/** Name of the record of flushes within the store's folder. */
export const FLUSH_FILE = "flushed";

/** The durability of one open, writable store. */
export class LmdbDurability {
  readonly #store: LmdbStore;
  readonly #clock: Clock;
  readonly #dataFd: number;
  readonly #record: FlushRecord;
  readonly #bootId: Buffer;
  readonly #closing = new AbortController();
  #pin: StoreSnapshot | undefined;
  /** The last transaction that this process knows to be durable. */
  #flushedTxnId: number;
  /** Pages written, about, since the last flush began, and from the one before until then. */
  #unflushedPages = 0;
  #flushingPages = 0;
  #flushing: Promise<void> | undefined;
  #tending: Promise<void> | undefined;
  /** Set when the disk failed: what it has is unknown from then on. */
  #failure: AshlarError | undefined;

  private constructor(store: LmdbStore, clock: Clock, dataFd: number, record: FlushRecord) {
    this.#store = store;
    this.#clock = clock;
    this.#dataFd = dataFd;
    this.#record = record;
    this.#bootId = readBootId();
    this.#flushedTxnId = store.write(() => this.#recover());
  }

  /** Opens it, after recovering the store if the machine went down. */
  static open(store: LmdbStore, clock: Clock): LmdbDurability {
    const dataFd = openSync(join(store.path, DATA_FILE), constants.O_RDWR);
    try {
      const record = FlushRecord.open(join(store.path, FLUSH_FILE), true);
      try {
        return new LmdbDurability(store, clock, dataFd, record);
      } catch (error) {
        record.close();
        throw error;
      }
    } catch (error) {
      closeSync(dataFd);
      throw fromSystemError(error, `opening the metadata store ${store.path}`);
    }
  }

  /** Whether this process may commit now; else {@link prepare} first. */
  get isReady(): boolean {
    const unflushed = this.#unflushedPages + this.#flushingPages;
    return (
      this.#pin !== undefined && this.#failure === undefined && unflushed < UNFLUSHED_PAGES_MAX
    );
  }

  /** Makes {@link isReady} true, for the moment. At once, unless another process has written since the last flush. */
  async prepare(): Promise<void> {
    this.#assertSound();
    if (this.#pin !== undefined || this.#flushing !== undefined) return this.#flush();
    const pin = this.#store.snapshot();
    this.#tending ??= this.#tend();
    if (this.#store.lastTxnId === this.#flushedTxnId) {
      this.#pin = pin;
      return;
    }
    pin.end();
    return this.#flush();
  }

  /** Notes a commit of this process. */
  wrote(pageCount: number): void {
    this.#unflushedPages += pageCount;
    this.#tending ??= this.#tend();
    if (this.#unflushedPages >= FLUSH_AFTER_PAGES) this.#flush().catch(() => {});
  }

  /** Resolves when transaction `txnId`, which is committed, and all before it are durable. */
  async through(txnId: number): Promise<void> {
    while (this.#flushedTxnId < txnId) {
      this.#assertSound();
      // A flush that is under way may have begun before that transaction: then the next one does it.
      await this.#flush();
    }
  }

  /** Flushes what this process has committed, and ends. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#tending;
    try {
      await this.#flushing;
      if (this.#unflushedPages > 0 && this.#failure === undefined) await this.#flush();
    } finally {
      this.#pin?.end();
      this.#pin = undefined;
      this.#record.close();
      closeSync(this.#dataFd);
    }
  }

  #flush(): Promise<void> {
    this.#flushing ??= this.#runFlush().finally(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  async #runFlush(): Promise<void> {
    this.#assertSound();
    const pin = this.#store.snapshot();
    try {
      // In this order: a pin that is no newer than the root, a root that is no newer than what is flushed.
      const root = this.#newestRoot();
      this.#flushingPages = this.#unflushedPages;
      this.#unflushedPages = 0;
      await this.#flushToDisk(this.#dataFd);
      this.#store.write(() => this.#record.write(root, this.#bootId));
      await this.#flushToDisk(this.#record.fd);
      this.#pin?.end();
      this.#pin = pin;
      this.#flushedTxnId = Math.max(this.#flushedTxnId, root.txnId);
      this.#flushingPages = 0;
    } catch (error) {
      this.#unflushedPages += this.#flushingPages;
      this.#flushingPages = 0;
      pin.end();
      throw error;
    }
  }

  async #flushToDisk(fd: number): Promise<void> {
    try {
      await flushFile(fd);
    } catch (error) {
      // The kernel forgets which pages it could not write: flushing again would succeed, and mean nothing.
      this.#failure = fromSystemError(error, `flushing the metadata store ${this.#store.path}`, {
        remedy:
          "Mend the disk, restart the machine, and start again: it goes back to the last state that is whole.",
      });
      throw this.#failure;
    }
  }

  /** Flushes now and then while this process writes, and gives the pin up when it stops. */
  async #tend(): Promise<void> {
    try {
      for (;;) {
        await this.#clock.sleep(FLUSH_AFTER_MS, this.#closing.signal);
        this.#store.clearDeadReaders();
        if (this.#unflushedPages === 0 && this.#flushing === undefined) break;
        await this.#flush();
      }
      this.#pin?.end();
      this.#pin = undefined;
    } catch {
      // Closing, or a failure that the next commit reports.
    } finally {
      this.#tending = undefined;
    }
  }

  /** Runs under LMDB's write lock. Returns the last transaction if it is durable, else -1. */
  #recover(): number {
    assertLockFile(this.#store, this.#dataFd);
    const flushed = this.#record.read();
    let newest = this.#newestRoot();
    assertNotOlder(newest, flushed, this.#store.path);
    if (flushed?.bootId.equals(this.#bootId) === true) return -1;
    if (flushed !== undefined && newest.txnId > flushed.txnId) {
      newest = rollBackTo(flushed, newest, this.#dataFd, this.#store.path);
    }
    this.#record.reserve();
    fdatasyncSync(this.#dataFd);
    this.#record.write(newest, this.#bootId);
    fdatasyncSync(this.#record.fd);
    flushFolder(this.#store.path);
    return newest.txnId;
  }

  #newestRoot(): Root {
    return readNewestRoot(this.#dataFd, this.#store.path, () => this.#store.lastTxnId);
  }

  #assertSound(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}

/** Refuses a store that nobody has opened for writing since the machine went down: reading it needs recovery first. */
export function assertRecovered(store: LmdbStore): void {
  const dataFd = openSync(join(store.path, DATA_FILE), constants.O_RDONLY);
  let record: FlushRecord | undefined;
  try {
    record = FlushRecord.open(join(store.path, FLUSH_FILE), false);
    const flushed = record.read();
    const newest = readNewestRoot(dataFd, store.path, () => store.lastTxnId);
    assertNotOlder(newest, flushed, store.path);
    if (flushed === undefined || newest.txnId === flushed.txnId) return;
    if (flushed.bootId.equals(readBootId())) return;
    throw new AshlarError(
      ErrorCode.Unavailable,
      `the metadata store ${store.path} was not closed before the machine went down`,
      { remedy: "Open it once for writing; that recovers it.", details: { path: store.path } },
    );
  } catch (error) {
    throw fromSystemError(error, `opening the metadata store ${store.path}`);
  } finally {
    record?.close();
    closeSync(dataFd);
  }
}

/** Under LMDB's write lock: the lock file and the meta pages agree on the last transaction. See lmdb-door.ts. */
function assertLockFile(store: LmdbStore, dataFd: number): void {
  const found = lastTxnIdOnPages(dataFd, store.path);
  if (store.lastTxnId === found && store.writeTxnId === found + 1) return;
  throw new AshlarError(
    ErrorCode.TryAgain,
    `the lock file of the metadata store ${store.path} does not fit its data`,
    { remedy: "Stop all processes that use it, and start again.", details: { path: store.path } },
  );
}

function assertNotOlder(newest: Root, flushed: Root | undefined, path: string): void {
  if (flushed === undefined || newest.txnId >= flushed.txnId) return;
  throw new AshlarError(
    ErrorCode.Damaged,
    `the metadata store ${path} is older than the record of its last flush`,
    { remedy: DAMAGED_REMEDY, details: { path, found: newest.txnId, flushed: flushed.txnId } },
  );
}

function flushFile(fd: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  fdatasync(fd, (error) => (error === null ? resolve() : reject(error)));
  return promise;
}
