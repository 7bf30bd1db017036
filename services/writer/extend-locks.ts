// Extending the locks of a storage's objects, for as long as they are needed (docs/storages.md, "Object lock"). Where this dies between an
// extension and its note, the lock is extended once more.
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { BlobLocking, BlobStore } from "#lib/ports/blob-store.ts";
import type { Repository } from "#lib/repository/repository.ts";
import {
  dropLocks,
  listDueLocks,
  lockWalkStep,
  noteLockKeys,
  readLockKeys,
  readLockStatus,
  setStorageLock,
  settleLocks,
} from "#lib/repository/transactions/lock.ts";
import { readAccessKeys } from "#lib/repository/transactions/access-keys.ts";
import type { ExtendOptions, ExtensionOutcome } from "#lib/repository/upkeep.ts";
import { ObjectFolder, parseObjectName } from "#proto/object-names.ts";
import { asAway } from "./away.ts";
import { storageState } from "./counting-storages.ts";
import { ensureGuarded } from "./guard.ts";

const UNAWARE = "this process was started before the storage locked its objects: start it again";

type Counts = { extended: number; failed: number; reason: string | undefined };

/**
 * Extends what is due at a storage; at one that does not lock, or no more, nothing is left to be done. A storage that is away is left
 * alone, with the reason. Refused when the storage and the metadata do not know each other.
 */
export async function extendLocks(
  repo: Repository,
  storage: StorageId,
  options: ExtendOptions = {},
): Promise<ExtensionOutcome> {
  const { signal } = options;
  const counts: Counts = { extended: 0, failed: 0, reason: undefined };
  const locks = (await readLockStatus(repo.kv, storage)) !== undefined;
  const state = await storageState(repo.kv, storage);
  if (state !== "in-use" && state !== "readonly") {
    return { storage, ...counts, reason: locks ? `the storage is ${state}` : undefined };
  }
  let store: BlobStore;
  try {
    store = repo.storages.store(storage);
  } catch (error) {
    return { storage, ...counts, reason: locks ? asAway(error).message : undefined };
  }
  const { locking, locksNoMore = false } = store;
  // Whoever has never heard of locks takes none off that others want: it was started before they came, or is not of this release.
  if (locks && locking === undefined && !locksNoMore)
    return { storage, ...counts, reason: UNAWARE };
  // Who goes by the record does not write it: somebody else may have changed it since.
  if (locking?.isInherited !== true) await setStorageLock(repo.kv, storage, locking);
  if (locking === undefined) {
    while (await dropLocks(repo.kv, storage)) signal?.throwIfAborted();
    return { storage, ...counts };
  }
  const { away } = await ensureGuarded(repo, [storage], signal);
  if (away[0] !== undefined) return { storage, ...counts, reason: away[0].error.message };
  try {
    await new Extension(repo, storage, locking, counts, options).run();
  } catch (error) {
    signal?.throwIfAborted();
    counts.reason = asAway(error).message;
  }
  repo.telemetry.count("ashlar.locks.extended", counts.extended, {
    storage: repo.storages.nameOf(storage),
  });
  return { storage, ...counts };
}

class Extension {
  readonly #repo: Repository;
  readonly #storage: StorageId;
  readonly #locking: BlobLocking;
  readonly #counts: Counts;
  readonly #options: ExtendOptions;

  constructor(
    repo: Repository,
    storage: StorageId,
    locking: BlobLocking,
    counts: Counts,
    options: ExtendOptions,
  ) {
    this.#repo = repo;
    this.#storage = storage;
    this.#locking = locking;
    this.#counts = counts;
    this.#options = options;
  }

  async run(): Promise<void> {
    const { kv, clock } = this.#repo;
    await this.#extendKeys();
    while (await lockWalkStep(kv, this.#storage, clock.now())) this.#check();
    // What becomes due meanwhile is the next run's.
    const dueMs = clock.now();
    let from: Buffer | undefined;
    do {
      this.#check();
      const page = await listDueLocks(kv, this.#storage, dueMs, from);
      // Before the requests: each lock then lasts at least as long as is noted.
      const nowMs = clock.now();
      const wanted = page.due.flatMap(({ name, verdict }) => (verdict === "keep" ? [name] : []));
      const extended = await this.#extend(wanted, nowMs);
      await settleLocks(kv, this.#storage, page.due, extended, nowMs);
      this.#options.onProgress?.(this.#counts.extended);
      from = page.next;
    } while (from !== undefined && this.#counts.extended < (this.#options.most ?? Infinity));
  }

  #check(): void {
    this.#options.signal?.throwIfAborted();
  }

  /** Those that are locked for a period now, or are not there: that is for scrub to say. */
  async #extend(names: readonly string[], nowMs: number): Promise<Set<string>> {
    const done = new Set(names);
    if (names.length === 0) return done;
    const failures = await this.#locking.extend(names, nowMs + this.#locking.periodMs);
    for (const [name, error] of failures) {
      if (isErrorCode(error, ErrorCode.NotFound)) continue;
      done.delete(name);
      this.#counts.failed += 1;
      this.#counts.reason ??= error.message;
    }
    this.#counts.extended += done.size;
    return done;
  }

  /** Keys that were not removed, and the marker, are always needed, and are few: all of them, when there is another one, or half of a period is over. */
  async #extendKeys(): Promise<void> {
    const { kv, clock, storages } = this.#repo;
    const { signal } = this.#options;
    const names: string[] = [];
    const listing = storages
      .store(this.#storage)
      .list(ObjectFolder.keys, signal === undefined ? {} : { signal });
    // One that was removed goes when its lock has run out. Metadata that have none yet tell of no removal.
    const { version, entries } = await readAccessKeys(kv);
    const removed = new Set(
      entries.flatMap(({ accessId, record }) => (record.object === undefined ? [accessId] : [])),
    );
    for await (const { name } of listing) {
      const parsed = parseObjectName(name);
      if (parsed?.type !== "key" || (version > 0 && removed.has(parsed.accessId))) continue;
      names.push(name);
    }
    const nowMs = clock.now();
    const { periodMs } = this.#locking;
    const last = await readLockKeys(kv, this.#storage);
    const isFresh = last !== undefined && nowMs - last.atMs < periodMs / 2;
    if (isFresh && names.every((name) => last.names.includes(name))) return;
    await this.#locking.extendMarker(nowMs + periodMs);
    const extended = await this.#extend(names, nowMs);
    if (extended.size === names.length) {
      await noteLockKeys(kv, this.#storage, { atMs: nowMs, names });
    }
  }
}
