// What every transaction on block records shares: reading the fences, and saving a record together with all the queue
// entries that follow from it. The queues are derived from the difference between the old and the new record, in one
// place, so that no transaction can forget one.
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, Generation, SessionId, StorageId, Token } from "#lib/core/ids.ts";
import type { KvReader, KvTransaction } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { SHORT_ID_BYTES } from "#lib/core/ids.ts";
import {
  currentAt,
  decodeBlockRecord,
  encodeBlockRecord,
  hasGoodCopy,
  isLeaving,
  placedAt,
  type BlockRecord,
  type Copy,
} from "./block-record.ts";
import { key, objectName, range } from "./keyspace.ts";
import { lockAt, queueLock, queueLockNow, rememberLock } from "./storage-lock.ts";
import { decodeRecord, type Policy, type SessionRecord, type StorageRecord } from "./records.ts";

const EMPTY = Buffer.alloc(0);

/** The largest number of records that one transaction touches (DESIGN §3: milliseconds in LMDB, far below FoundationDB's limits). */
export const BATCH_MAX = 256;

/** A new random generation. */
export function newGeneration(random: Random): Generation {
  return random.bytes(SHORT_ID_BYTES).toString("hex") as Generation;
}

/** An unsigned counter as an 8-byte little-endian value; absent counts as `initial`. */
export async function readCounter(reader: KvReader, at: Buffer, initial: number): Promise<number> {
  const value = await reader.get(at);
  return value === undefined ? initial : Number(value.readBigUInt64LE(0));
}

/** Sets a counter of {@link readCounter}. */
export function writeCounter(tx: KvTransaction, at: Buffer, value: number): void {
  const out = Buffer.allocUnsafe(8);
  out.writeBigUInt64LE(BigInt(value));
  tx.set(at, out);
}

/** The current epoch (DESIGN §4.5); 1 in a new repository. */
export function readEpoch(reader: KvReader): Promise<number> {
  return readCounter(reader, key.epoch, 1);
}

/** The run number of a storage (DESIGN §4.10); 0 before the first run. */
export function readRun(reader: KvReader, storage: StorageId): Promise<number> {
  return readCounter(reader, key.run(storage), 0);
}

/** A session's record, or undefined. */
export async function readSession(
  reader: KvReader,
  session: SessionId,
): Promise<SessionRecord | undefined> {
  const value = await reader.get(key.session(session));
  return value === undefined ? undefined : decodeRecord<SessionRecord>(value);
}

/** The fence: the session is live under this token, else Fenced. */
export async function requireSession(
  tx: KvReader,
  session: SessionId,
  token: Token,
): Promise<SessionRecord> {
  const record = await readSession(tx, session);
  if (record === undefined || record.state !== "live" || record.token !== token) {
    throw new AshlarError(
      ErrorCode.Fenced,
      `session ${session} is ${record === undefined ? "gone" : record.state === "live" ? "taken over" : record.state}`,
      { remedy: "run the command again: it resumes where this one stopped" },
    );
  }
  return record;
}

/** The storages of a policy, as their records say in this transaction. */
export interface PolicyStorages {
  readonly quorum: number;
  /** Count for the quorum: in use or readonly. */
  readonly counting: readonly StorageId[];
  /** Get new copies: in use. */
  readonly taking: readonly StorageId[];
  /** Are there no more, and never will be. */
  readonly retired: readonly StorageId[];
}

/** Reads the storages of a policy: a storage counts only while its record says so. */
export async function readPolicyStorages(
  reader: KvReader,
  policy: Policy,
): Promise<PolicyStorages> {
  const values = await reader.getMany(policy.storages.map((storage) => key.storage(storage)));
  const counting: StorageId[] = [];
  const taking: StorageId[] = [];
  const retired: StorageId[] = [];
  for (const [index, storage] of policy.storages.entries()) {
    const value = values[index];
    const record = value === undefined ? undefined : decodeRecord<StorageRecord>(value);
    const state = record?.state ?? "retired";
    rememberLock(reader, storage, record);
    if (state === "in-use" || state === "readonly") counting.push(storage);
    if (state === "in-use") taking.push(storage);
    if (state === "retired") retired.push(storage);
  }
  return { quorum: policy.quorum, counting, taking, retired };
}

/** Block records by id, in order. */
export async function readBlocks(
  reader: KvReader,
  ids: readonly BlockId[],
): Promise<(BlockRecord | undefined)[]> {
  const values = await reader.getMany(ids.map((id) => key.block(id)));
  return values.map((value) => (value === undefined ? undefined : decodeBlockRecord(value)));
}

