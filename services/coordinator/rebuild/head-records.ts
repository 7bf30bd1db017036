// What the metadata know of heads on storages, made true: what a storage shows is known, what it should have and lacks is
// owed, what is superseded goes to trash.
import type { StorageId } from "#lib/core/ids.ts";
import type { KvTransaction } from "#lib/ports/kv.ts";
import { key, parse, range } from "#lib/repository/keyspace.ts";
import { BATCH_MAX, queueTrash, writeCounter } from "#lib/repository/ledger.ts";
import {
  decodeRecord,
  encodeRecord,
  type HeadAtRecord,
  type StorageRecord,
} from "#lib/repository/records.ts";
import { ObjectFolder, parseObjectName } from "#proto/object-names.ts";
import { readUsableVersion } from "../readable-records.ts";
import type { HeadGroup, ReadHead } from "./heads.ts";
import { rebuildKey } from "./keyspace.ts";
import { isAtStorage } from "./listing.ts";
import type { RebuildRun } from "./run.ts";
import { unreadableUid, type RebuiltVersion } from "./rebuilt-version.ts";
import { clearTrashOf } from "#lib/repository/transactions/locked-trash.ts";

/** Heads of one version at one storage. */
const HEADS_MAX = 1000;

/** Records the heads of a version as the storages show them, and what is owed. */
export async function saveHeads(
  run: RebuildRun,
  tx: KvTransaction,
  version: RebuiltVersion,
  group: HeadGroup,
): Promise<void> {
  if (version.state === "incomplete") {
    for (const head of group.heads) await confirm(tx, version, head);
    return;
  }
  const shown = Map.groupBy(group.heads, ({ storage }) => storage);
  for (const heads of shown.values()) {
    const top = heads.find(({ head }) => head !== undefined);
    for (const head of heads) {
      if (head === top) await confirm(tx, version, head);
      else await discard(tx, version, head);
    }
  }
  let isOwed = false;
  for (const storage of version.policy.storages) {
    if (await oweHead(run, tx, version, storage)) isOwed = true;
  }
  // A last revision is kept until every storage of the policy has it.
  if (version.state === "removed" && !isOwed) {
    for (const storage of version.policy.storages) await discardAll(run, tx, version, storage);
  }
}

async function readHeadAt(tx: KvTransaction, at: Buffer): Promise<HeadAtRecord | undefined> {
  const value = await tx.get(at);
  return value === undefined ? undefined : decodeRecord<HeadAtRecord>(value);
}

/** The storage has it. */
async function confirm(tx: KvTransaction, version: RebuiltVersion, head: ReadHead): Promise<void> {
  if (await recordHead(tx, version, head, "confirmed"))
    await clearTrashOf(tx, head.storage, head.name);
}

/** Superseded by another one there, or unreadable while the metadata know what it must say. */
async function discard(tx: KvTransaction, version: RebuiltVersion, head: ReadHead): Promise<void> {
  if (await recordHead(tx, version, head, "trash")) await queueTrash(tx, head.storage, head.name);
}

/** False, and nothing is recorded, where it is in trash already: there it stays. */
async function recordHead(
  tx: KvTransaction,
  { uid }: RebuiltVersion,
  { storage, name, revision, head }: ReadHead,
  state: "confirmed" | "trash",
): Promise<boolean> {
  const at = key.headAt(storage, name);
  if ((await readHeadAt(tx, at))?.state === "trash") return false;
  const removed = head?.removed ?? false;
  const recorded: HeadAtRecord = { uid, revision, removed, state };
  tx.set(at, encodeRecord(recorded));
  return true;
}

/** Whether the storage still is to get the current revision. */
async function oweHead(
  run: RebuildRun,
  tx: KvTransaction,
  { uid, revision }: RebuiltVersion,
  storage: StorageId,
): Promise<boolean> {
  const at = key.owedHead(storage, uid);
  const value = await tx.get(key.storage(storage));
  const isRetired = value !== undefined && decodeRecord<StorageRecord>(value).state === "retired";
  const heads = await readHeadsOf(run, tx, storage, uid, `${revision}.`);
  const isOwed = !isRetired && !heads.some(({ record }) => record.state === "confirmed");
  if (isOwed) writeCounter(tx, at, revision);
  else tx.clear(at);
  return isOwed;
}

