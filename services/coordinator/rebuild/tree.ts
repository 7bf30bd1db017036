// Takes a version's tree into the metadata, from below: blocks with their leaf, then the nodes above, each in one
// transaction, so that a rebuild may stop anywhere. What several versions share is taken in once.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { shortIdFrom, SHORT_ID_BYTES, type BlockId, type StorageId } from "#lib/core/ids.ts";
import type { KvTransaction } from "#lib/ports/kv.ts";
import type { BlockRecord } from "#lib/repository/block-record.ts";
import { key } from "#lib/repository/keyspace.ts";
import { hasReference, queueUnreferenced, saveBlock } from "#lib/repository/ledger.ts";
import { NODE_FAN_OUT } from "#lib/repository/tree.ts";
import { readUsable } from "../readable-records.ts";
import { isCoveredAt, saveFound } from "./copies.ts";
import { rebuildKey } from "./keyspace.ts";
import { judgeBlock, judgeNode, type Judged, type JudgedNode } from "./objects.ts";
import type { RebuildRun } from "./run.ts";

/** A version's tree. */
export interface RebuildTree {
  readonly root: BlockId;
  readonly levels: number;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** The given storages that show the version's head, or have its root by the metadata: all of it was there. */
  readonly backed: readonly StorageId[];
  /** The storages of its policy. */
  readonly wanted: readonly StorageId[];
}

/** A node's place in its tree. */
interface Place {
  readonly id: BlockId;
  readonly level: number;
  readonly index: number;
}

/** Nodes that are read at once: they are small, and some storages are far away. */
const PARALLEL = 16;

const EMPTY = Buffer.alloc(0);

/** Takes in a tree: afterwards its root has a record, and everything below that could be read. */
export function importTree(run: RebuildRun, tree: RebuildTree): Promise<void> {
  return importNode(run, tree, { id: tree.root, level: tree.levels - 1, index: 0 });
}

async function importNode(run: RebuildRun, tree: RebuildTree, place: Place): Promise<void> {
  run.request.signal?.throwIfAborted();
  const { id, level } = place;
  const done = await readDone(run, id);
  if (done !== undefined && tree.backed.every((storage) => done.includes(storage))) return;
  const backed = [...new Set([...(done ?? []), ...tree.backed])];
  const judged = await judgeNode(run, id, level);
  const children = childrenOf(judged, place);
  if (level > 0) {
    const each = (child: Place): Promise<void> => importNode(run, tree, child);
    // Only the lowest inner nodes read their children at once, so that the tree's width is never in memory.
    if (level === 1) await inParallel(children, each);
    else for (const child of children) await each(child);
  }
  const blocks = level === 0 ? await judgeBlocks(run, tree, children) : [];
  const changes = await run.transact(async (tx) => {
    const saved: Change[] = [];
    for (const block of blocks)
      saved.push(await saveBlockFound(run, tx, block, backed, tree.wanted));
    saved.push(await saveNode(run, tx, id, children, judged, backed, tree.wanted));
    tx.set(rebuildKey.done(id), packStorages(backed));
    return saved;
  });
  for (const change of changes) tallyChange(run, change);
}

/** A record before and after. */
interface Change {
  readonly before: BlockRecord | undefined;
  readonly after: BlockRecord;
}

/** The distinct children, each at the first of its places. */
function childrenOf({ node }: JudgedNode, place: Place): Place[] {
  const children = new Map<BlockId, Place>();
  for (const [position, id] of (node?.children ?? []).entries()) {
    if (id === undefined || children.has(id)) continue;
    const index = place.index * NODE_FAN_OUT + position;
    children.set(id, { id, level: place.level - 1, index });
  }
  return [...children.values()];
}

async function inParallel(
  places: readonly Place[],
  work: (place: Place) => Promise<void>,
): Promise<void> {
  const queue = [...places].toReversed();
  const worker = async (): Promise<void> => {
    for (let place = queue.pop(); place !== undefined; place = queue.pop()) {
      try {
        await work(place);
      } catch (error) {
        // The others stop after what they are at, which is awaited: nothing goes on behind the caller's back.
        queue.length = 0;
        throw error;
      }
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: PARALLEL }, worker));
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

