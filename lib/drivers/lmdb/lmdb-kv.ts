// The embedded Kv: LMDB, shared by the processes of one host.
//
// Transactions are optimistic. A body reads from a snapshot, and its writes are buffered; at commit one synchronous
// write transaction, under the lock that all processes share, checks that what was read still holds and applies the
// writes. So the lock is held for milliseconds, whatever a body awaits, and a body that writes nothing never takes it.
// Not for several containers that do not share process ids: LMDB knows its readers by them.
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import {
  OptimisticTransaction,
  SnapshotReader,
} from "#lib/drivers/optimistic/optimistic-transaction.ts";
import { type Pacing, RetryQueue, type Try } from "#lib/drivers/optimistic/retry-queue.ts";
import { systemPacing } from "#lib/drivers/optimistic/system-pacing.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Kv, KvReader, KvTransaction, TransactOptions } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { LmdbDoor, whileDoorIsShut } from "./lmdb-door.ts";
import { assertRecovered, LmdbDurability } from "./lmdb-durability.ts";
import { isFull } from "./lmdb-errors.ts";
import { prepareFolder } from "./lmdb-files.ts";
import { isFreeing, LmdbSpace, PAGE_BYTES } from "./lmdb-space.ts";
import { LmdbStore, type StoreSnapshot } from "./lmdb-store.ts";

const MAP_SIZE_BYTES = 2 ** 40;
const RESERVE_BYTES = 16 * 2 ** 20;
/** A lock file that is found half set up is set up anew once everybody has closed it. */
const OPEN_TRIES = 20;
const OPEN_PAUSE_MS_MAX = 200;
/** How many milliseconds a commit waits, at least, for another process to open the store. */
const ENTER_PAUSES_MAX = 30_000;

/** Options of {@link openLmdbKv}. */
export interface LmdbKvOptions {
  /** The folder of the store, made if it is missing. Nothing else lies in it. */
  readonly path: string;
  /** The data does not grow beyond this. Default 1 TiB. */
  readonly mapSizeBytes?: number;
  /** How much of that, and of the disk, is kept back for transactions labelled `free:…`. Default 16 MiB. */
  readonly reserveBytes?: number;
  /** Refuses to write. The store must exist. Default false. */
  readonly readOnly?: boolean;
  readonly clock: Clock;
  readonly random: Random;
}

/** Opens the store at `path`. Several processes, each once, may have it open. */
export async function openLmdbKv(options: LmdbKvOptions): Promise<Kv> {
  const { path } = options;
  const readOnly = options.readOnly === true;
  const pacing = systemPacing(options);
  prepareFolder(path, readOnly);
  for (let tries = 1; ; tries++) {
    try {
      const kv = await whileDoorIsShut(path, pacing, () => openParts(options, readOnly, pacing));
      await kv.fillReserve();
      return kv;
    } catch (error) {
      if (!isErrorCode(error, ErrorCode.TryAgain) || tries >= OPEN_TRIES) throw error;
      await pacing.pause(pacing.random.below(OPEN_PAUSE_MS_MAX));
    }
  }
}

async function openParts(
  options: LmdbKvOptions,
  readOnly: boolean,
  pacing: Pacing,
): Promise<LmdbKv> {
  const store = LmdbStore.open({ path: options.path, readOnly });
  const opened: { close(): Promise<void> | void }[] = [store];
  try {
    if (readOnly) {
      assertRecovered(store);
      return new LmdbKv(store, pacing, undefined);
    }
    const durability = LmdbDurability.open(store, options.clock);
    opened.push(durability);
    const door = new LmdbDoor(options.path);
    opened.push(door);
    const space = new LmdbSpace(store, {
      mapSizeBytes: options.mapSizeBytes ?? MAP_SIZE_BYTES,
      reserveBytes: options.reserveBytes ?? RESERVE_BYTES,
      clock: options.clock,
      random: options.random,
    });
    return new LmdbKv(store, pacing, { door, durability, space });
  } catch (error) {
    for (const part of opened.toReversed()) await part.close();
    throw error;
  }
}

/** What only a writable store has. */
interface Writing {
  readonly door: LmdbDoor;
  readonly durability: LmdbDurability;
  readonly space: LmdbSpace;
}

class LmdbKv implements Kv {
  readonly #store: LmdbStore;
  readonly #writing: Writing | undefined;
  readonly #pacing: Pacing;
  readonly #retries: RetryQueue;
  /** Bodies that are running; closing waits for them. */
  #running = 0;
  #idle: (() => void) | undefined;
  #open = true;

  constructor(store: LmdbStore, pacing: Pacing, writing: Writing | undefined) {
    this.#store = store;
    this.#writing = writing;
    this.#pacing = pacing;
    this.#retries = new RetryQueue(pacing);
  }