/** One block record. */
export async function readBlock(reader: KvReader, id: BlockId): Promise<BlockRecord | undefined> {
  const value = await reader.get(key.block(id));
  return value === undefined ? undefined : decodeBlockRecord(value);
}

/** Whether anything refers to the block or node. */
export async function hasReference(tx: KvReader, id: BlockId): Promise<boolean> {
  return (await tx.range({ ...range.references(id), limit: 1 })).length > 0;
}

/** Queues an id whose references have become fewer; the collector looks at it. */
export function queueUnreferenced(tx: KvTransaction, id: BlockId): void {
  tx.set(key.unreferenced(id), EMPTY);
}

/** Writes a trash entry for an object that no record names, with the run number that this transaction reads. */
export async function queueTrash(
  tx: KvTransaction,
  storage: StorageId,
  name: string,
): Promise<void> {
  const run = await readRun(tx, storage);
  writeCounter(tx, key.trash(storage, name), run);
}

/** Queues a re-check of marks (DESIGN §4.8); one that is climbing already starts its climb again. */
export async function queueRecheck(tx: KvTransaction, id: BlockId): Promise<void> {
  const current = await tx.get(key.recheck(id));
  tx.set(key.recheck(id), current !== undefined && current.length > 0 ? Buffer.of(1) : EMPTY);
}

const copyName = (copy: Copy): string => `${copy.storage}${copy.generation}`;

/**
 * Saves a record (or removes it: `changed` undefined) with everything that follows from the difference: dropped copies go
 * to trash, the owed, verify and condemned queues and the re-check queue are kept true.
 */
export async function saveBlock(
  tx: KvTransaction,
  id: BlockId,
  before: BlockRecord | undefined,
  changed: BlockRecord | undefined,
): Promise<void> {
  const after = changed === undefined ? undefined : withoutMark(tx, id, changed);
  const kind = (after ?? before)?.kind;
  assert(kind !== undefined, "a record is made, changed or removed");
  if (after === undefined) tx.clear(key.block(id));
  else {
    assertRecord(id, after);
    tx.set(key.block(id), encodeBlockRecord(after));
  }
  if (before !== undefined) await trashDropped(tx, id, kind, before, after);
  if (after !== undefined) await saveLocks(tx, id, before, after);
  saveQueues(tx, id, before, after);
  await saveMarks(tx, id, before, after);
}

/** Saves the record of a block that had none and is merely coming: it stands in no queue. */
export function saveNewBlock(tx: KvTransaction, id: BlockId, record: BlockRecord): void {
  assert(isOnlyComing(record) && !record.damaged, "a new block is coming");
  assertRecord(id, record);
  tx.set(key.block(id), encodeBlockRecord(record));
}

async function trashDropped(
  tx: KvTransaction,
  id: BlockId,
  kind: BlockRecord["kind"],
  before: BlockRecord,
  after: BlockRecord | undefined,
): Promise<void> {
  const kept = new Set((after?.copies ?? []).map(copyName));
  for (const copy of before.copies) {
    if (!kept.has(copyName(copy))) {
      await queueTrash(tx, copy.storage, objectName(kind, id, copy.generation));
    }
  }
}

/** What turns *placed* at a storage that locks has its lock extended from now on, for as long as it is needed. */
async function saveLocks(
  tx: KvTransaction,
  id: BlockId,
  before: BlockRecord | undefined,
  after: BlockRecord,
): Promise<void> {
  for (const copy of after.copies) {
    if (copy.state !== "placed") continue;
    const { storage, generation, verifiedMs } = copy;
    const old = before === undefined ? undefined : placedAt(before, storage);
    if (old?.generation === generation) continue;
    const lockMs = await lockAt(tx, storage);
    if (lockMs === undefined) continue;
    const name = objectName(after.kind, id, generation);
    const wasBad = before?.copies.some(
      (each) => each.state === "bad" && each.storage === storage && each.generation === generation,
    );
    if (wasBad === true) queueLockNow(tx, storage, name, verifiedMs);
    else queueLock(tx, storage, lockMs, name, verifiedMs);
  }
}

/**
 * A block that has a good copy again loses its mark at once, and its parents are told: a backup that brings a damaged block
 * goes on to commit its leaf, and need not wait until somebody works off the re-check queue.
 */
