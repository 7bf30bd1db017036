// Replicate (DESIGN §4.7): an *owed* copy whose object has been put and verified turns *placed*; a node only once all that
// it names is placed there.
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { decodeNode } from "#proto/node.ts";
import { currentAt, placedAt, type BlockRecord, type Copy } from "../block-record.ts";
import { key, objectName, parse, range } from "../keyspace.ts";
import {
  newGeneration,
  queueTrash,
  readBlock,
  readBlocks,
  readPolicyStorages,
  readSession,
  rely,
  saveBlock,
  withCopy,
  withPlaced,
} from "../ledger.ts";
import { lockAt, queueLockNow } from "../storage-lock.ts";

/** What became of a filled copy. */
export type FillOutcome =
  | "placed"
  /** The record does not name it any more: its object is in trash. */
  | "unnamed"
  /** A node whose children are not all placed there yet: it stays owed. */
  | "children";

/** A filled copy. */
export interface FilledCopy {
  readonly id: BlockId;
  readonly kind: "block" | "node";
  readonly storage: StorageId;
  readonly generation: Generation;
  readonly storedBytes: number;
  /** An earlier try had left it there: its lock is that try's. */
  readonly wasThere?: boolean;
}

/** Places a copy whose object is durable and verified. Lands twice without harm. */
export function placeFilled(kv: Kv, nowMs: number, copy: FilledCopy): Promise<FillOutcome> {
  const { id, kind, storage, generation } = copy;
  return kv.transact(
    async (tx) => {
      const before = await readBlock(tx, id);
      const named = before?.copies.find(
        (other) => other.storage === storage && other.generation === generation,
      );
      if (before === undefined || named === undefined) {
        await queueTrash(tx, storage, objectName(kind, id, generation));
        return "unnamed";
      }
      if (named.state === "placed") return "placed";
      if (named.state !== "owed" || !(await isInUse(tx, storage))) return "children";
      if (kind === "node" && !(await relyOnChildren(tx, id, storage))) return "children";
      const after = withPlaced(before, storage, generation, nowMs);
      await saveBlock(tx, id, before, { ...after, storedBytes: copy.storedBytes });
      if (copy.wasThere === true && (await lockAt(tx, storage)) !== undefined) {
        queueLockNow(tx, storage, objectName(kind, id, generation), nowMs);
      }
      return "placed";
    },
    { durable: false, label: "fill" },
  );
}

async function isInUse(tx: KvTransaction, storage: StorageId): Promise<boolean> {
  const { counting } = await readPolicyStorages(tx, { storages: [storage], quorum: 1 });
  return counting.length === 1;
}

async function childIds(tx: KvTransaction, id: BlockId): Promise<BlockId[] | undefined> {
  const plain = await tx.get(key.node(id));
  if (plain === undefined) return undefined;
  const ids = decodeNode(plain).children.filter((child) => child !== undefined);
  return [...new Set(ids as BlockId[])];
}

/** Whether all that the node names is placed there; then none of it may leave any more. */
async function relyOnChildren(
  tx: KvTransaction,
  id: BlockId,
  storage: StorageId,
): Promise<boolean> {
  const ids = await childIds(tx, id);
  if (ids === undefined) return false;
  const records = await readBlocks(tx, ids);
  const isPlaced = (record: BlockRecord | undefined): boolean =>
    record !== undefined && placedAt(record, storage) !== undefined;
  if (!records.every(isPlaced)) return false;
  for (const [index, child] of ids.entries()) {
    const record = records[index] as BlockRecord;
    const stays = rely(record, [storage]);
    if (stays !== record) await saveBlock(tx, child, record, stays);
  }
  return true;
}

/** What keeps a node from being filled. */
export interface OwedChildren {
  /** Children that are not placed there; 0: the node itself can be filled. */
  readonly missing: number;
  /** Those of them that are owed only now. */
  readonly added: number;
}

/**
 * Before a node can be filled: owes to the storage what the node names and the storage has no copy of. A copy that was
 * coming from a session that is not live any more is owed, too, under a new generation: nobody may ever bring it.
 */
export function oweChildren(
  kv: Kv,
  random: Random,
  id: BlockId,
  storage: StorageId,
): Promise<OwedChildren> {
  return kv.transact(
    async (tx) => {
      const node = await readBlock(tx, id);
      if (node === undefined || currentAt(node, storage)?.state !== "owed") {
        return { missing: 0, added: 0 };
      }
      const ids = (await childIds(tx, id)) ?? [];
      const records = await readBlocks(tx, ids);
      let missing = 0;
      let added = 0;
      for (const [index, child] of ids.entries()) {
        const record = records[index];
        if (record === undefined || placedAt(record, storage) !== undefined) continue;
        missing += 1;
        const current = currentAt(record, storage);
        if (current?.state === "owed" || (await isComing(tx, current))) continue;
        added += 1;
        const generation = newGeneration(random);
        const owed = withCopy(record, { state: "owed", storage, generation });
        await saveBlock(tx, child, record, owed);
      }
      return { missing, added };
    },
    { durable: false, label: "owe" },
  );
}

async function isComing(tx: KvTransaction, copy: Copy | undefined): Promise<boolean> {
  if (copy?.state !== "coming") return false;
  return (await readSession(tx, copy.session))?.state === "live";
}

/** Some copies that are owed to a storage, from `from` on. */
export async function listOwed(
  kv: Kv,
  storage: StorageId,
  from: Buffer | undefined,
  limit: number,
): Promise<{ readonly ids: BlockId[]; readonly next: Buffer | undefined }> {
  const { start, end } = range.owed(storage);
  const entries = await kv.read((reader) => reader.range({ start: from ?? start, end, limit }));
  const last = entries.at(-1);
  return {
    ids: entries.map((entry) => parse.owed(entry.key).id),
    next:
      last === undefined || entries.length < limit
        ? undefined
        : Buffer.concat([last.key, Buffer.of(0)]),
  };
}
