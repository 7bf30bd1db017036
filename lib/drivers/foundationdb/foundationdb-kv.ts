// The Kv of a cluster: FoundationDB, whose transactions are what the port describes. What is ours: a prefix that keeps repositories
// apart, bounds on tries and time, and words for what goes wrong.
import { existsSync } from "node:fs";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { RetryQueue, type Try } from "#lib/drivers/optimistic/retry-queue.ts";
import { systemPacing } from "#lib/drivers/optimistic/system-pacing.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Kv, KvReader, KvTransaction, TransactOptions } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { explainFdb, isFdbError, type FdbError } from "./fdb-errors.ts";
import { loadFdb, type NativeDatabase, type NativeTransaction } from "./fdb-library.ts";
import { FdbReader, FdbTransaction, type TransactionState } from "./fdb-transaction.ts";

/**
 * fdb.options: Timeout, MaxRetryDelay, SizeLimit, SnapshotRywDisable. Without a timeout clients wait for ever; it covers all tries of
 * a transaction.
 */
const OPTION = {
  timeout: 500,
  maxRetryDelay: 502,
  sizeLimit: 503,
  snapshotRywDisable: 601,
} as const;
const TIMEOUT_MS = 60_000;
const OPEN_TIMEOUT_MS = 10_000;
const RETRY_DELAY_MS_MAX = 500;
/** FoundationDB takes 10 MB; ours stay far below. */
const SIZE_BYTES_MAX = 5_000_000;

/** Options of {@link openFoundationDbKv}. */
export interface FoundationDbKvOptions {
  /** Path of the cluster file. */
  readonly clusterFile: string;
  /** All keys begin with it: what tells repositories in one cluster apart. */
  readonly prefix: Buffer;
  readonly clock: Clock;
  readonly random: Random;
  /** How long a transaction with all its tries may take, in ms. Default one minute. */
  readonly timeoutMs?: number;
}

/** Opens a part of a cluster; Config where it is not configured as it must be, Unavailable where it does not answer. */
export async function openFoundationDbKv(options: FoundationDbKvOptions): Promise<Kv> {
  const { clusterFile } = options;
  // The library would wait for one to come.
  if (!existsSync(clusterFile)) {
    throw new AshlarError(ErrorCode.Config, `there is no cluster file ${clusterFile}`, {
      remedy: "correct foundationdb.clusterFile; usually it is /etc/foundationdb/fdb.cluster",
    });
  }
  const fdb = await loadFdb();
  let database: NativeDatabase;
  try {
    // The module's own loop of tries has no bounds that we could set: transactions are run on what lies below it.
    database = (fdb.open(clusterFile) as unknown as { readonly _db: NativeDatabase })._db;
  } catch (error) {
    throw isFdbError(error) ? explainFdb(error, "opening the metadata", clusterFile) : error;
  }
  const kv = new FoundationDbKv(database, options);
  try {
    await kv.requireAnswer();
  } catch (error) {
    await kv.close();
    throw error;
  }
  return kv;
}

class FoundationDbKv implements Kv {
  readonly #database: NativeDatabase;
  readonly #clusterFile: string;
  readonly #prefix: Buffer;
  readonly #timeoutMs: number;
  readonly #retries: RetryQueue;
  /** Bodies that are running; closing waits for them. */
  #running = 0;
  #idle: (() => void) | undefined;
  #isOpen = true;

  constructor(database: NativeDatabase, options: FoundationDbKvOptions) {
    this.#database = database;
    this.#clusterFile = options.clusterFile;
    this.#prefix = Buffer.from(options.prefix);
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#retries = new RetryQueue(systemPacing(options));
  }

  /** Unavailable where the cluster does not answer. */
  async requireAnswer(): Promise<void> {
    const native = this.#begin(OPEN_TIMEOUT_MS);
    await this.#explained("opening the metadata", () => native.getReadVersion());
  }

  async read<T>(body: (reader: KvReader) => Promise<T>): Promise<T> {
    return this.#tracked("reading", (native) => async () => {
      const state: TransactionState = { isOpen: true, hasWrites: false, failure: undefined };
      const reader = new FdbReader(native, this.#prefix, true, state);
      try {
        return await bodyOf(state, () => body(reader));
      } finally {
        state.isOpen = false;
      }
    });
  }

  async transact<T>(
    body: (tx: KvTransaction) => Promise<T>,
    options: TransactOptions = {},
  ): Promise<T> {
    return this.#tracked(options.label ?? "transaction", (native) => async (alone) => {
      const tx = new FdbTransaction(native, this.#prefix);
      let value: T;
      try {
        value = await bodyOf(tx.state, () => body(tx));
      } finally {
        tx.state.isOpen = false;
      }
      // What only read is consistent as it is: it saw one version.
      if (tx.state.hasWrites) {
        if (!alone) await this.#retries.letOthersPass();
        await native.commit();
      }
      return value;
    });
  }

  /** A commit that was answered is on the disks of all who have to have it. */
  flush(): Promise<void> {
    return Promise.resolve();
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    if (this.#running > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#idle = resolve;
      await promise;
    }
    this.#database.close();
  }

  #begin(timeoutMs: number): NativeTransaction {
    const native = this.#database.createTransaction();
    native.setOption(OPTION.timeout, timeoutMs);
    native.setOption(OPTION.maxRetryDelay, RETRY_DELAY_MS_MAX);
    native.setOption(OPTION.sizeLimit, SIZE_BYTES_MAX);
    native.setOption(OPTION.snapshotRywDisable, null);
    return native;
  }

  /** Runs tries of one transaction until one is through. */
  async #tracked<T>(
    label: string,
    tryOf: (native: NativeTransaction) => (alone: boolean) => Promise<T>,
  ): Promise<T> {
    if (!this.#isOpen) throw new AshlarError(ErrorCode.Unavailable, "the metadata store is closed");
    this.#running += 1;
    const native = this.#begin(this.#timeoutMs);
    const once = tryOf(native);
    try {
      return await this.#retries.run(label, (alone) => this.#once(label, native, once, alone));
    } finally {
      native.cancel();
      this.#running -= 1;
      if (this.#running === 0) this.#idle?.();
    }
  }

  async #once<T>(
    label: string,
    native: NativeTransaction,
    body: (alone: boolean) => Promise<T>,
    alone: boolean,
  ): Promise<Try<T>> {
    try {
      return { done: true, value: await body(alone) };
    } catch (error) {
      if (!isFdbError(error)) throw error;
      // It waits as the library thinks best, and makes the transaction a new one; or it does not help to try again. A result that
      // is not known is settled by then: what was sent has landed, or never will.
      await this.#explained(label, () => native.onError(error.code), error);
      return { done: false };
    }
  }

  async #explained<T>(label: string, work: () => Promise<T>, cause?: FdbError): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!isFdbError(error)) throw error;
      throw explainFdb(cause?.code === error.code ? cause : error, label, this.#clusterFile);
    }
  }
}

/** A body's outcome; where one of its reads has failed that is it, whatever the body made of it. */
async function bodyOf<T>(state: TransactionState, body: () => Promise<T>): Promise<T> {
  let value: T;
  try {
    value = await body();
  } catch (error) {
    throw state.failure ?? error;
  }
  if (state.failure !== undefined) throw state.failure;
  return value;
}