async function readHeadsOf(
  run: RebuildRun,
  tx: KvTransaction,
  storage: StorageId,
  uid: RebuiltVersion["uid"],
  rest: string,
): Promise<{ readonly at: Buffer; readonly record: HeadAtRecord }[]> {
  const prefix = `${ObjectFolder.heads}${run.hasher.headName(uid)}.${rest}`;
  const start = key.headAt(storage, prefix);
  const end = key.headAt(storage, `${prefix}\u007f`);
  const entries = await tx.range({ start, end, limit: HEADS_MAX });
  return entries.map(({ key: at, value }) => ({ at, record: decodeRecord<HeadAtRecord>(value) }));
}

async function discardAll(
  run: RebuildRun,
  tx: KvTransaction,
  { uid }: RebuiltVersion,
  storage: StorageId,
): Promise<void> {
  for (const { at, record } of await readHeadsOf(run, tx, storage, uid, "")) {
    if (record.state !== "confirmed") continue;
    tx.set(at, encodeRecord({ ...record, state: "trash" } satisfies HeadAtRecord));
    await queueTrash(tx, storage, parse.headAt(at).name);
  }
}

/**
 * Heads of which none can be read, of a version that nobody knows: they are known from now on, so that backups go on, but
 * stand for no version, so that nothing is deleted at their storages. What they name may be there.
 */
export async function keepUnreadable(run: RebuildRun, { heads }: HeadGroup): Promise<void> {
  await run.transact(async (tx) => {
    for (const { storage, name, hash, revision } of heads) {
      const at = key.headAt(storage, name);
      if ((await tx.get(at)) !== undefined) continue;
      const uid = unreadableUid(hash);
      const record: HeadAtRecord = { uid, revision, removed: false, state: "confirmed" };
      tx.set(at, encodeRecord(record));
    }
  });
  run.problems.push(
    `a version cannot be taken over, for none of its heads can be read (${heads[0]?.name}): rebuild from the other ` +
      "storages too, or delete the object by hand to give it up; until then nothing is deleted at its storage",
  );
}

/** Heads that the metadata call confirmed and a storage does not have: they are owed again. */
export async function forgetLostHeads(run: RebuildRun): Promise<void> {
  for (const storage of run.given) {
    await run.eachPage("comparing heads", range.headsAt(storage), BATCH_MAX, async (entries) => {
      for (const entry of entries) {
        const { name } = parse.headAt(entry.key);
        const { state } = decodeRecord<HeadAtRecord>(entry.value);
        if (state !== "confirmed" || (await isShown(run, storage, name))) continue;
        await run.transact((tx) => forgetHead(tx, storage, name));
      }
    });
  }
}

async function isShown(run: RebuildRun, storage: StorageId, name: string): Promise<boolean> {
  const parsed = parseObjectName(name);
  if (parsed?.type !== "head") return false;
  const at = rebuildKey.head(parsed.hash, parsed.revision, storage, parsed.random);
  const listed = await run.kv.read((reader) => reader.get(at));
  return listed !== undefined || isAtStorage(run.store(storage), name);
}

async function forgetHead(tx: KvTransaction, storage: StorageId, name: string): Promise<void> {
  const at = key.headAt(storage, name);
  const record = await readHeadAt(tx, at);
  if (record?.state !== "confirmed") return;
  // It stays known, so that nobody takes it for another KV's should it come back; then it is deleted.
  tx.set(at, encodeRecord({ ...record, state: "trash" } satisfies HeadAtRecord));
  await queueTrash(tx, storage, name);
  const version = await readUsableVersion(tx, record.uid);
  const isCurrent = version !== undefined && version.revision === record.revision;
  if (isCurrent && version.state !== "incomplete" && version.policy.storages.includes(storage)) {
    writeCounter(tx, key.owedHead(storage, record.uid), version.revision);
  }
}
