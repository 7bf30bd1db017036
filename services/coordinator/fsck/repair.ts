// What fsck may mend. None of it touches good data: references and queue entries follow from what is there, a copy that
// lacks is owed, marks are evaluated again.
import type { BlockId, StorageId } from "#lib/core/ids.ts";
import type { KvTransaction } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { currentAt, type Copy } from "#lib/repository/block-record.ts";
import { key, type Parent } from "#lib/repository/keyspace.ts";
import {
  hasReference,
  newGeneration,
  queueUnreferenced,
  saveBlock,
} from "#lib/repository/ledger.ts";
import { readRecord } from "../readable-records.ts";

const EMPTY = Buffer.alloc(0);

/** Writes a reference that a parent makes; a child that was condemned for want of it lives on. */
export async function addReference(
  tx: KvTransaction,
  child: BlockId,
  parent: Parent,
): Promise<void> {
  tx.set(key.reference(child, parent), EMPTY);
  const record = await readRecord(tx, child);
  if (typeof record !== "object" || record.condemnedEpoch === undefined) return;
  await saveBlock(tx, child, record, { ...record, condemnedEpoch: undefined });
}

/** Clears a reference that no parent makes; the collector looks at the child. */
export async function dropReference(
  tx: KvTransaction,
  child: BlockId,
  parent: Parent,
): Promise<void> {
  tx.clear(key.reference(child, parent));
  if ((await tx.get(key.block(child))) !== undefined) queueUnreferenced(tx, child);
}

/** Adds a queue entry without a value. */
export function addEntry(tx: KvTransaction, at: Buffer): Promise<void> {
  tx.set(at, EMPTY);
  return Promise.resolve();
}

/** Removes an entry that stands for nothing. */
export function dropEntry(tx: KvTransaction, at: Buffer): Promise<void> {
  tx.clear(at);
  return Promise.resolve();
}

/**
 * Has the marks of a record evaluated again, and its parents and versions told in any case: a version's state may be what is
 * wrong.
 */
export function recheckAndClimb(tx: KvTransaction, id: BlockId): Promise<void> {
  tx.set(key.recheck(id), Buffer.of(1));
  return Promise.resolve();
}

/** A block that should be at a storage and has no good copy there: bad, with a new one owed, so that it is filled. */
export async function oweCopy(
  tx: KvTransaction,
  random: Random,
  id: BlockId,
  storage: StorageId,
): Promise<void> {
  const record = await readRecord(tx, id);
  if (typeof record !== "object") return;
  const current = currentAt(record, storage);
  if (current?.state === "placed") return;
  const bad = record.copies.find((copy) => copy.storage === storage && copy.state === "bad");
  const copies: Copy[] = record.copies.filter((copy) => copy.storage !== storage);
  copies.push(bad ?? { state: "bad", storage, generation: newGeneration(random) });
  copies.push(current ?? { state: "owed", storage, generation: newGeneration(random) });
  await saveBlock(tx, id, record, { ...record, copies });
}

/** A placed copy whose object is gone turns bad, and a new one is owed. */
export async function markMissing(
  tx: KvTransaction,
  random: Random,
  id: BlockId,
  lost: Copy,
): Promise<void> {
  const record = await readRecord(tx, id);
  if (typeof record !== "object") return;
  const { storage, generation } = lost;
  const others = record.copies.filter((copy) => copy.storage !== storage);
  const copies: Copy[] = [
    ...others,
    { state: "bad", storage, generation },
    { state: "owed", storage, generation: newGeneration(random) },
  ];
  await saveBlock(tx, id, record, { ...record, copies });
}

/** A copy that nobody brings any more: owed under a new generation where it is needed, else dropped. */
export async function settleCopy(
  tx: KvTransaction,
  random: Random,
  id: BlockId,
  stale: Copy,
): Promise<void> {
  const record = await readRecord(tx, id);
  if (typeof record !== "object") return;
  const { storage, generation } = stale;
  const others = record.copies.filter(
    (copy) => copy.storage !== storage || copy.generation !== generation,
  );
  const referenced = await hasReference(tx, id);
  const copies: Copy[] = referenced
    ? [...others, { state: "owed", storage, generation: newGeneration(random) }]
    : others;
  await saveBlock(tx, id, record, { ...record, copies });
  if (!referenced) queueUnreferenced(tx, id);
}
