// When the locks of a storage's objects are extended (docs/storages.md, "Object lock"). What is placed at a storage that locks stands in
// a queue by the time at which it is due.
//
// An object is due at times of its own, half a period apart, that follow from its name. So it stands in the queue once, whoever puts it
// there: a transaction that comes twice, a copy that is placed again, the walk over what was there before. And what was put at one time
// is not due at one time.
import type { StorageId } from "#lib/core/ids.ts";
import type { KvReader, KvTransaction } from "#lib/ports/kv.ts";
import { key } from "./keyspace.ts";
import { decodeRecord, type StorageRecord } from "./records.ts";

const EMPTY = Buffer.alloc(0);
const DIGITS = 12;

/** Where in the interval an object's times are, 0 to 1: all names end in random digits. */
function phaseOf(name: string): number {
  const digits = Number.parseInt(name.slice(-DIGITS), 16);
  return Number.isNaN(digits) ? 0 : digits / 16 ** DIGITS;
}

/** An object's next time that is more than half an interval away, and at most one and a half. */
function nextTime(name: string, nowMs: number, intervalMs: number): number {
  const interval = Math.max(1, Math.floor(intervalMs));
  const first = nowMs + Math.floor(interval / 2) + 1;
  const offset = (Math.floor(phaseOf(name) * interval) - first) % interval;
  return first + (offset < 0 ? offset + interval : offset);
}

/**
 * When an object is due that is locked for a whole period from now on: half a period from now in the mean, and never later than
 * three quarters, so that a quarter is left for whoever is late.
 */
export function nextDue(name: string, nowMs: number, lockMs: number): number {
  return nextTime(name, nowMs, lockMs / 2);
}

/** When to look again at an object that nothing needs now, though its record is there: it may be needed again. */
export function nextLook(name: string, nowMs: number, lockMs: number): number {
  return nextTime(name, nowMs, lockMs / 8);
}

/** What transactions have read of storages: nobody reads the same record twice for this. A transaction that is run again is another one. */
const known = new WeakMap<KvReader, Map<StorageId, number | undefined>>();

/** Remembers for a transaction what the record of a storage says, which it has read. */
export function rememberLock(
  tx: KvReader,
  storage: StorageId,
  record: StorageRecord | undefined,
): void {
  const locks = known.get(tx) ?? new Map<StorageId, number | undefined>();
  known.set(tx, locks);
  locks.set(storage, record?.lockMs);
}

/** For how long a storage locks its objects, in ms, as its record says in this transaction; undefined where it does not. */
export async function lockAt(tx: KvReader, storage: StorageId): Promise<number | undefined> {
  const locks = known.get(tx);
  if (locks?.has(storage) === true) return locks.get(storage);
  const value = await tx.get(key.storage(storage));
  rememberLock(tx, storage, value === undefined ? undefined : decodeRecord(value));
  return known.get(tx)?.get(storage);
}

/** An object was put some time ago, and its lock may have run out: it is due now. */
export function queueLockNow(
  tx: KvTransaction,
  storage: StorageId,
  name: string,
  nowMs: number,
): void {
  tx.set(key.lock(storage, nowMs, name), EMPTY);
}

/** An object was put lately, or its lock extended, at `nowMs`: it is due for the next time. */
export function queueLock(
  tx: KvTransaction,
  storage: StorageId,
  lockMs: number,
  name: string,
  nowMs: number,
): void {
  tx.set(key.lock(storage, nextDue(name, nowMs, lockMs), name), EMPTY);
}
