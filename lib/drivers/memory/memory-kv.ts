// The Kv in memory, for tests and simulation: real snapshots, real conflicts, and faults on demand.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { assert, unreachable } from "#lib/core/assert.ts";
import {
  OptimisticTransaction,
  SnapshotReader,
  type Turn,
} from "#lib/drivers/optimistic/optimistic-transaction.ts";
import type { Snapshot } from "#lib/drivers/optimistic/read-set.ts";
import { type Pacing, RetryQueue, type Try } from "#lib/drivers/optimistic/retry-queue.ts";
import { keyOfText, keyText, type WriteTarget } from "#lib/drivers/optimistic/write-buffer.ts";
import type {
  Kv,
  KvEntry,
  KvRange,
  KvReader,
  KvTransaction,
  TransactOptions,
} from "#lib/ports/kv.ts";
import { SnapshotMap } from "./snapshot-map.ts";

/**
 * What becomes of a commit:
 * - `ok`: it is checked and applied, as always.
 * - `conflict`: it loses, and the body runs again.
 * - `unknown-committed`: it is checked and applied, but the body runs again, as after a lost answer.
 * - `unknown-not-committed`: nothing is applied, and the body runs again.
 * - `unknown-late`: the body runs again, and what it wrote at first lands before a later commit, if it still may.
 */
export type CommitFault =
  | "ok"
  | "conflict"
  | "unknown-committed"
  | "unknown-not-committed"
  | "unknown-late";

/** Where a simulation takes hold of the store. */
export interface MemoryKvFaults {
  /** Asked before every commit that writes. What it throws aborts the transaction (a full disk, say). */
  beforeCommit?(label: string): CommitFault | Promise<CommitFault>;
}

/** Options of {@link openMemoryKv}. */
export interface MemoryKvOptions {
  readonly faults?: MemoryKvFaults;
  /** Awaited before every read and commit: a scheduler decides who goes next. */
  readonly turn?: Turn;
  /** How to wait after a conflict. Default: not at all. */
  readonly pacing?: Pacing;
}

/** One key that a commit has set, or (undefined) removed. */
export interface MemoryKvChange {
  readonly key: Buffer;
  readonly value: Buffer | undefined;
}

/** All that is in a store at one moment. It never changes. */
export interface MemoryKvContents {
  /** Opaque to everybody else. */
  readonly root: SnapshotMap<Buffer>;
}

/** A Kv in memory. */
export interface MemoryKv extends Kv {
  /** Loses what was committed with `durable: false` and not flushed since, as a power failure may. */
  losePower(): void;
  /** The same contents as another process sees them, with faults and turns of its own. */
  client(options: MemoryKvOptions): MemoryKv;
  /** The contents as they are now, to go back to: metadata that are put back from an older copy. */
  snapshot(): MemoryKvContents;
  restore(contents: MemoryKvContents): void;
  /** Calls `watch` with the changes of each commit, after they were applied. */
  watch(watch: (changes: readonly MemoryKvChange[]) => void): void;
}

/** Opens an empty store. */
export function openMemoryKv(options: MemoryKvOptions = {}): MemoryKv {
  return new MemoryStore(options, new Contents());
}

type Root = SnapshotMap<Buffer>;
type Prepared = Pick<OptimisticTransaction, "reads" | "writes">;

/** What all clients of a store share. */
class Contents {
  root: Root = SnapshotMap.empty();
  flushed: Root = this.root;
  /** Commits of unknown result that have not landed yet. */
  late: Prepared[] = [];
  watch: ((changes: readonly MemoryKvChange[]) => void) | undefined;
}

class MemoryStore implements MemoryKv {
  readonly #options: MemoryKvOptions;
  readonly #retries: RetryQueue;
  readonly #contents: Contents;
  #open = true;

  constructor(options: MemoryKvOptions, contents: Contents) {
    this.#options = options;
    this.#contents = contents;
    this.#retries = new RetryQueue(options.pacing);
  }