interface JudgedBlock {
  readonly id: BlockId;
  readonly plainBytes: number;
  readonly judged: readonly Judged[];
}

function judgeBlocks(
  run: RebuildRun,
  tree: RebuildTree,
  blocks: readonly Place[],
): Promise<JudgedBlock[]> {
  return Promise.all(
    blocks.map(async ({ id, index }) => {
      // The last block of a device may be short; one beyond its end, which nobody writes, is taken for a whole one.
      const rest = tree.sizeBytes - index * tree.blockBytes;
      const plainBytes = rest > 0 ? Math.min(tree.blockBytes, rest) : tree.blockBytes;
      return { id, plainBytes, judged: await judgeBlock(run, id, plainBytes) };
    }),
  );
}

async function saveBlockFound(
  run: RebuildRun,
  tx: KvTransaction,
  block: JudgedBlock,
  backed: readonly StorageId[],
  wanted: readonly StorageId[],
): Promise<Change> {
  const before = await readUsable(tx, block.id);
  const after = await saveFound(run, tx, before, {
    ...block,
    kind: "block",
    backed,
    wanted,
    isClosedAt: () => true,
    hasMarkedChild: false,
  });
  return { before, after };
}

/** Saves the node's record; with its content, that and its references. */
async function saveNode(
  run: RebuildRun,
  tx: KvTransaction,
  id: BlockId,
  children: readonly Place[],
  { plain, judged }: JudgedNode,
  backed: readonly StorageId[],
  wanted: readonly StorageId[],
): Promise<Change> {
  const records = await readChildren(tx, children);
  const before = await readUsable(tx, id);
  const after = await saveFound(run, tx, before, {
    id,
    kind: "node",
    plainBytes: plain?.length ?? before?.plainBytes ?? 0,
    judged,
    backed,
    wanted,
    // One that could not be read is placed nowhere: its objects are damaged, or there are none.
    isClosedAt: (storage) => records.every((record) => isCoveredAt(record, storage)),
    hasMarkedChild: records.some((record) => record.damaged),
  });
  if (!(await hasReference(tx, id))) {
    // Until a parent or a version refers to it. Where the rebuild stops before that, the collector finds it.
    queueUnreferenced(tx, id);
  }
  if (plain === undefined) return { before, after };
  const known = await tx.get(key.node(id));
  if (known?.equals(plain) === true) return { before, after };
  tx.set(key.node(id), plain);
  for (const child of children) tx.set(key.reference(child.id, { kind: "node", id }), EMPTY);
  return { before, after };
}

/** The children's records, revived; a collector that works meanwhile may have taken one away, which a new run brings back. */
async function readChildren(tx: KvTransaction, children: readonly Place[]): Promise<BlockRecord[]> {
  const out: BlockRecord[] = [];
  for (const { id } of children) {
    const record = await readUsable(tx, id);
    if (record === undefined) {
      throw new AshlarError(ErrorCode.TryAgain, `${id} was collected while it was taken in`, {
        remedy: "stop the other processes of this repository, and run the rebuild again",
      });
    }
    const revived = { ...record, condemnedEpoch: undefined };
    if (record.condemnedEpoch !== undefined) await saveBlock(tx, id, record, revived);
    out.push(revived);
  }
  return out;
}

function tallyChange(run: RebuildRun, { before, after }: Change): void {
  for (const copy of after.copies) {
    const isNew = !before?.copies.some(
      (each) => each.state === copy.state && each.storage === copy.storage,
    );
    if (isNew && copy.state === "placed") run.tally(copy.storage, "adopted");
    if (isNew && copy.state === "bad") run.tally(copy.storage, "lost");
  }
}

async function readDone(run: RebuildRun, id: BlockId): Promise<StorageId[] | undefined> {
  const value = await run.kv.read((reader) => reader.get(rebuildKey.done(id)));
  if (value === undefined) return undefined;
  const out: StorageId[] = [];
  for (let at = 0; at < value.length; at += SHORT_ID_BYTES) {
    out.push(shortIdFrom<StorageId>(value, at));
  }
  return out;
}

function packStorages(storages: readonly StorageId[]): Buffer {
  return Buffer.concat(storages.map((storage) => Buffer.from(storage, "hex")));
}
