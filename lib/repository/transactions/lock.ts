// Locks of objects are extended for as long as the objects are needed (docs/storages.md, "Object lock"): the queue of what is due, and
// taking in what lay at a storage before it locked.
//
// An entry stays for as long as a record names its object there, needed or not: what nothing refers to now may be known to a backup
// and be referred to again.
import { assert } from "#lib/core/assert.ts";
import type { BlockId, StorageId } from "#lib/core/ids.ts";
import type { BlobLocking } from "#lib/ports/blob-store.ts";
import type { Kv, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import { parseObjectName } from "#proto/object-names.ts";
import { decodeBlockRecord, isLeaving } from "../block-record.ts";
import { key, keyAfter, objectName, parse, range } from "../keyspace.ts";
import { BATCH_MAX, hasReference, readBlock } from "../ledger.ts";
import {
  decodeRecord,
  encodeRecord,
  type HeadAtRecord,
  type LockKeysRecord,
  type LockWalkRecord,
  type StorageRecord,
} from "../records.ts";
import { lockAt, nextLook, queueLock } from "../storage-lock.ts";

/** An object whose lock is due. */
export interface DueLock {
  readonly name: string;
  readonly dueMs: number;
}

/** `keep`: its lock is to be extended. `idle`: named, and needed by nobody now. `gone`: named no more. */
export type LockVerdict = "keep" | "idle" | "gone";

const EMPTY = Buffer.alloc(0);
/** Objects judged in one transaction: each may read a record and a reference. */
export const LOCK_STEP = BATCH_MAX / 4;
const DROP_STEP = 1000;

/**
 * Records how a storage locks its objects, or that it does not. One that locks from now on has what lies there taken in.
 * @returns whether anything is different now
 */
export async function setStorageLock(
  kv: Kv,
  storage: StorageId,
  lock: Pick<BlobLocking, "mode" | "periodMs"> | undefined,
): Promise<boolean> {
  const lockMs = lock?.periodMs;
  const isSame = (record: StorageRecord | undefined): boolean =>
    record === undefined ||
    record.state === "retired" ||
    (record.lockMs === lockMs && record.lockMode === lock?.mode);
  if (isSame(await kv.read((reader) => readStorage(reader, storage)))) return false;
  return kv.transact(
    async (tx) => {
      const record = await readStorage(tx, storage);
      if (record === undefined || isSame(record)) return false;
      const { lockMs: before, lockMode: _, ...rest } = record;
      const changed: StorageRecord =
        lock === undefined ? rest : { ...rest, lockMs: lock.periodMs, lockMode: lock.mode };
      tx.set(key.storage(storage), encodeRecord(changed));
      if (before === undefined) {
        const walk: LockWalkRecord = { folder: "blocks" };
        tx.set(key.lockWalk(storage), encodeRecord(walk));
      }
      if (lockMs === undefined) {
        tx.clear(key.lockWalk(storage));
        tx.clear(key.lockKeys(storage));
      }
      return true;
    },
    { label: "free:lock" },
  );
}

async function readStorage(
  reader: KvReader,
  storage: StorageId,
): Promise<StorageRecord | undefined> {
  const value = await reader.get(key.storage(storage));
  return value === undefined ? undefined : decodeRecord<StorageRecord>(value);
}

/** Where a storage locks no more: drops some of its queue; whether there is more. Locks that are there run out by themselves. */
export function dropLocks(kv: Kv, storage: StorageId): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      if ((await lockAt(tx, storage)) !== undefined) return false;
      const entries = await tx.range({ ...range.locks(storage), limit: DROP_STEP });
      for (const entry of entries) tx.clear(entry.key);
      return entries.length === DROP_STEP;
    },
    { durable: false, label: "free:lock" },
  );
}

/**
 * Takes in some of what lay at a storage before it locked; all of it is due at once. Whoever places a copy meanwhile sees that the
 * storage locks, and queues it, so a snapshot is enough.
 * @returns whether there is more
 */
export function lockWalkStep(kv: Kv, storage: StorageId, nowMs: number): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const value = await tx.get(key.lockWalk(storage));
      if (value === undefined || (await lockAt(tx, storage)) === undefined) return false;
      const walk = decodeRecord<LockWalkRecord>(value);
      const whole = walk.folder === "blocks" ? range.blocks() : range.headsAt(storage);
      const start = walk.from === undefined ? whole.start : Buffer.from(walk.from, "hex");
      const entries = await tx.snapshot.range({ start, end: whole.end, limit: LOCK_STEP });
      for (const entry of entries) {
        const name =
          walk.folder === "blocks"
            ? placedName(storage, entry.key, entry.value)
            : confirmedName(entry.key, entry.value);
        if (name !== undefined) tx.set(key.lock(storage, nowMs, name), EMPTY);
      }
      const last = entries.at(-1);
      const next = last === undefined || entries.length < LOCK_STEP ? undefined : last.key;
      const after: LockWalkRecord | undefined =
        next !== undefined
          ? { folder: walk.folder, from: keyAfter(next).toString("hex") }
          : walk.folder === "blocks"
            ? { folder: "heads" }
            : undefined;
      if (after === undefined) tx.clear(key.lockWalk(storage));
      else tx.set(key.lockWalk(storage), encodeRecord(after));
      return after !== undefined;
    },
    { durable: false, label: "free:lock" },
  );
}