  /** After opening. Not with the others waiting at the door: it writes megabytes. */
  async fillReserve(): Promise<void> {
    try {
      this.#writing?.space.fill();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async read<T>(body: (reader: KvReader) => Promise<T>): Promise<T> {
    return this.#tracked(async () => {
      const snapshot = this.#store.snapshot();
      const reader = new SnapshotReader(snapshot);
      try {
        return await body(reader);
      } finally {
        reader.end();
        snapshot.end();
      }
    });
  }

  async transact<T>(
    body: (tx: KvTransaction) => Promise<T>,
    options: TransactOptions = {},
  ): Promise<T> {
    const label = options.label ?? "transaction";
    return this.#tracked(() =>
      this.#retries.run(label, (alone) => this.#try(body, label, options.durable !== false, alone)),
    );
  }

  async flush(): Promise<void> {
    return this.#tracked(async () => this.#writing?.durability.through(this.#store.lastTxnId));
  }

  async close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    if (this.#running > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#idle = resolve;
      await promise;
    }
    try {
      this.#writing?.door.close();
      this.#writing?.space.close();
      await this.#writing?.durability.close();
    } finally {
      await whileDoorIsShut(this.#store.path, this.#pacing, () => this.#store.close());
    }
  }

  async #try<T>(
    body: (tx: KvTransaction) => Promise<T>,
    label: string,
    durable: boolean,
    alone: boolean,
  ): Promise<Try<T>> {
    const snapshot = this.#store.snapshot();
    const tx = new OptimisticTransaction(snapshot);
    let value: T;
    try {
      value = await body(tx);
    } finally {
      tx.end();
      snapshot.end();
    }
    let txnId = snapshot.txnId;
    if (!tx.writes.isEmpty) {
      if (!alone) await this.#retries.letOthersPass();
      const committed = await this.#commit(tx, snapshot, label);
      if (committed === undefined) return { done: false };
      txnId = committed;
    }
    // Also when it only read: an answer that is durable rests on nothing that can still be lost.
    if (durable) await this.#writing?.durability.through(txnId);
    return { done: true, value };
  }

  /** Commits without waiting for the disk. The transaction's number, or undefined on a conflict. */
  async #commit(
    tx: OptimisticTransaction,
    snapshot: StoreSnapshot,
    label: string,
  ): Promise<number | undefined> {
    if (this.#writing === undefined) {
      throw new AshlarError(
        ErrorCode.Refused,
        `${label}: the metadata store is open for reading only`,
      );
    }
    const { durability, space } = this.#writing;
    for (let giveUps = 0; ;) {
      const leave = await this.#enter(this.#writing);
      try {
        // No await from the last look at durability and door to the commit.
        space.prepare(label);
        return this.#apply(tx, snapshot, label, this.#writing);
      } catch (error) {
        const explained = space.explain(error);
        if (!isFull(explained) || !isFreeing(label) || ++giveUps > 2) throw explained;
      } finally {
        leave();
      }
      // What a removal has freed can be used again once a flush has moved the pin.
      if (!space.giveUp()) await durability.through(this.#store.lastTxnId);
    }
  }

  /** Waits until this process may commit; returns what to call afterwards. */
  async #enter({ door, durability }: Writing): Promise<() => void> {
    for (let pauses = 0; pauses < ENTER_PAUSES_MAX;) {
      if (durability.isReady) {
        const leave = door.enter();
        if (leave !== undefined) return leave;
        await this.#pacing.pause(1);
        pauses++;
      } else {
        await durability.prepare();
      }
    }
    throw new AshlarError(
      ErrorCode.TryAgain,
      `another process has been opening the metadata store ${this.#store.path} for a long time`,
      { remedy: "See whether a process of Ashlar is stopped, and continue or end it." },
    );
  }

  #apply(
    tx: OptimisticTransaction,
    snapshot: StoreSnapshot,
    label: string,
    { durability, space }: Writing,
  ): number | undefined {
    const pageCount = tx.writes.pageCount(PAGE_BYTES);
    const txnId = this.#store.write((access) => {
      const { writeTxnId } = this.#store;
      // Nothing was committed since the snapshot was taken: no need to read everything again.
      const unchanged = writeTxnId === snapshot.txnId + 1;
      if (!unchanged && !tx.reads.holdsIn(access)) return undefined;
      space.check(label, pageCount);
      tx.writes.applyTo(access);
      return writeTxnId;
    });
    if (txnId === undefined) return undefined;
    durability.wrote(pageCount);
    // What wrote nothing in effect has committed nothing.
    return Math.min(txnId, this.#store.lastTxnId);
  }

  async #tracked<T>(work: () => Promise<T>): Promise<T> {
    if (!this.#open) throw new AshlarError(ErrorCode.Unavailable, "the metadata store is closed");
    this.#running++;
    try {
      return await work();
    } finally {
      this.#running--;
      if (this.#running === 0) this.#idle?.();
    }
  }
}
