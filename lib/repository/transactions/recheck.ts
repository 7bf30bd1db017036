// Marks of damage (DESIGN §4.8): a record is marked exactly when it has no good copy or a child is marked; a version is
// invalid exactly when its root is marked. Both damage and repair climb from a re-check queue, in bounded steps.
import type { BlockId } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import { decodeNode } from "#proto/node.ts";
import { hasGoodCopy, type BlockRecord } from "../block-record.ts";
import { key, keyAfter, parse, range } from "../keyspace.ts";
import { BATCH_MAX, queueRecheck, readBlock, readBlocks, saveBlock } from "../ledger.ts";
import { decodeRecord, encodeRecord, type VersionRecord } from "../records.ts";

/** Value of a queue entry that is telling the parents: 1, then the reference key to go on from. */
const CLIMBING = 1;

/** The record with its mark as it must be; where the mark changes, the parents will be told. */
export async function evaluateMark(
  tx: KvTransaction,
  id: BlockId,
  record: BlockRecord,
  plain: Buffer | undefined,
): Promise<BlockRecord> {
  const damaged = !hasGoodCopy(record) || (await hasMarkedChild(tx, plain));
  if (damaged === record.damaged) return record;
  tx.set(key.recheck(id), Buffer.of(CLIMBING));
  return { ...record, damaged };
}

async function hasMarkedChild(tx: KvTransaction, plain: Buffer | undefined): Promise<boolean> {
  if (plain === undefined) return false;
  const ids = new Set(decodeNode(plain).children.filter((child) => child !== undefined));
  const records = await readBlocks(tx, [...ids] as BlockId[]);
  return records.some((record) => record === undefined || record.damaged);
}

/** Works off one step of one re-check; false when the queue is empty. */
export function recheckStep(kv: Kv): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const [entry] = await tx.range({ ...range.rechecks(), limit: 1 });
      if (entry === undefined) return false;
      const id = parse.recheck(entry.key);
      const record = await readBlock(tx, id);
      if (record === undefined) {
        tx.clear(entry.key);
        return true;
      }
      if (entry.value.length > 1) {
        await climb(tx, id, record, entry.value.subarray(1));
        return true;
      }
      const after = await evaluateMark(tx, id, record, await tx.get(key.node(id)));
      if (after !== record) await saveBlock(tx, id, record, after);
      if (after !== record || entry.value.length === 1) {
        await climb(tx, id, after, range.references(id).start);
      } else {
        tx.clear(entry.key);
      }
      return true;
    },
    { label: "free:recheck" },
  );
}

async function climb(
  tx: KvTransaction,
  id: BlockId,
  record: BlockRecord,
  from: Buffer,
): Promise<void> {
  const { end } = range.references(id);
  const entries = await tx.range({ start: from, end, limit: BATCH_MAX });
  for (const entry of entries) {
    const { parent } = parse.reference(entry.key);
    if (parent.kind === "node") await queueRecheck(tx, parent.id);
    if (parent.kind === "version") await markVersion(tx, key.version(parent.uid), record.damaged);
  }
  const last = entries.at(-1);
  if (entries.length < BATCH_MAX || last === undefined) tx.clear(key.recheck(id));
  else tx.set(key.recheck(id), Buffer.concat([Buffer.of(CLIMBING), keyAfter(last.key)]));
}

async function markVersion(tx: KvTransaction, at: Buffer, damaged: boolean): Promise<void> {
  const value = await tx.get(at);
  if (value === undefined) return;
  const version = decodeRecord<VersionRecord>(value);
  const state = damaged ? "invalid" : "valid";
  if (version.state !== "valid" && version.state !== "invalid") return;
  if (version.state !== state) tx.set(at, encodeRecord({ ...version, state }));
}

/** Works off the re-check queue: afterwards every mark, up to the versions, is as the copies say. */
export async function drainRechecks(kv: Kv, signal?: AbortSignal): Promise<void> {
  while (await recheckStep(kv)) signal?.throwIfAborted();
}
