// Leaving a storage (DESIGN §4.5): where records live on and no policy asks for their copies at a storage any more, the copies go in
// the same two steps as unreferenced records, top-down. What nobody needs there is marked *leaving* in an epoch; claims, commits
// and fills that rely on it take the mark away; past all horizons, when still nobody needs it, the copy goes to trash and what
// the node named comes next. Never the last good copy.
import type { BlockId, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Kv, KvEntry, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import { decodeNode } from "#proto/node.ts";
import { isLeaving, type BlockRecord, type Copy } from "../block-record.ts";
import { key, keyAfter, parse, prefixRange, range, type Parent } from "../keyspace.ts";
import {
  BATCH_MAX,
  readBlock,
  readEpoch,
  readPolicyStorages,
  readSession,
  rely,
  saveBlock,
} from "../ledger.ts";
import { readVersion } from "./version.ts";

const EMPTY = Buffer.alloc(0);
/** Queue entries of one step. */
const STEP = BATCH_MAX / 4;

/** What one step did. */
export interface LeaveStep {
  /** Where to go on, or undefined at the end of the queue. */
  readonly next: Buffer | undefined;
  /** Copies that were marked, and whose turn comes in a later pass. */
  readonly marked: number;
  /** Copies that went to trash. */
  readonly left: number;
  /** Sealed bytes of those (by their hints). */
  readonly bytesFreed: number;
  /** Entries whose parents are too many for one step: their reading goes on. */
  readonly unfinished: number;
}

/** How steps are taken. */
export interface LeaveOptions {
  readonly storage: StorageId;
  /** {@link lowestHorizon}, read once a pass. */
  readonly horizon: number;
  /** The start of all head names of a version. */
  readonly headPrefix: (uid: VersionUid) => string;
}

type Done = Omit<LeaveStep, "next">;

const NOTHING: Done = { marked: 0, left: 0, bytesFreed: 0, unfinished: 0 };

/** Looks at some copies that may have to leave a storage. */
export function leaveStep(
  kv: Kv,
  options: LeaveOptions,
  from: Buffer | undefined,
): Promise<LeaveStep> {
  const { start, end } = range.leaving(options.storage);
  return kv.transact(
    async (tx) => {
      const entries = await tx.snapshot.range({ start: from ?? start, end, limit: STEP });
      let total: Done = NOTHING;
      let taken = 0;
      let parents = 0;
      for (const entry of entries) {
        taken += 1;
        // The queue was scanned as a snapshot: look again.
        const value = await tx.get(entry.key);
        if (value === undefined) continue;
        const one = await leaveOne(tx, options, { key: entry.key, value });
        total = add(total, one);
        parents += one.parents;
        if (one.unfinished > 0) return { ...total, next: entry.key };
        // A node names up to 256 children: one node a step.
        if (parents >= BATCH_MAX || one.isNode) break;
      }
      const last = entries[taken - 1];
      const isMore = taken < entries.length || entries.length === STEP;
      return { ...total, next: isMore && last !== undefined ? keyAfter(last.key) : undefined };
    },
    { durable: false, label: "free:leave" },
  );
}

function add(a: Done, b: Done): Done {
  return {
    marked: a.marked + b.marked,
    left: a.left + b.left,
    bytesFreed: a.bytesFreed + b.bytesFreed,
    unfinished: a.unfinished + b.unfinished,
  };
}

type One = Done & { readonly parents: number; readonly isNode: boolean };

async function leaveOne(tx: KvTransaction, options: LeaveOptions, entry: KvEntry): Promise<One> {
  const { storage, horizon } = options;
  const { id } = parse.leaving(entry.key);
  const nothing: One = { ...NOTHING, parents: 0, isNode: false };
  const record = await readBlock(tx, id);
  const copies = record?.copies.filter((copy) => copy.storage === storage) ?? [];
  if (record === undefined || copies.length === 0) {
    tx.clear(entry.key);
    return nothing;
  }
  const isMarked = copies.some(isLeaving);
  // What is condemned goes as a whole, if it goes; and what was marked in this epoch may have been answered to somebody.
  if (record.condemnedEpoch !== undefined) return nothing;
  if (isMarked && (record.leavingEpoch ?? horizon) >= horizon) return nothing;
  const { start, end } = range.references(id);
  const from = entry.value.length > 0 ? entry.value : start;
  const references = await tx.range({ start: from, end, limit: BATCH_MAX });
  const looked = { ...nothing, parents: references.length };
  const need = await strongestNeed(tx, options, references);
  if (need === "needed") {
    const stays = rely(record, [storage]);
    if (stays !== record) await saveBlock(tx, id, record, stays);
    tx.clear(entry.key);
    return looked;
  }
  if (need === "wait" || (await isBeingBrought(tx, copies))) return looked;
  const last = references.at(-1);
  if (last !== undefined && references.length === BATCH_MAX) {
    tx.set(entry.key, keyAfter(last.key));
    return { ...looked, unfinished: 1 };
  }
  // What nothing refers to the collector takes.
  if (last === undefined && from === start) return looked;
  if (!(await hasGoodElsewhere(tx, record, storage))) return looked;
  if (!isMarked && copies.some((copy) => copy.state === "placed")) {
    await mark(tx, id, record, storage);
    // From the beginning: whoever was looked at before the mark may need it now.
    tx.set(entry.key, EMPTY);
    return { ...looked, marked: 1 };
  }
  await letGo(tx, id, record, storage);
  tx.clear(entry.key);
  const held = copies.filter((copy) => copy.state === "placed" || copy.state === "bad").length;
  const isNode = record.kind === "node";
  return { ...looked, isNode, left: 1, bytesFreed: held * record.storedBytes };
}

type Need = "needed" | "wait" | "none";

async function strongestNeed(
  tx: KvTransaction,
  options: LeaveOptions,
  references: readonly KvEntry[],
): Promise<Need> {
  let strongest: Need = "none";
  for (const reference of references) {
    const need = await needOf(tx, options, parse.reference(reference.key).parent);
    if (need === "needed") return need;
    if (need === "wait") strongest = need;
  }
  return strongest;
}

async function needOf(
  tx: KvTransaction,
  { storage, headPrefix }: LeaveOptions,
  parent: Parent,
): Promise<Need> {
  switch (parent.kind) {
    case "node": {
      const record = await readBlock(tx, parent.id);
      return record?.copies.some((copy) => copy.storage === storage) === true ? "needed" : "none";
    }
    case "version": {
      const version = await readVersion(tx, parent.uid);
      if (version?.policy.storages.includes(storage) === true) return "needed";
      // While the storage may show a head, what it names stays.
      return (await hasTrashedHead(tx, storage, headPrefix(parent.uid))) ? "wait" : "none";
    }
    case "hold": {
      const session = await readSession(tx, parent.session);
      const isNeeded = session?.kind === "backup" && session.policy?.storages.includes(storage);
      return isNeeded === true ? "needed" : "none";
    }
  }
}

async function hasTrashedHead(
  reader: KvReader,
  storage: StorageId,
  prefix: string,
): Promise<boolean> {
  // In trash, or waiting for their locks.
  for (const at of [key.trash(storage, prefix), key.waiting(storage, prefix)]) {
    if ((await reader.range({ ...prefixRange(at), limit: 1 })).length > 0) return true;
  }
  return false;
}

async function isBeingBrought(tx: KvTransaction, copies: readonly Copy[]): Promise<boolean> {
  for (const copy of copies) {
    if (copy.state !== "coming") continue;
    if ((await readSession(tx, copy.session))?.state === "live") return true;
  }
  return false;
}

/** A good copy that does not leave, at a storage that counts. */
async function hasGoodElsewhere(
  tx: KvTransaction,
  record: BlockRecord,
  storage: StorageId,
): Promise<boolean> {
  const storages = record.copies
    .filter((copy) => copy.state === "placed" && copy.storage !== storage && !isLeaving(copy))
    .map((copy) => copy.storage);
  return (await readPolicyStorages(tx, { storages, quorum: 1 })).counting.length > 0;
}

async function mark(
  tx: KvTransaction,
  id: BlockId,
  record: BlockRecord,
  storage: StorageId,
): Promise<void> {
  const leavingEpoch = await readEpoch(tx);
  const copies = record.copies.map((copy): Copy =>
    copy.storage === storage && copy.state === "placed" ? { ...copy, leaving: true } : copy,
  );
  await saveBlock(tx, id, record, { ...record, leavingEpoch, copies });
}

/** Drops what the record has at the storage; of a node, what it names may have to leave as well. */
async function letGo(
  tx: KvTransaction,
  id: BlockId,
  record: BlockRecord,
  storage: StorageId,
): Promise<void> {
  const copies = record.copies.filter((copy) => copy.storage !== storage);
  await saveBlock(tx, id, record, { ...record, copies });
  if (record.kind !== "node") return;
  const plain = await tx.get(key.node(id));
  if (plain === undefined) return;
  for (const child of new Set(decodeNode(plain).children as (BlockId | undefined)[])) {
    if (child !== undefined) tx.set(key.leaving(storage, child), EMPTY);
  }
}

/** Queues some of all copies that a storage has or is owed, to find those that no policy asks for. */
export function queueLeaving(
  kv: Kv,
  storage: StorageId,
  which: "placed" | "owed",
  from: Buffer | undefined,
): Promise<Buffer | undefined> {
  const { start, end } = which === "placed" ? range.verify(storage) : range.owed(storage);
  const idOf = (at: Buffer): BlockId =>
    which === "placed" ? parse.verify(at).id : parse.owed(at).id;
  return kv.transact(
    async (tx) => {
      const at = { start: from ?? start, end, limit: BATCH_MAX };
      const entries = await tx.snapshot.range(at);
      for (const entry of entries) {
        const queued = key.leaving(storage, idOf(entry.key));
        // One whose parents are being read goes on where it is.
        if ((await tx.snapshot.get(queued)) === undefined) tx.set(queued, EMPTY);
      }
      const last = entries.at(-1);
      return last === undefined || entries.length < BATCH_MAX ? undefined : keyAfter(last.key);
    },
    { durable: false, label: "free:queue-leaving" },
  );
}

/** The storages from which something may have to leave. */
export async function storagesToLeave(kv: Kv): Promise<StorageId[]> {
  const out: StorageId[] = [];
  let { start } = range.leaving();
  const { end } = range.leaving();
  for (;;) {
    const from = start;
    const [entry] = await kv.read((reader) => reader.range({ start: from, end, limit: 1 }));
    if (entry === undefined) return out;
    const { storage } = parse.leaving(entry.key);
    out.push(storage);
    start = range.leaving(storage).end;
  }
}
