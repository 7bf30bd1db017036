// The storages that this process can reach, by identity, with their limits. A storage that is away stays listed with the
// reason, so that what should have gone there is left owed instead of failing the work.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { Semaphore } from "#lib/core/semaphore.ts";
import type { BlobStore, GetOptions, PutOptions } from "#lib/ports/blob-store.ts";

/** One storage as the configuration names it. */
export interface AttachedStorage {
  readonly id: StorageId;
  readonly name: string;
  readonly site: string;
  /** The open store, or why it is away. */
  readonly store: BlobStore | AshlarError;
  readonly writesMax: number;
  readonly readsMax: number;
  /** Batches of names that are deleted at once. */
  readonly removalsMax: number;
  /** Storages with a lower one are read first; of those with the same, all. Default 1. */
  readonly readOrder?: number;
}

/** How an object is read. */
export interface StorageGetOptions extends GetOptions {
  /** Nobody waits for it: it lets others read first. */
  readonly yields?: boolean;
}

interface Limited {
  readonly storage: AttachedStorage;
  readonly writes: Semaphore;
  readonly reads: Semaphore;
  readonly removals: Semaphore;
}

/** All storages of a process. */
export class StorageSet {
  readonly #byId = new Map<StorageId, Limited>();

  constructor(storages: readonly AttachedStorage[]) {
    for (const storage of storages) {
      this.#byId.set(storage.id, {
        storage,
        writes: new Semaphore(storage.writesMax),
        reads: new Semaphore(storage.readsMax),
        removals: new Semaphore(storage.removalsMax),
      });
    }
  }

  /** All of them, also those that are away. */
  list(): AttachedStorage[] {
    return [...this.#byId.values()].map(({ storage }) => storage);
  }

  /** The storage's name in the configuration, or its identity. */
  nameOf(id: StorageId): string {
    return this.#byId.get(id)?.storage.name ?? id;
  }

  /** The storage of that name; NotFound names the ones there are. */
  byName(name: string): AttachedStorage {
    const found = this.list().find((storage) => storage.name === name);
    if (found !== undefined) return found;
    const names = this.list().map((storage) => storage.name);
    throw new AshlarError(ErrorCode.NotFound, `there is no storage ${name}`, {
      remedy: `the configuration has: ${names.join(", ")}`,
    });
  }

  /** Whether the storage can be used now. */
  isAvailable(id: StorageId): boolean {
    const limited = this.#byId.get(id);
    return limited !== undefined && !(limited.storage.store instanceof AshlarError);
  }

  /** The open store; Unavailable when it is away or not configured here. */
  store(id: StorageId): BlobStore {
    return openStore(this.#limited(id).storage);
  }

  /**
   * Puts an object under a name that is ours alone. What is found there is an earlier try of ours: it is replaced by the
   * whole object, never trusted (DESIGN §4.2).
   */
  put(
    id: StorageId,
    name: string,
    bytes: Uint8Array,
    options: Omit<PutOptions, "mode"> = {},
  ): Promise<void> {
    const { storage, writes } = this.#limited(id);
    return writes.run(async () => {
      const store = openStore(storage);
      try {
        await store.put(name, bytes, { ...options, mode: "create" });
      } catch (error) {
        if (!(error instanceof AshlarError) || error.code !== ErrorCode.AlreadyExists) throw error;
        await store.put(name, bytes, { ...options, mode: "replace" });
      }
    }, options.signal);
  }

  /**
   * Reads an object, within the storage's limit of parallel reads.
   * @param onBegin called when it is its turn
   */
  get(
    id: StorageId,
    name: string,
    { yields = false, ...options }: StorageGetOptions = {},
    onBegin?: () => void,
  ): Promise<Uint8Array> {
    const { storage, reads } = this.#limited(id);
    const read = (): Promise<Uint8Array> => {
      onBegin?.();
      return openStore(storage).get(name, options);
    };
    return reads.run(read, options.signal, yields);
  }

  /** Storages with a lower one are read first. */
  readOrder(id: StorageId): number {
    return this.#byId.get(id)?.storage.readOrder ?? 1;
  }

  /** How many batches of names it is worth to delete at once. */
  removalsMax(id: StorageId): number {
    return this.#limited(id).storage.removalsMax;
  }

  /** Deletes a batch of objects, within the storage's limit of batches; the result names those that could not be, with their error. */
  delete(
    id: StorageId,
    names: readonly string[],
    signal?: AbortSignal,
  ): Promise<ReadonlyMap<string, Error>> {
    const { storage, removals } = this.#limited(id);
    return removals.run(() => openStore(storage).delete(names), signal);
  }

  #limited(id: StorageId): Limited {
    const limited = this.#byId.get(id);
    if (limited === undefined) {
      throw new AshlarError(ErrorCode.Unavailable, `storage ${id} is not in this configuration`, {
        remedy: "add it to `storages` in the configuration",
      });
    }
    return limited;
  }

  /** Closes all stores. */
  async close(): Promise<void> {
    for (const { storage } of this.#byId.values()) {
      if (!(storage.store instanceof AshlarError)) await storage.store.close();
    }
  }
}

function openStore(storage: AttachedStorage): BlobStore {
  if (storage.store instanceof AshlarError) throw storage.store;
  return storage.store;
}
