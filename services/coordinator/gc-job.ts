// `ashlar gc`: ends what nobody will resume, collects what nothing refers to, and brings every storage up to date. It may be
// stopped anywhere and run again, and several may run at once: each step is a transaction that looks again.
import { ErrorCode, isErrorCode, type AshlarError } from "#lib/core/errors.ts";
import type { SessionId, StorageId } from "#lib/core/ids.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { parse, range } from "#lib/repository/keyspace.ts";
import { listSessions, type SessionEntry } from "#lib/repository/transactions/session.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { dropRenewals } from "#lib/repository/transactions/renew.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import {
  hasDueTrash,
  measureWaiting,
  type WaitingTrash,
} from "#lib/repository/transactions/locked-trash.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";
import { collect, findHolders, type Collected, type CollectionHolder } from "./collection.ts";
import type { CoordinatorContext } from "./context.ts";
import { endDead, noticeDead } from "./dead-sessions.ts";
import { leaveStorages, queueAllLeaving, type Left } from "./leaving.ts";
import { renewHeads } from "./renew-heads.ts";
import { forgetRetired } from "./retired-storages.ts";
import { planRemoval, type RemovalPlan } from "./plan-removal.ts";
import type { UpkeepOptions } from "#lib/repository/upkeep.ts";

/** What is to be collected. */
export interface GcOptions {
  /** End every dead session at once, instead of keeping it resumable; a live one never. */
  readonly abandon?: boolean;
  /** Compare the storages' listings with the records. */
  readonly sweep?: boolean;
  /** Look through all copies for those that no policy asks for. */
  readonly trim?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: GcProgress) => void;
}

/** Where a collection is. */
export interface GcProgress {
  readonly phase: "collecting" | "filling" | "sweeping" | "deleting";
  readonly storage: StorageId | undefined;
  /** Sealed bytes. */
  readonly bytesDone: number;
}

/** What was done at one storage. */
export interface GcStorage {
  readonly storage: StorageId;
  /** Objects that no record named. */
  readonly orphans: number;
  /** Owed copies that were filled from other storages, and those that stay owed. */
  readonly filled: number;
  readonly owed: number;
  readonly deleted: number;
  readonly deleteFailed: number;
  /** What is to be deleted once its lock has run out; left out where nothing is. */
  readonly waiting?: WaitingTrash;
  /** Objects whose locks were extended; left out where none were. */
  readonly extended?: number;
  /** What could not be done there, as sentences. */
  readonly reasons: readonly string[];
  /** The storage and the metadata do not know each other: nothing was changed there. */
  readonly refused: AshlarError | undefined;
}

/** Outcome of a collection. */
export interface GcResult extends Collected {
  readonly sessionsEnded: number;
  /** Copies, of what is needed elsewhere, that left storages whose policies do not ask for them any more. */
  readonly copiesLeft: number;
  readonly storages: readonly GcStorage[];
  /** Sessions that keep something from being collected. */
  readonly heldBy: readonly CollectionHolder[];
}

/** Collects; see {@link GcOptions}. What goes wrong at one storage is told in the result and does not keep the others. */
export async function collectGarbage(
  context: CoordinatorContext,
  options: GcOptions = {},
): Promise<GcResult> {
  const { repo, settings } = context;
  const { signal, onProgress } = options;
  const sessions = await noticeDead(context);
  const endable = await findEndable(context, sessions, options.abandon === true);
  const sessionsEnded = await endDead(context, sessions, ({ session }) => endable.has(session));
  await forgetRetired(repo, signal);
  await dropVainRenewals(repo, signal);
  await renewHeads(repo, signal);
  await drainRechecks(repo.kv, signal);
  const collected = await collect(repo.kv, {
    signal,
    onRemoved: (bytesDone) => onProgress?.({ phase: "collecting", storage: undefined, bytesDone }),
  });
  await repo.kv.flush();
  const storages = (await listStorages(repo.kv))
    .filter(({ record }) => record.state !== "retired")
    .map(({ storage }) => new TendedStorage(context, storage, options));
  // Heads and owed copies first, everywhere: what they replace goes to trash, and a removal is forgotten only when all
  // storages know of it.
  for (const storage of storages) await storage.attempt(() => storage.fill());
  for (const storage of storages) await storage.attempt(() => storage.clean());
  const trimmed = await trim(context, storages, options);
  // Filled copies may have been what a mark waited for.
  await drainRechecks(repo.kv, signal);
  const heldBy = await findHolders(repo.kv, settings.resumeWindowMs);
  return {
    ...collected,
    copiesLeft: trimmed.reduce((sum, { copies }) => sum + copies, 0),
    bytesFreed: collected.bytesFreed + trimmed.reduce((sum, { bytes }) => sum + bytes, 0),
    sessionsEnded,
    storages: storages.map((storage) => storage.outcome()),
    heldBy,
  };
}

/** Objects that were to take the place of copies that have gone. */
async function dropVainRenewals({ kv }: Repository, signal?: AbortSignal): Promise<void> {
  let from: Buffer | undefined;
  do {
    signal?.throwIfAborted();
    from = await dropRenewals(kv, from);
  } while (from !== undefined);
}

/** Heads that went to trash are gone by now, so that what they name can follow; and what followed is deleted. */
async function trim(
  { repo }: CoordinatorContext,
  storages: readonly TendedStorage[],
  { trim: looksThroughAll, signal }: GcOptions,
): Promise<Left[]> {
  if (looksThroughAll === true) {
    for (const { id } of storages) await queueAllLeaving(repo, id, signal);
  }
  const left = await leaveStorages(repo, signal);
  if (left.length > 0) await repo.kv.flush();
  for (const storage of storages) {
    if (left.some((each) => each.storage === storage.id)) {
      await storage.attempt(() => storage.clean());
    }
  }
  return left;
}