function placedName(storage: StorageId, at: Buffer, value: Buffer): string | undefined {
  const { kind, copies } = decodeBlockRecord(value);
  const copy = copies.find((each) => each.storage === storage && each.state === "placed");
  return copy === undefined ? undefined : objectName(kind, parse.block(at), copy.generation);
}

function confirmedName(at: Buffer, value: Buffer): string | undefined {
  const { state } = decodeRecord<HeadAtRecord>(value);
  return state === "confirmed" ? parse.headAt(at).name : undefined;
}

/** Some of what is due at `nowMs`, from `from` on, with what is to become of it. */
export function listDueLocks(
  kv: Kv,
  storage: StorageId,
  nowMs: number,
  from: Buffer | undefined,
): Promise<{
  readonly due: readonly (DueLock & { readonly verdict: LockVerdict })[];
  readonly next: Buffer | undefined;
}> {
  const { start, end } = range.locks(storage, nowMs);
  return kv.read(async (reader) => {
    const entries = await reader.range({ start: from ?? start, end, limit: LOCK_STEP });
    const due: (DueLock & { readonly verdict: LockVerdict })[] = [];
    for (const entry of entries) {
      const { dueMs, name } = parse.lock(entry.key);
      due.push({ name, dueMs, verdict: await judge(reader, storage, name) });
    }
    const last = entries.at(-1);
    const next = last === undefined || entries.length < LOCK_STEP ? undefined : keyAfter(last.key);
    return { due, next };
  });
}

async function judge(reader: KvReader, storage: StorageId, name: string): Promise<LockVerdict> {
  const parsed = parseObjectName(name);
  switch (parsed?.type) {
    case "block":
    case "node": {
      const id = parsed.id as BlockId;
      const record = await readBlock(reader, id);
      const copy = record?.copies.find(
        (each) => each.storage === storage && each.generation === parsed.generation,
      );
      if (record?.kind !== parsed.type || copy === undefined) return "gone";
      // What leaves the storage does so without one lock more.
      const isNeeded =
        copy.state === "placed" && !isLeaving(copy) && record.condemnedEpoch === undefined;
      return isNeeded && (await hasReference(reader, id)) ? "keep" : "idle";
    }
    case "head": {
      const value = await reader.get(key.headAt(storage, name));
      const isNeeded =
        value !== undefined && decodeRecord<HeadAtRecord>(value).state === "confirmed";
      return isNeeded ? "keep" : "gone";
    }
    default:
      return "gone";
  }
}

/**
 * What was due is due again: after a period where its lock was extended, and sooner where it was not, for want of a reference. What is
 * referred to only now stays due. Lands twice, or late, without harm: an entry that is not there any more was settled.
 * @param extended names of objects that are locked for a whole period from `nowMs` on
 */
export function settleLocks(
  kv: Kv,
  storage: StorageId,
  due: readonly DueLock[],
  extended: ReadonlySet<string>,
  nowMs: number,
): Promise<void> {
  assert(due.length <= LOCK_STEP, "a batch of locks is bounded");
  return kv.transact(
    async (tx) => {
      const lockMs = await lockAt(tx, storage);
      if (lockMs === undefined) return;
      const keys = due.map(({ name, dueMs }) => key.lock(storage, dueMs, name));
      const present = await tx.getMany(keys);
      for (const [index, { name }] of due.entries()) {
        if (present[index] === undefined) continue;
        const verdict = await judge(tx, storage, name);
        if (verdict === "keep" && !extended.has(name)) continue;
        tx.clear(keys[index] as Buffer);
        if (verdict === "gone") continue;
        if (extended.has(name)) queueLock(tx, storage, lockMs, name, nowMs);
        else tx.set(key.lock(storage, nextLook(name, nowMs, lockMs), name), EMPTY);
      }
    },
    { durable: false, label: "free:lock" },
  );
}

/** The key objects whose locks were last extended; undefined where none were. */
export function readLockKeys(kv: Kv, storage: StorageId): Promise<LockKeysRecord | undefined> {
  return kv.read(async (reader) => {
    const value = await reader.get(key.lockKeys(storage));
    return value === undefined ? undefined : decodeRecord<LockKeysRecord>(value);
  });
}

/** Notes that the locks of key objects, and of the marker, were extended. */
export function noteLockKeys(kv: Kv, storage: StorageId, record: LockKeysRecord): Promise<void> {
  return kv.transact(
    (tx: KvTransaction) => {
      tx.set(key.lockKeys(storage), encodeRecord(record));
      return Promise.resolve();
    },
    { durable: false, label: "free:lock" },
  );
}

/** How a storage locks. */
export interface LockStatus {
  /** For so long, in ms. */
  readonly lockMs: number;
  /** When the first lock is to be extended, in ms since 1970: in the past where nobody has come to it yet. */
  readonly firstDueMs: number | undefined;
  /** What lay there before is still being taken in. */
  readonly isTakingIn: boolean;
}

/** How a storage locks its objects; undefined where it does not. */
export function readLockStatus(kv: Kv, storage: StorageId): Promise<LockStatus | undefined> {
  return kv.read(async (reader) => {
    const lockMs = await lockAt(reader, storage);
    if (lockMs === undefined) return undefined;
    const [first] = await reader.range({ ...range.locks(storage), limit: 1 });
    return {
      lockMs,
      firstDueMs: first === undefined ? undefined : parse.lock(first.key).dueMs,
      isTakingIn: (await reader.get(key.lockWalk(storage))) !== undefined,
    };
  });
}
