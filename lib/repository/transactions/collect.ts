// Collect (DESIGN §4.5): epoch-based reclamation. Unreferenced → condemned in an epoch → removed once every live session's
// horizon is past it.
import type { BlockId } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import { decodeNode } from "#proto/node.ts";
import type { BlockRecord } from "../block-record.ts";
import { key, parse, range } from "../keyspace.ts";
import {
  BATCH_MAX,
  hasReference,
  queueUnreferenced,
  readBlock,
  readCounter,
  readEpoch,
  readSession,
  rely,
  saveBlock,
  writeCounter,
} from "../ledger.ts";
import { decodeRecord, type SessionRecord } from "../records.ts";

/** What one step did. */
export interface CollectStep {
  /** Where to go on, or undefined at the end of the queue. */
  readonly next: Buffer | undefined;
  readonly condemned: number;
  readonly blocksRemoved: number;
  readonly nodesRemoved: number;
  /** Sealed bytes of the copies that went to trash (by their hints). */
  readonly bytesFreed: number;
}

const NOTHING: Omit<CollectStep, "next"> = {
  condemned: 0,
  blocksRemoved: 0,
  nodesRemoved: 0,
  bytesFreed: 0,
};

/** How many queue entries a step looks at: each may touch a record, its references and its copies. */
const STEP = BATCH_MAX / 4;

/** Raises the epoch by one: once per pass, in a transaction of its own. */
export function raiseEpoch(kv: Kv): Promise<number> {
  return kv.transact(
    async (tx) => {
      const epoch = (await readEpoch(tx)) + 1;
      writeCounter(tx, key.epoch, epoch);
      return epoch;
    },
    { durable: false, label: "free:epoch" },
  );
}

/** The lowest horizon of the live backups, or the current epoch where there is none. It never falls: read it once a pass. */
export function lowestHorizon(kv: Kv): Promise<number> {
  return kv.transact(
    async (tx) => {
      let lowest = await readEpoch(tx);
      for (const entry of await tx.range({ ...range.sessions(), limit: 10_000 })) {
        const record = decodeRecord<SessionRecord>(entry.value);
        if (record.state !== "live" || record.kind !== "backup") continue;
        lowest = Math.min(lowest, await readCounter(tx, key.horizon(parse.session(entry.key)), 0));
      }
      return lowest;
    },
    { durable: false, label: "free:horizon" },
  );
}

/** Looks at some unreferenced entries: condemns what has no reference and nothing coming from a live session. */
export function condemnStep(kv: Kv, from: Buffer | undefined): Promise<CollectStep> {
  const { start, end } = range.unreferenced();
  return kv.transact(
    async (tx) => {
      const entries = await tx.snapshot.range({ start: from ?? start, end, limit: STEP });
      const epoch = await readEpoch(tx);
      let condemned = 0;
      for (const entry of entries) {
        // The queue was scanned as a snapshot, so that claims that add to it do not conflict: look again.
        if ((await tx.get(entry.key)) === undefined) continue;
        if (await condemnOne(tx, parse.unreferenced(entry.key), epoch)) condemned += 1;
      }
      return { ...NOTHING, condemned, next: nextKey(entries, STEP) };
    },
    { durable: false, label: "free:condemn" },
  );
}

function nextKey(entries: readonly { readonly key: Buffer }[], limit: number): Buffer | undefined {
  const last = entries.at(-1);
  return last === undefined || entries.length < limit
    ? undefined
    : Buffer.concat([last.key, Buffer.of(0)]);
}

async function condemnOne(tx: KvTransaction, id: BlockId, epoch: number): Promise<boolean> {
  const record = await readBlock(tx, id);
  if (record === undefined || (await hasReference(tx, id))) {
    tx.clear(key.unreferenced(id));
    return false;
  }
  if (await isComing(tx, record)) return false;
  tx.clear(key.unreferenced(id));
  if (record.condemnedEpoch !== undefined) return false;
  const whole = rely(
    record,
    record.copies.map((copy) => copy.storage),
  );
  await saveBlock(tx, id, record, { ...whole, condemnedEpoch: epoch });
  return true;
}

async function isComing(tx: KvTransaction, record: BlockRecord): Promise<boolean> {
  for (const copy of record.copies) {
    if (copy.state !== "coming") continue;
    if ((await readSession(tx, copy.session))?.state === "live") return true;
  }
  return false;
}

/** Removes some records that were condemned in an epoch before `horizon` and still have no reference. */
export function removeStep(
  kv: Kv,
  horizon: number,
  from: Buffer | undefined,
): Promise<CollectStep> {
  const { start, end } = range.condemned(horizon);
  return kv.transact(
    async (tx) => {
      const entries = await tx.range({ start: from ?? start, end, limit: STEP });
      let step: Omit<CollectStep, "next"> = NOTHING;
      let taken = 0;
      for (const entry of entries) {
        // A node clears up to 256 references: one node a step.
        taken += 1;
        const done = await removeOne(tx, parse.condemned(entry.key).id, horizon, entry.key);
        step = add(step, done);
        if (done.nodesRemoved > 0) break;
      }
      const more = taken < entries.length || entries.length === STEP;
      const last = entries[taken - 1];
      return {
        ...step,
        next: more && last !== undefined ? Buffer.concat([last.key, Buffer.of(0)]) : undefined,
      };
    },
    { durable: false, label: "free:collect" },
  );
}

type Done = Omit<CollectStep, "next">;

function add(a: Done, b: Done): Done {
  return {
    condemned: a.condemned + b.condemned,
    blocksRemoved: a.blocksRemoved + b.blocksRemoved,
    nodesRemoved: a.nodesRemoved + b.nodesRemoved,
    bytesFreed: a.bytesFreed + b.bytesFreed,
  };
}

async function removeOne(
  tx: KvTransaction,
  id: BlockId,
  horizon: number,
  entry: Buffer,
): Promise<Done> {
  const record = await readBlock(tx, id);
  // The record's own mark decides, not the queue's key.
  if (record?.condemnedEpoch === undefined) {
    tx.clear(entry);
    return NOTHING;
  }
  if (record.condemnedEpoch >= horizon) return NOTHING;
  if (await hasReference(tx, id)) {
    await saveBlock(tx, id, record, { ...record, condemnedEpoch: undefined });
    return NOTHING;
  }
  await saveBlock(tx, id, record, undefined);
  tx.clear(key.unreferenced(id));
  if (record.kind === "node") await dropNode(tx, id);
  const held = record.copies.filter((copy) => copy.state === "placed" || copy.state === "bad");
  return {
    condemned: 0,
    blocksRemoved: record.kind === "block" ? 1 : 0,
    nodesRemoved: record.kind === "node" ? 1 : 0,
    bytesFreed: held.length * record.storedBytes,
  };
}

/** A removed node refers to its children no longer: all of them, in the same transaction. */
async function dropNode(tx: KvTransaction, id: BlockId): Promise<void> {
  const plain = await tx.get(key.node(id));
  if (plain === undefined) return;
  tx.clear(key.node(id));
  for (const child of new Set(decodeNode(plain).children as (BlockId | undefined)[])) {
    if (child === undefined) continue;
    tx.clear(key.reference(child, { kind: "node", id }));
    queueUnreferenced(tx, child);
  }
}
