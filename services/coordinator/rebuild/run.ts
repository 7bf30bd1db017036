// What all parts of a rebuild share: the request, transactions under the run's token, and the result as it grows.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { Kv, KvEntry, KvTransaction } from "#lib/ports/kv.ts";
import { createHasher, type Hasher } from "#lib/repository/hashing.ts";
import type { RepositoryKeys } from "#lib/repository/keys.ts";
import { keyAfter, type KeyRange } from "#lib/repository/keyspace.ts";
import { BATCH_MAX } from "#lib/repository/ledger.ts";
import type { Ports } from "#lib/repository/repository.ts";
import { createSealer, type Sealer } from "#lib/repository/sealing.ts";
import { rebuildKey, rebuildRanges } from "./keyspace.ts";

/** A storage to rebuild from. */
export interface RebuildStore {
  /** Its identity, from its marker. */
  readonly identity: StorageId;
  /** What it is called in the configuration. */
  readonly name: string;
  readonly site?: string;
  readonly store: BlobStore;
}

/** What to rebuild, and from what. */
export interface RebuildRequest extends Ports {
  readonly kv: Kv;
  readonly keys: RepositoryKeys;
  readonly stores: readonly RebuildStore[];
  /** Into metadata that are new and empty; else those of this repository are reconciled with what the storages show. */
  readonly fresh: boolean;
  /** The block size of new backups, where no version tells. */
  readonly blockBytes?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: RebuildProgress) => void;
}

/** Where a rebuild is. */
export interface RebuildProgress {
  /** What is being done, as words for people. */
  readonly phase: string;
  /** Things of this phase that are done. */
  readonly done: number;
}

/** A part of a version that no storage has. */
export interface MissingPart {
  /** In bytes of the version. */
  readonly offset: number;
  readonly length: number;
  /** The block, or the tree node over that part. */
  readonly kind: "block" | "node";
  readonly id: BlockId;
}

/** A version after the rebuild. */
export interface RebuiltVersionReport {
  readonly uid: VersionUid;
  readonly volume: string;
  readonly state: "valid" | "invalid";
  /** The metadata did not know it before. */
  readonly adopted: boolean;
  /** What is lost of an invalid one; at most 1000 parts. */
  readonly missing: readonly MissingPart[];
}

/** What was found at a storage. */
export interface RebuiltStorageReport {
  readonly storage: StorageId;
  readonly name: string;
  readonly objects: number;
  readonly heads: number;
  /** Copies that were taken over from the listing. */
  readonly adopted: number;
  /** Copies that should be there and are not, or are damaged: they are owed again. */
  readonly lost: number;
}

/** Outcome of a rebuild. */
export interface RebuildResult {
  readonly versions: readonly RebuiltVersionReport[];
  /** Versions of which a last revision tells that they were removed. */
  readonly removed: number;
  readonly storages: readonly RebuiltStorageReport[];
  /** Storages that versions should be at and that were never seen here: disabled until they are rebuilt from, too. */
  readonly unknownStorages: readonly { readonly storage: StorageId; readonly versions: number }[];
  /** Sentences about what could not be taken over. */
  readonly problems: readonly string[];
  /** Backups that were running, by these metadata; they can be resumed. */
  readonly sessionsStopped: number;
}

/** One run. */
export class RebuildRun {
  readonly request: RebuildRequest;
  readonly kv: Kv;
  readonly hasher: Hasher;
  readonly sealer: Sealer;
  /** The given storages. */
  readonly given: readonly StorageId[];
  readonly problems: string[] = [];
  readonly tallies = new Map<StorageId, { -readonly [Name in Tally]: number }>();
  readonly #token: Buffer;

  constructor(request: RebuildRequest) {
    this.request = request;
    this.kv = request.kv;
    this.hasher = createHasher(request.keys);
    this.sealer = createSealer(request.keys, { compression: request.keys.compression });
    this.given = request.stores.map(({ identity }) => identity);
    this.#token = request.random.bytes(16);
    for (const id of this.given)
      this.tallies.set(id, { objects: 0, heads: 0, adopted: 0, lost: 0 });
  }

  /** The store of a given storage. */
  store(storage: StorageId): BlobStore {
    const found = this.request.stores.find(({ identity }) => identity === storage);
    if (found !== undefined) return found.store;
    throw new AshlarError(ErrorCode.Internal, `storage ${storage} is not rebuilt from`);
  }

  nameOf(storage: StorageId): string {
    return this.request.stores.find(({ identity }) => identity === storage)?.name ?? storage;
  }

  /** Counts something at a given storage. */
  tally(storage: StorageId, what: Tally, count = 1): void {
    const tallies = this.tallies.get(storage);
    if (tallies !== undefined) tallies[what] += count;
  }

  progress(phase: string, done: number): void {
    this.request.onProgress?.({ phase, done });
  }

  /** Takes charge, and clears what an earlier run left. */
  async begin(): Promise<void> {
    await this.kv.transact(
      async (tx) => {
        tx.set(rebuildKey.token, this.#token);
        await Promise.resolve();
      },
      { label: "rebuild" },
    );
    await this.#clear();
  }

  /** Clears what the run kept, its token last. */
  async end(): Promise<void> {
    await this.#clear();
    await this.transact(async (tx) => {
      tx.clear(rebuildKey.token);
      await Promise.resolve();
    }, true);
  }

  async #clear(): Promise<void> {
    for (const within of rebuildRanges) {
      await this.eachPage("clearing", within, BATCH_MAX, (entries) =>
        this.transact(async (tx) => {
          for (const { key } of entries) tx.clear(key);
          await Promise.resolve();
        }),
      );
    }
  }

  /** A transaction of this run: TryAgain when another run has taken over. */
  transact<T>(body: (tx: KvTransaction) => Promise<T>, durable = false): Promise<T> {
    return this.kv.transact(
      async (tx) => {
        const token = await tx.get(rebuildKey.token);
        if (token === undefined || !token.equals(this.#token)) {
          throw new AshlarError(
            ErrorCode.TryAgain,
            "another rebuild of this repository has begun",
            {
              remedy: "wait until it has ended",
            },
          );
        }
        return body(tx);
      },
      { label: "rebuild", durable },
    );
  }

  /** The entries of a range, page by page. */
  async eachPage(
    phase: string,
    { start, end }: KeyRange,
    limit: number,
    visit: (entries: readonly KvEntry[]) => Promise<void>,
  ): Promise<void> {
    let from = start;
    for (let done = 0; ;) {
      this.request.signal?.throwIfAborted();
      const at = from;
      const entries = await this.kv.read((reader) => reader.range({ start: at, end, limit }));
      if (entries.length > 0) await visit(entries);
      done += entries.length;
      this.progress(phase, done);
      const last = entries.at(-1);
      if (last === undefined || entries.length < limit) return;
      from = keyAfter(last.key);
    }
  }
}

type Tally = "objects" | "heads" | "adopted" | "lost";
