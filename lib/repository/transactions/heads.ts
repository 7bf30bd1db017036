// Heads as they were put (DESIGN §4.10): which a storage shows, which are owed to it, and which go.
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Kv, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import { placedAt } from "../block-record.ts";
import { key, keyAfter, parse, range } from "../keyspace.ts";
import { queueTrash, readBlock } from "../ledger.ts";
import { decodeRecord, encodeRecord, type HeadAtRecord, type VersionRecord } from "../records.ts";
import { lockAt, queueLock } from "../storage-lock.ts";
import { readNamed } from "./storage.ts";
import { oweHeads, readVersion } from "./version.ts";

/** Heads looked at in one step. */
const HEADS_STEP = 1000;

/** The heads that this KV put at a storage, by name. */
export function readHeadsAt(kv: Kv, storage: StorageId): Promise<Map<string, HeadAtRecord>> {
  return readNamed<HeadAtRecord>(kv, range.headsAt(storage), (at) => parse.headAt(at).name);
}

/** What one head at a storage is known as now, or undefined. */
export function readHeadAt(
  kv: Kv,
  storage: StorageId,
  name: string,
): Promise<HeadAtRecord | undefined> {
  return kv.read(async (reader) => {
    const value = await reader.get(key.headAt(storage, name));
    return value === undefined ? undefined : decodeRecord<HeadAtRecord>(value);
  });
}

/**
 * Prepares putting the owed head of a version: records its name. Undefined when none is owed, or the root is not placed at
 * the storage yet (a last revision names no root and goes everywhere).
 */
export function planHead(
  kv: Kv,
  storage: StorageId,
  uid: VersionUid,
  nameFor: (version: VersionRecord) => string,
): Promise<{ readonly name: string; readonly version: VersionRecord } | undefined> {
  return kv.transact(
    async (tx) => {
      if ((await tx.get(key.owedHead(storage, uid))) === undefined) return undefined;
      const version = await readVersion(tx, uid);
      if (version === undefined || version.state === "incomplete") return undefined;
      if (version.state !== "removed" && !(await rootPlaced(tx, version, storage)))
        return undefined;
      const name = nameFor(version);
      const head: HeadAtRecord = {
        uid,
        revision: version.revision,
        removed: version.state === "removed",
        state: "putting",
      };
      tx.set(key.headAt(storage, name), encodeRecord(head));
      return { name, version };
    },
    { label: "free:head" },
  );
}

async function rootPlaced(
  reader: KvReader,
  version: VersionRecord,
  storage: StorageId,
): Promise<boolean> {
  if (version.root === undefined) return false;
  const record = await readBlock(reader, version.root);
  return record !== undefined && placedAt(record, storage) !== undefined;
}

/** A head that was put. */
export interface HeadPut {
  readonly name: string;
  /** The start of all head names of its version. */
  readonly prefix: string;
  /** When, in ms since 1970, or before. */
  readonly putMs: number;
  /** The repository key that it is sealed under. */
  readonly keyId: string;
}

/**
 * A head's put has succeeded: it is confirmed, the debt is paid when it is the current revision, and older heads of the
 * version at this storage go to trash.
 */
export function confirmHead(kv: Kv, storage: StorageId, put: HeadPut): Promise<void> {
  const { name, prefix, putMs, keyId } = put;
  return kv.transact(
    async (tx) => {
      const value = await tx.get(key.headAt(storage, name));
      if (value === undefined) return;
      const head = decodeRecord<HeadAtRecord>(value);
      if (head.state !== "putting") return;
      const lockMs = await lockAt(tx, storage);
      if (lockMs !== undefined) queueLock(tx, storage, lockMs, name, putMs);
      tx.set(key.headAt(storage, name), encodeRecord({ ...head, state: "confirmed", keyId }));
      const version = await readVersion(tx, head.uid);
      if (version?.revision === head.revision) tx.clear(key.owedHead(storage, head.uid));
      await trashHeads(
        tx,
        storage,
        prefix,
        (other, otherName) => other.revision <= head.revision && otherName !== name,
      );
      if (version?.state === "removed" && version.revision === head.revision) {
        await trashLastHeads(tx, version, prefix);
      }
    },
    { label: "free:head" },
  );
}

