// Storages that are there no more (DESIGN §4.10): the identity is retired at once and for ever, then everything that the metadata
// know of the storage goes, in bounded steps. Nothing is deleted on the storage itself.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import { key, parse, range, type KeyRange } from "../keyspace.ts";
import { BATCH_MAX, readBlock, saveBlock } from "../ledger.ts";
import { decodeRecord, encodeRecord, type StorageRecord } from "../records.ts";
import { trashLastHeads } from "./heads.ts";
import { readVersion } from "./version.ts";

/** Records of one step. */
const STEP = BATCH_MAX / 4;
const KEYS_STEP = 1000;

/**
 * Retires a storage. Lands twice without harm. The record as it is then.
 * @param isLost what it had is given up; else it must have nothing any more, and nothing may be owed to it
 * @throws NotFound for one that was never added, Refused for one that still has something
 */
export function retireStorage(kv: Kv, storage: StorageId, isLost: boolean): Promise<StorageRecord> {
  return kv.transact(
    async (tx) => {
      const value = await tx.get(key.storage(storage));
      if (value === undefined) {
        throw new AshlarError(ErrorCode.NotFound, `there is no storage ${storage}`);
      }
      const record = decodeRecord<StorageRecord>(value);
      if (record.state === "retired") return record;
      if (!isLost) await requireEmpty(tx, storage, record.name);
      const retired: StorageRecord = { ...record, state: "retired" };
      tx.set(key.storage(storage), encodeRecord(retired));
      return retired;
    },
    { label: "free:retire" },
  );
}

async function requireEmpty(tx: KvTransaction, storage: StorageId, name: string): Promise<void> {
  const left: readonly [KeyRange, string][] = [
    [range.verify(storage), "it has copies"],
    [range.owed(storage), "copies are owed to it"],
    [range.owedHeads(storage), "heads are owed to it"],
    [range.trash(storage), "not all of its trash is deleted"],
    [range.waiting(storage), "what it keeps locked is not deleted yet"],
  ];
  for (const [where, what] of left) {
    if ((await tx.range({ ...where, limit: 1 })).length === 0) continue;
    throw new AshlarError(ErrorCode.Refused, `storage ${name} is not empty: ${what}`, {
      remedy: `\`ashlar storage drain ${name}\` empties it; \`--lost\` gives it up`,
    });
  }
}

/** One bounded step of forgetting a retired storage; false when nothing is left. `headPrefix`: as in confirmHead. */
export function forgetStep(
  kv: Kv,
  storage: StorageId,
  headPrefix: (uid: VersionUid) => string,
): Promise<boolean> {
  return kv.transact(
    async (tx) =>
      (await dropCopies(tx, storage)) ||
      (await dropOwedHeads(tx, storage, headPrefix)) ||
      (await dropKeys(tx, storage)),
    { durable: false, label: "free:forget" },
  );
}

/** A record that has no good copy left is marked by its re-check, which this queues. */
async function dropCopies(tx: KvTransaction, storage: StorageId): Promise<boolean> {
  const ids = new Set<BlockId>();
  // Each entry goes, also one that is there in vain: or the next step would find it again, for ever.
  for (const entry of await tx.range({ ...range.owed(storage), limit: STEP })) {
    ids.add(parse.owed(entry.key).id);
    tx.clear(entry.key);
  }
  for (const entry of await tx.range({ ...range.verify(storage), limit: STEP })) {
    ids.add(parse.verify(entry.key).id);
    tx.clear(entry.key);
  }
  for (const id of ids) {
    const record = await readBlock(tx, id);
    if (record === undefined) continue;
    const copies = record.copies.filter((copy) => copy.storage !== storage);
    await saveBlock(tx, id, record, { ...record, copies });
  }
  return ids.size > 0;
}

/** Last heads elsewhere may have waited only for this storage. */
async function dropOwedHeads(
  tx: KvTransaction,
  storage: StorageId,
  headPrefix: (uid: VersionUid) => string,
): Promise<boolean> {
  const entries = await tx.range({ ...range.owedHeads(storage), limit: STEP });
  for (const entry of entries) {
    tx.clear(entry.key);
    const { uid } = parse.owedHead(entry.key);
    const version = await readVersion(tx, uid);
    if (version?.state === "removed") await trashLastHeads(tx, version, headPrefix(uid));
  }
  return entries.length > 0;
}

async function dropKeys(tx: KvTransaction, storage: StorageId): Promise<boolean> {
  const rest = [
    range.leaving(storage),
    range.renewals(storage),
    range.trash(storage),
    range.waiting(storage),
    range.waitingUntil(storage),
    range.locks(storage),
    range.headsAt(storage),
    range.stamps(storage),
  ];
  for (const where of rest) {
    const entries = await tx.range({ ...where, limit: KEYS_STEP });
    for (const entry of entries) tx.clear(entry.key);
    if (entries.length > 0) return true;
  }
  for (const at of [key.run(storage), key.lockWalk(storage), key.lockKeys(storage)]) tx.clear(at);
  return false;
}