  async read<T>(body: (reader: KvReader) => Promise<T>): Promise<T> {
    this.#assertOpen();
    const reader = new SnapshotReader(snapshotOf(this.#contents.root), this.#options.turn);
    try {
      return await body(reader);
    } finally {
      reader.end();
    }
  }

  async transact<T>(
    body: (tx: KvTransaction) => Promise<T>,
    options: TransactOptions = {},
  ): Promise<T> {
    const label = options.label ?? "transaction";
    return this.#retries.run(label, (alone) => this.#try(body, options, label, alone));
  }

  async flush(): Promise<void> {
    this.#assertOpen();
    this.#contents.flushed = this.#contents.root;
  }

  async close(): Promise<void> {
    this.#open = false;
  }

  losePower(): void {
    this.#contents.root = this.#contents.flushed;
    this.#contents.late = [];
  }

  client(options: MemoryKvOptions): MemoryKv {
    return new MemoryStore(options, this.#contents);
  }

  snapshot(): MemoryKvContents {
    return { root: this.#contents.root };
  }

  restore({ root }: MemoryKvContents): void {
    this.#contents.root = root;
    this.#contents.flushed = root;
    this.#contents.late = [];
  }

  watch(watch: (changes: readonly MemoryKvChange[]) => void): void {
    this.#contents.watch = watch;
  }

  async #try<T>(
    body: (tx: KvTransaction) => Promise<T>,
    options: TransactOptions,
    label: string,
    alone: boolean,
  ): Promise<Try<T>> {
    this.#assertOpen();
    const tx = new OptimisticTransaction(snapshotOf(this.#contents.root), this.#options.turn);
    let value: T;
    try {
      value = await body(tx);
    } finally {
      tx.end();
    }
    if (tx.writes.isEmpty) {
      this.#settle(options);
      return { done: true, value };
    }
    if (!alone) await this.#retries.letOthersPass();
    if (this.#options.turn !== undefined) await this.#options.turn();
    const fault = (await this.#options.faults?.beforeCommit?.(label)) ?? "ok";
    this.#assertOpen();
    this.#landLate();
    if (!this.#commitUnder(fault, tx)) return { done: false };
    this.#settle(options);
    return { done: true, value };
  }

  /** A durable answer rests on nothing that can still be lost, also when the body only read. */
  #settle(options: TransactOptions): void {
    if (options.durable !== false) this.#contents.flushed = this.#contents.root;
  }

  /** True when the transaction is known to be committed. */
  #commitUnder(fault: CommitFault, tx: Prepared): boolean {
    switch (fault) {
      case "ok":
        return this.#commit(tx);
      case "conflict":
      case "unknown-not-committed":
        return false;
      case "unknown-committed":
        this.#commit(tx);
        return false;
      case "unknown-late":
        this.#contents.late.push(tx);
        return false;
      default:
        return unreachable(fault);
    }
  }

  #landLate(): void {
    for (const tx of this.#contents.late.splice(0)) this.#commit(tx);
  }

  /** Checks and applies in one step; false on a conflict. */
  #commit(tx: Prepared): boolean {
    const contents = this.#contents;
    if (!tx.reads.holdsIn(snapshotOf(contents.root))) return false;
    const target = new Editor(contents.root, contents.watch === undefined ? undefined : []);
    tx.writes.applyTo(target);
    contents.root = target.root;
    if (target.changes !== undefined) contents.watch?.(target.changes);
    return true;
  }

  #assertOpen(): void {
    if (!this.#open) throw new AshlarError(ErrorCode.Unavailable, "the metadata store is closed");
  }
}

/** Applies writes to a root. Values are stored as they are: the write buffer holds copies of its own. */
class Editor implements WriteTarget {
  root: Root;
  /** Noted where somebody watches. */
  readonly changes: MemoryKvChange[] | undefined;

  constructor(root: Root, changes: MemoryKvChange[] | undefined) {
    this.root = root;
    this.changes = changes;
  }

  get(key: Buffer): Buffer | undefined {
    return this.root.get(keyText(key));
  }

  keys(start: Buffer, end: Buffer, limit: number): Buffer[] {
    return this.root
      .entries(keyText(start), keyText(end))
      .take(limit)
      .map(([text]) => keyOfText(text))
      .toArray();
  }

  put(key: Buffer, value: Buffer): void {
    this.root = this.root.with(keyText(key), value);
    this.changes?.push({ key, value });
  }

  remove(key: Buffer): void {
    this.root = this.root.without(keyText(key));
    this.changes?.push({ key, value: undefined });
  }
}

/** Reads of a root. They return copies: what is stored never changes. */
function snapshotOf(root: Root): Snapshot {
  return {
    get(key: Buffer): Buffer | undefined {
      const value = root.get(keyText(key));
      return value === undefined ? undefined : Buffer.from(value);
    },
    range(range: KvRange): KvEntry[] {
      assert(range.limit > 0, "a range has a limit above 0");
      return root
        .entries(keyText(range.start), keyText(range.end), range.reverse === true)
        .take(range.limit)
        .map(([text, value]) => ({ key: keyOfText(text), value: Buffer.from(value) }))
        .toArray();
    },
  };
}