/** Those heads of a version at a storage that `which` takes go to trash. `prefix` as in {@link HeadPut}. */
export async function trashHeads(
  tx: KvTransaction,
  storage: StorageId,
  prefix: string,
  which: (head: HeadAtRecord, name: string) => boolean,
): Promise<void> {
  let start = key.headAt(storage, prefix);
  const end = key.headAt(storage, `${prefix}\u007f`);
  // Heads in trash stay known for ever, so a version whose labels changed often has more than one page of them.
  for (;;) {
    const entries = await tx.range({ start, end, limit: 1000 });
    for (const entry of entries) {
      const head = decodeRecord<HeadAtRecord>(entry.value);
      const { name } = parse.headAt(entry.key);
      if (head.state === "trash" || !which(head, name)) continue;
      tx.set(entry.key, encodeRecord({ ...head, state: "trash" }));
      await queueTrash(tx, storage, name);
    }
    const last = entries.at(-1);
    if (last === undefined || entries.length < 1000) return;
    start = keyAfter(last.key);
  }
}

/**
 * Whether a storage has a head of a version that does not remove it, of whatever revision: then the version can be restored
 * from there. `prefix` as in {@link HeadPut}.
 */
export function hasHead(kv: Kv, storage: StorageId, prefix: string): Promise<boolean> {
  return kv.read((reader) => hasHeadIn(reader, storage, prefix));
}

/** {@link hasHead} as a transaction sees it. */
export async function hasHeadIn(
  reader: KvReader,
  storage: StorageId,
  prefix: string,
): Promise<boolean> {
  const end = key.headAt(storage, `${prefix}\u007f`);
  let start = key.headAt(storage, prefix);
  for (;;) {
    const entries = await reader.range({ start, end, limit: 1000 });
    for (const entry of entries) {
      const head = decodeRecord<HeadAtRecord>(entry.value);
      if (head.state === "confirmed" && !head.removed) return true;
    }
    const last = entries.at(-1);
    if (last === undefined || entries.length < 1000) return false;
    start = keyAfter(last.key);
  }
}

/** A last revision is kept until every storage of the policy has it; then it goes as well. */
export async function trashLastHeads(
  tx: KvTransaction,
  version: VersionRecord,
  prefix: string,
): Promise<void> {
  for (const storage of version.policy.storages) {
    if ((await tx.get(key.owedHead(storage, version.uid))) !== undefined) return;
  }
  for (const storage of version.policy.storages) {
    await trashHeads(tx, storage, prefix, () => true);
  }
}

/** Some versions whose heads are owed to a storage, from `from` on. */
export async function listOwedHeads(
  kv: Kv,
  storage: StorageId,
  from: Buffer | undefined,
  limit: number,
): Promise<{ readonly uids: VersionUid[]; readonly next: Buffer | undefined }> {
  const { start, end } = range.owedHeads(storage);
  const entries = await kv.read((reader) => reader.range({ start: from ?? start, end, limit }));
  const last = entries.at(-1);
  return {
    uids: entries.map((entry) => parse.owedHead(entry.key).uid),
    next: last === undefined || entries.length < limit ? undefined : keyAfter(last.key),
  };
}

/**
 * Some versions, from `from` on, with heads at a storage that are under one of these repository keys, or of which nobody has written
 * down what they are under.
 */
export async function listHeadsUnder(
  kv: Kv,
  storage: StorageId,
  keyIds: ReadonlySet<string>,
  from: Buffer | undefined,
): Promise<{ readonly uids: VersionUid[]; readonly next: Buffer | undefined }> {
  const { start, end } = range.headsAt(storage);
  const limit = HEADS_STEP;
  const entries = await kv.read((reader) => reader.range({ start: from ?? start, end, limit }));
  const uids = new Set<VersionUid>();
  for (const entry of entries) {
    const { state, uid, keyId } = decodeRecord<HeadAtRecord>(entry.value);
    if (state === "confirmed" && (keyId === undefined || keyIds.has(keyId))) uids.add(uid);
  }
  const last = entries.at(-1);
  return {
    uids: [...uids],
    next: last === undefined || entries.length < limit ? undefined : keyAfter(last.key),
  };
}

/**
 * Owes the heads of a version anew, in a revision of their own, unless that is so already, or the storage is not one that it goes to.
 * Lands twice without harm.
 * @returns whether they are owed by this
 */
export function renewHeadsOf(kv: Kv, uid: VersionUid, storage: StorageId): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const version = await readVersion(tx, uid);
      // The last head of a removed version says that it is removed, and no more.
      if (version?.state !== "valid" && version?.state !== "invalid") return false;
      if (!version.policy.storages.includes(storage)) return false;
      if ((await tx.get(key.owedHead(storage, uid))) !== undefined) return false;
      const renewed: VersionRecord = { ...version, revision: version.revision + 1 };
      tx.set(key.version(uid), encodeRecord(renewed));
      oweHeads(tx, renewed);
      return true;
    },
    { label: "free:change" },
  );
}