/** What {@link collectGarbage} would free now; nothing is changed. */
export async function planCollection(
  context: CoordinatorContext,
  options: Pick<GcOptions, "abandon" | "signal"> = {},
): Promise<RemovalPlan> {
  const { repo, isOwnerAlive } = context;
  const sessions: SessionEntry[] = [];
  for (const entry of await listSessions(repo.kv)) {
    const { record } = entry;
    const isVanished = record.state === "live" && !isOwnerAlive(entry);
    const endedMs = repo.clock.now();
    sessions.push(isVanished ? { ...entry, record: { ...record, state: "dead", endedMs } } : entry);
  }
  const endable = await findEndable(context, sessions, options.abandon === true);
  const { signal } = options;
  return planRemoval(repo, [], { endedSessions: [...endable], ...(signal && { signal }) });
}

/** The sessions that nobody will resume: ended, or dead and abandoned, too old, or superseded. */
async function findEndable(
  context: CoordinatorContext,
  sessions: readonly SessionEntry[],
  abandon: boolean,
): Promise<Set<SessionId>> {
  const { repo, settings } = context;
  const out = new Set<SessionId>();
  for (const entry of sessions) {
    const { state, kind, endedMs } = entry.record;
    if (state === "live") continue;
    const isOld = repo.clock.now() - (endedMs ?? 0) > settings.resumeWindowMs;
    // Only backups are gone on with.
    const isUseless = state === "ended" || kind !== "backup" || abandon || isOld;
    if (isUseless || (await isSuperseded(repo.kv, entry))) out.add(entry.session);
  }
  return out;
}

/** Another version of the volume has turned valid since the backup began. */
async function isSuperseded(kv: Kv, { record }: SessionEntry): Promise<boolean> {
  const [latest] = await kv.read((reader) =>
    reader.range({ ...range.volume(record.volume), limit: 1, reverse: true }),
  );
  return latest !== undefined && parse.volume(latest.key).createdMs > record.startedMs;
}

/** One storage while a collection tends it. */
class TendedStorage {
  readonly #context: CoordinatorContext;
  readonly #storage: StorageId;
  readonly #options: GcOptions;
  readonly #reasons = new Set<string>();
  #orphans = 0;
  #filled = 0;
  #owed = 0;
  #deleted = 0;
  #deleteFailed = 0;
  #extended = 0;
  #waiting: WaitingTrash | undefined;
  #refused: AshlarError | undefined;

  constructor(context: CoordinatorContext, storage: StorageId, options: GcOptions) {
    this.#context = context;
    this.#storage = storage;
    this.#options = options;
  }

  get id(): StorageId {
    return this.#storage;
  }

  /** Does a piece of work, unless the storage and the metadata turned out not to know each other. */
  async attempt(work: () => Promise<void>): Promise<void> {
    if (this.#refused !== undefined) return;
    try {
      await work();
    } catch (error) {
      this.#options.signal?.throwIfAborted();
      if (!isErrorCode(error, ErrorCode.Refused)) throw error;
      this.#refused = error;
      this.#reasons.add(error.message);
    }
  }

  async fill(): Promise<void> {
    const { upkeep } = this.#context;
    const storage = this.#storage;
    const watched = this.#watched("filling");
    const { filled, owed, reason } = await upkeep.fill(storage, watched);
    this.#filled += filled;
    this.#owed = owed;
    if (owed > 0 && reason !== undefined) this.#reasons.add(reason);
    // Also where nothing new is taken: a removal is told to every storage that counts.
    for (const heads of await upkeep.putHeads({ storage }, watched)) {
      if (heads.owed > 0 && heads.reason !== undefined) this.#reasons.add(heads.reason);
    }
  }

  async clean(): Promise<void> {
    const { upkeep, repo } = this.#context;
    const { signal } = this.#options;
    if (this.#options.sweep === true) {
      const swept = await upkeep.sweep(this.#storage, this.#watched("sweeping"));
      this.#orphans = swept.orphans;
      if (swept.reason !== undefined) this.#reasons.add(swept.reason);
    }
    // After collecting: what nothing needs any more is not extended.
    const { extended, reason } = await upkeep.extendLocks(
      this.#storage,
      signal === undefined ? {} : { signal },
    );
    this.#extended += extended;
    if (reason !== undefined) this.#reasons.add(reason);
    if (await hasDueTrash(repo.kv, this.#storage, repo.clock.now())) await this.#delete();
    const waiting = await measureWaiting(repo.kv, this.#storage);
    this.#waiting = waiting.objects > 0 ? waiting : undefined;
  }

  async #delete(): Promise<void> {
    const run = await this.#context.upkeep.runDeletions(this.#storage, this.#watched("deleting"));
    this.#deleted += run.deleted;
    this.#deleteFailed = run.failed;
    if (run.reason !== undefined) this.#reasons.add(run.reason);
    // A storage that was full has room now.
    if (this.#owed > 0 && run.deleted > 0) await this.fill();
  }

  #watched(phase: GcProgress["phase"]): UpkeepOptions {
    const { signal, onProgress } = this.#options;
    return {
      ...(signal && { signal }),
      onProgress: (bytesDone) => onProgress?.({ phase, storage: this.#storage, bytesDone }),
    };
  }

  outcome(): GcStorage {
    return {
      storage: this.#storage,
      orphans: this.#orphans,
      filled: this.#filled,
      owed: this.#owed,
      deleted: this.#deleted,
      deleteFailed: this.#deleteFailed,
      ...(this.#extended === 0 ? {} : { extended: this.#extended }),
      ...(this.#waiting === undefined ? {} : { waiting: this.#waiting }),
      reasons: [...this.#reasons],
      refused: this.#refused,
    };
  }
}
