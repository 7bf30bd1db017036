// What is going on in a repository: sessions, what is owed, what waits to be deleted, and who holds collection up.
import type { SessionId, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { countKeys, type BoundedCount } from "#lib/repository/count-keys.ts";
import { range } from "#lib/repository/keyspace.ts";
import { readEpoch } from "#lib/repository/ledger.ts";
import type { SessionKind, SessionRecord, StorageState } from "#lib/repository/records.ts";
import { listSessions, type SessionEntry } from "#lib/repository/transactions/session.ts";
import { readLockStatus, type LockStatus } from "#lib/repository/transactions/lock.ts";
import { measureWaiting, type WaitingTrash } from "#lib/repository/transactions/locked-trash.ts";
import { currentRun, listStorages } from "#lib/repository/transactions/storage.ts";
import { listVerify } from "#lib/repository/transactions/verify.ts";
import { findHolders } from "./collection.ts";

/** A session, as it is. `vanished`: recorded live, but its process is gone; the next command will notice. */
export interface SessionStatus {
  readonly session: SessionId;
  readonly kind: SessionKind;
  readonly state: "live" | "vanished" | "dead" | "ended";
  readonly uid: VersionUid;
  readonly volume: string;
  readonly host: string;
  readonly startedMs: number;
  readonly heartbeatMs: number;
  readonly horizon: number | undefined;
  /** Why it keeps something from being collected, for people; undefined where it does not. */
  readonly holdsUp: string | undefined;
}

/** What a storage has before it. */
export interface StorageStatus {
  readonly storage: StorageId;
  readonly name: string;
  readonly site: string;
  readonly state: StorageState;
  readonly owedCopies: BoundedCount;
  readonly owedHeads: BoundedCount;
  readonly trash: BoundedCount;
  /** What is to be deleted once its lock has run out. */
  readonly waiting: WaitingTrash;
  /** Undefined where it does not lock its objects. */
  readonly lock: LockStatus | undefined;
  /** When the copy that was verified longest ago was; undefined where there is none. */
  readonly oldestVerifiedMs: number | undefined;
  /** Number of the last run that deleted there. */
  readonly run: number;
}

/** The repository's state. */
export interface RepositoryStatus {
  readonly epoch: number;
  readonly sessions: readonly SessionStatus[];
  readonly storages: readonly StorageStatus[];
  /** Lost a reference; the collector has not looked yet. */
  readonly unreferenced: BoundedCount;
  /** Will be removed once every live backup has moved on. */
  readonly condemned: BoundedCount;
  /** Marks of damage that have yet to be passed on to the versions. */
  readonly rechecks: BoundedCount;
}

/** Reads the state. `isOwnerAlive` tells whether the process that runs a session is still there. */
export async function readStatus(
  kv: Kv,
  isOwnerAlive: (entry: SessionEntry) => boolean,
  resumeWindowMs: number,
): Promise<RepositoryStatus> {
  const holders = await findHolders(kv, resumeWindowMs);
  const sessions = (await listSessions(kv)).map((entry) => {
    const alive = entry.record.state !== "live" || isOwnerAlive(entry);
    const holder = holders.find(({ session }) => session === entry.session);
    return sessionStatus(entry, alive, holder?.reason);
  });
  const storages: StorageStatus[] = [];
  const known = (await listStorages(kv)).toSorted((a, b) =>
    a.record.name < b.record.name ? -1 : 1,
  );
  for (const { storage, record } of known) {
    storages.push({
      storage,
      name: record.name,
      site: record.site,
      state: record.state,
      owedCopies: await countKeys(kv, range.owed(storage)),
      owedHeads: await countKeys(kv, range.owedHeads(storage)),
      trash: await countKeys(kv, range.trash(storage)),
      waiting: await measureWaiting(kv, storage),
      lock: await readLockStatus(kv, storage),
      oldestVerifiedMs: (await listVerify(kv, storage, undefined, 1)).copies[0]?.lastMs,
      run: await currentRun(kv, storage),
    });
  }
  return {
    epoch: await kv.read(readEpoch),
    sessions,
    storages,
    unreferenced: await countKeys(kv, range.unreferenced()),
    condemned: await countKeys(kv, range.condemned()),
    rechecks: await countKeys(kv, range.rechecks()),
  };
}

/** What a storage is owed; counts that stop at a million. */
export async function countOwed(
  kv: Kv,
  storage: StorageId,
): Promise<{ readonly copies: number; readonly heads: number }> {
  return {
    copies: (await countKeys(kv, range.owed(storage))).count,
    heads: (await countKeys(kv, range.owedHeads(storage))).count,
  };
}

function sessionStatus(
  entry: SessionEntry,
  alive: boolean,
  holdsUp: string | undefined,
): SessionStatus {
  const { record, session, heartbeatMs, horizon } = entry;
  return {
    session,
    kind: record.kind,
    state: stateOf(record, alive),
    uid: record.uid,
    volume: record.volume,
    host: record.host,
    startedMs: record.startedMs,
    heartbeatMs,
    horizon,
    holdsUp,
  };
}

function stateOf(record: SessionRecord, alive: boolean): SessionStatus["state"] {
  return record.state === "live" && !alive ? "vanished" : record.state;
}
