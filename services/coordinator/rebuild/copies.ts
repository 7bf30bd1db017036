// What a record says of its copies once the storages were looked at. A storage that shows a version's head had all of it
// (closure): what lacks there was lost, and is bad with a new copy owed, as if a scrub had found it. So the nodes above stay
// placed, and the version is whole again as soon as a later backup, or another storage, brings what was lost.
import type { BlockId, StorageId } from "#lib/core/ids.ts";
import type { KvTransaction } from "#lib/ports/kv.ts";
import {
  currentAt,
  hasGoodCopy,
  placedAt,
  type BlockRecord,
  type Copy,
} from "#lib/repository/block-record.ts";
import { key, objectName } from "#lib/repository/keyspace.ts";
import { hasReference, newGeneration, saveBlock } from "#lib/repository/ledger.ts";
import type { Judged } from "./objects.ts";
import type { RebuildRun } from "./run.ts";
import { clearTrashOf } from "#lib/repository/transactions/locked-trash.ts";

/** What is known of one block or node when it is saved. */
export interface Found {
  readonly id: BlockId;
  readonly kind: "block" | "node";
  readonly plainBytes: number;
  readonly judged: readonly Judged[];
  /** The storages that had it, for they show the head of a version over it. */
  readonly backed: readonly StorageId[];
  /** The storages that the version is meant for. */
  readonly wanted: readonly StorageId[];
  /** Whether all that it names is at a storage. */
  readonly isClosedAt: (storage: StorageId) => boolean;
  /** Something that it names is marked. */
  readonly hasMarkedChild: boolean;
}

/** Placed there; or bad, with a new copy on its way (I1). */
export function isCoveredAt(record: BlockRecord, storage: StorageId): boolean {
  if (placedAt(record, storage) !== undefined) return true;
  const here = record.copies.filter((copy) => copy.storage === storage);
  return (
    here.some((copy) => copy.state === "bad") &&
    here.some((copy) => copy.state === "owed" || copy.state === "coming")
  );
}

/** Saves a record as it follows from what was found; what it names now is taken out of trash. Returns it. */
export async function saveFound(
  run: RebuildRun,
  tx: KvTransaction,
  before: BlockRecord | undefined,
  found: Found,
): Promise<BlockRecord> {
  const { id, kind, plainBytes, judged } = found;
  let record: BlockRecord = before ?? {
    kind,
    plainBytes,
    storedBytes: 0,
    condemnedEpoch: undefined,
    damaged: false,
    copies: [],
  };
  const storages = new Set([...judged.map(({ storage }) => storage), ...found.backed]);
  for (const storage of storages) record = withFound(run, record, storage, found);
  const damaged = !hasGoodCopy(record) || found.hasMarkedChild;
  const storedBytes = record.storedBytes || (judged.find((each) => each.good)?.sizeBytes ?? 0);
  // It is about to be referred to, or is already.
  const after: BlockRecord = { ...record, storedBytes, damaged, condemnedEpoch: undefined };
  if (before !== undefined && isSame(before, after)) return before;
  await saveBlock(tx, id, before, after);
  for (const { storage, generation } of after.copies) {
    await clearTrashOf(tx, storage, objectName(kind, id, generation));
  }
  if (damaged !== (before?.damaged ?? false) && (await hasReference(tx, id))) {
    // Parents that are there already are told, whatever the record said before.
    tx.set(key.recheck(id), Buffer.of(1));
  }
  return after;
}

function isSame(a: BlockRecord, b: BlockRecord): boolean {
  return (
    a.copies === b.copies &&
    a.damaged === b.damaged &&
    a.condemnedEpoch === b.condemnedEpoch &&
    a.storedBytes === b.storedBytes
  );
}

/** The record with its copies at one storage as they were found; the same record where nothing changes. */
function withFound(
  run: RebuildRun,
  record: BlockRecord,
  storage: StorageId,
  found: Found,
): BlockRecord {
  if (placedAt(record, storage) !== undefined) return record;
  const judged = found.judged.find((each) => each.storage === storage);
  const object = judged?.good;
  const others = record.copies.filter((copy) => copy.storage !== storage);
  if (object !== undefined && found.isClosedAt(storage)) {
    const { verifiedMs = 0 } = judged ?? {};
    const placed: Copy = { state: "placed", storage, generation: object, verifiedMs };
    return { ...record, copies: [...others, placed] };
  }
  const current = currentAt(record, storage);
  const bad = record.copies.find((copy) => copy.storage === storage && copy.state === "bad");
  const fresh = () => newGeneration(run.request.random);
  if (found.backed.includes(storage)) {
    if (bad !== undefined && current !== undefined) return record;
    const lost: Copy = bad ?? { state: "bad", storage, generation: judged?.rotten ?? fresh() };
    const owed: Copy = current ?? { state: "owed", storage, generation: object ?? fresh() };
    return { ...record, copies: [...others, lost, owed] };
  }
  // A node over something that is not there yet: it stays owed under the name that it has there.
  const isAdopted = current?.generation === object || current?.state === "coming";
  if (object === undefined || isAdopted || !found.wanted.includes(storage)) return record;
  const owed: Copy = { state: "owed", storage, generation: object };
  return { ...record, copies: [...others, ...(bad === undefined ? [] : [bad]), owed] };
}