function withoutMark(tx: KvTransaction, id: BlockId, record: BlockRecord): BlockRecord {
  if (record.kind !== "block" || !record.damaged || !hasGoodCopy(record)) return record;
  tx.set(key.recheck(id), Buffer.of(1));
  return { ...record, damaged: false };
}

function assertRecord(id: BlockId, record: BlockRecord): void {
  if (record.copies.length < 2) return;
  const seen = new Set<string>();
  for (const copy of record.copies) {
    const slot = `${copy.storage}${copy.state === "bad" ? "bad" : ""}`;
    assert(!seen.has(slot), `two copies of ${id} at storage ${copy.storage}`);
    seen.add(slot);
  }
}

const NO_KEYS: ReadonlyMap<string, Buffer> = new Map();

function isOnlyComing({ condemnedEpoch, copies }: BlockRecord): boolean {
  return condemnedEpoch === undefined && copies.every((copy) => copy.state === "coming");
}

function saveQueues(
  tx: KvTransaction,
  id: BlockId,
  before: BlockRecord | undefined,
  after: BlockRecord | undefined,
): void {
  const keysOf = (record: BlockRecord | undefined): ReadonlyMap<string, Buffer> => {
    // What is merely coming, as every new block is, stands in no queue.
    if (record === undefined || isOnlyComing(record)) return NO_KEYS;
    const keys = new Map<string, Buffer>();
    const add = (bytes: Buffer): void => void keys.set(bytes.toString("latin1"), bytes);
    for (const copy of record.copies) {
      if (copy.state === "owed") add(key.owed(copy.storage, id));
      if (copy.state === "placed") add(key.verify(copy.storage, copy.verifiedMs, id));
    }
    if (record.condemnedEpoch !== undefined) add(key.condemned(record.condemnedEpoch, id));
    return keys;
  };
  const old = keysOf(before);
  const now = keysOf(after);
  for (const [text, bytes] of old) if (!now.has(text)) tx.clear(bytes);
  for (const [text, bytes] of now) if (!old.has(text)) tx.set(bytes, EMPTY);
}

async function saveMarks(
  tx: KvTransaction,
  id: BlockId,
  before: BlockRecord | undefined,
  after: BlockRecord | undefined,
): Promise<void> {
  if (after === undefined) {
    tx.clear(key.recheck(id));
    return;
  }
  if (before === undefined) return;
  const lost = hasGoodCopy(before) && !hasGoodCopy(after);
  const gained = before.damaged && hasGoodCopy(after) && !hasGoodCopy(before);
  if (lost || gained) await queueRecheck(tx, id);
}

/** The record with the condemnation lifted; the id goes back to the `unref` queue (DESIGN §4.1, §4.3). */
export function revive(tx: KvTransaction, id: BlockId, record: BlockRecord): BlockRecord {
  if (record.condemnedEpoch === undefined) return record;
  queueUnreferenced(tx, id);
  return { ...record, condemnedEpoch: undefined };
}

/** The record whose copies at these storages stay: somebody relies on them (DESIGN §4.5). */
export function rely(record: BlockRecord, storages: readonly StorageId[]): BlockRecord {
  if (record.leavingEpoch === undefined) return record;
  const isRelied = (copy: Copy): boolean => isLeaving(copy) && storages.includes(copy.storage);
  if (!record.copies.some(isRelied)) return record;
  return {
    ...record,
    copies: record.copies.map((copy) => {
      if (!isRelied(copy)) return copy;
      const { leaving: _, ...stays } = copy as Extract<Copy, { state: "placed" }>;
      return stays;
    }),
  };
}

/** The record with the storage's current copy replaced by `copy` (added where there was none). */
export function withCopy(record: BlockRecord, copy: Copy): BlockRecord {
  const copies = record.copies.filter(
    (other) => other.storage !== copy.storage || other.state === "bad",
  );
  return { ...record, copies: [...copies, copy] };
}

/** The record with the named copy placed; a bad one at that storage is dropped, now that there is a good one. */
export function withPlaced(
  record: BlockRecord,
  storage: StorageId,
  generation: Generation,
  verifiedMs: number,
): BlockRecord {
  const named = currentAt(record, storage);
  assert(named?.generation === generation, "only a named copy is placed");
  const others = record.copies.filter((copy) => copy.storage !== storage);
  return {
    ...record,
    copies: [...others, { state: "placed", storage, generation, verifiedMs }],
  };
}
