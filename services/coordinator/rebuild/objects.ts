// Which object of a block or node a storage's copy is to be. One that is listed once and has a plausible size counts, as a
// copy does that was put; where there are several, or one was found bad before, they are read, for the wrong choice would
// let a sweep delete the right one. Nodes are always opened: the tree is read out of them.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import type { BlockRecord, Copy } from "#lib/repository/block-record.ts";
import { currentAt, placedAt } from "#lib/repository/block-record.ts";
import { key, objectName } from "#lib/repository/keyspace.ts";
import { FormatError, FormatFault } from "#proto/format-error.ts";
import { decodeNode, type TreeNode } from "#proto/node.ts";
import { SEAL_OVERHEAD_BYTES_MAX, SEAL_OVERHEAD_BYTES_MIN } from "#proto/sealed-object.ts";
import { readUsable } from "../readable-records.ts";
import { findObjects, type ListedObject } from "./keyspace.ts";
import type { RebuildRun } from "./run.ts";

/** What a storage has of a block or node. */
export interface Judged {
  readonly storage: StorageId;
  /** A good object that no record names as placed yet. */
  readonly good: Generation | undefined;
  /** An object that is there and is not good. */
  readonly rotten: Generation | undefined;
  /** Of the good one. */
  readonly sizeBytes: number;
  /** When its bytes were read and right, in ms since 1970; 0 when they were not read. */
  readonly verifiedMs: number;
}

/** A node with what the storages have of it. */
export interface JudgedNode {
  /** Undefined when no storage that is given, nor the metadata, have it. */
  readonly plain: Buffer | undefined;
  readonly node: TreeNode<BlockId> | undefined;
  readonly judged: readonly Judged[];
}

/** Judges the objects of a block of that many bytes. */
export async function judgeBlock(
  run: RebuildRun,
  id: BlockId,
  plainBytes: number,
): Promise<Judged[]> {
  const { record, objects } = await look(run, "block", id);
  const out: Judged[] = [];
  for (const [storage, listed] of byStorage(objects)) {
    if (record !== undefined && placedAt(record, storage) !== undefined) continue;
    const { candidates, odd } = sift(record, storage, listed, plainBytes);
    const only = candidates.length === 1 && odd === undefined ? candidates[0] : undefined;
    if (only !== undefined) out.push(good(storage, only, 0));
    else out.push(await choose(run, "block", id, storage, candidates, odd));
  }
  return out;
}

/** Judges the objects of a node, and gets its plaintext. */
export async function judgeNode(run: RebuildRun, id: BlockId, level: number): Promise<JudgedNode> {
  const { record, objects, known } = await look(run, "node", id);
  let plain = known !== undefined && fits(run, id, known) ? known : undefined;
  const judged: Judged[] = [];
  for (const [storage, listed] of byStorage(objects)) {
    const placed = record === undefined ? undefined : placedAt(record, storage);
    if (placed !== undefined) {
      plain ??= await openObject(run, "node", id, storage, placed.generation);
      continue;
    }
    const { candidates, odd } = sift(record, storage, listed, Infinity);
    const one = await choose(run, "node", id, storage, candidates, odd, (opened) => {
      plain ??= opened;
    });
    judged.push(one);
  }
  const node = plain === undefined ? undefined : decode(plain);
  if (node?.level === level) return { plain, node, judged };
  // Its objects open, but are no node of this place: nothing that Ashlar wrote.
  const rotten = judged.map(({ storage, good: opened, rotten: damaged }): Judged => {
    return { storage, good: undefined, rotten: opened ?? damaged, sizeBytes: 0, verifiedMs: 0 };
  });
  return { plain: undefined, node: undefined, judged: rotten };
}

interface Look {
  readonly record: BlockRecord | undefined;
  readonly objects: readonly ListedObject[];
  readonly known: Buffer | undefined;
}

function look(run: RebuildRun, kind: "block" | "node", id: BlockId): Promise<Look> {
  return run.kv.read(async (reader) => ({
    record: await readUsable(reader, id),
    objects: await findObjects(reader, kind, id),
    known: kind === "node" ? await reader.get(key.node(id)) : undefined,
  }));
}

function byStorage(objects: readonly ListedObject[]): Map<StorageId, ListedObject[]> {
  return Map.groupBy(objects, ({ storage }) => storage);
}

/** Tells what may be good, the record's own first, from what cannot be whole. What was found bad makes all be read. */
function sift(
  record: BlockRecord | undefined,
  storage: StorageId,
  listed: readonly ListedObject[],
  plainBytes: number,
): { readonly candidates: readonly ListedObject[]; readonly odd: Generation | undefined } {
  const bad = record?.copies.find((copy) => copy.storage === storage && copy.state === "bad");
  const own = record === undefined ? undefined : currentAt(record, storage)?.generation;
  const isWhole = ({ sizeBytes }: ListedObject): boolean =>
    sizeBytes > SEAL_OVERHEAD_BYTES_MIN && sizeBytes <= SEAL_OVERHEAD_BYTES_MAX + plainBytes;
  const candidates = listed
    .filter(isWhole)
    .toSorted((a, b) => Number(b.generation === own) - Number(a.generation === own));
  return { candidates, odd: bad?.generation ?? listed.find((each) => !isWhole(each))?.generation };
}

const good = (storage: StorageId, object: ListedObject, verifiedMs: number): Judged => ({
  storage,
  good: object.generation,
  rotten: undefined,
  sizeBytes: object.sizeBytes,
  verifiedMs,
});

/** The first of the candidates that opens. */
async function choose(
  run: RebuildRun,
  kind: "block" | "node",
  id: BlockId,
  storage: StorageId,
  candidates: readonly ListedObject[],
  odd: Generation | undefined,
  opened?: (plain: Buffer) => void,
): Promise<Judged> {
  for (const object of candidates) {
    const plain = await openObject(run, kind, id, storage, object.generation);
    if (plain === undefined) continue;
    opened?.(plain);
    return good(storage, object, run.request.clock.now());
  }
  const rotten = odd ?? candidates[0]?.generation;
  return { storage, good: undefined, rotten, sizeBytes: 0, verifiedMs: 0 };
}

/** An object's plaintext, or undefined when it is gone or damaged. */
async function openObject(
  run: RebuildRun,
  kind: "block" | "node",
  id: BlockId,
  storage: StorageId,
  generation: Copy["generation"],
): Promise<Buffer | undefined> {
  const { signal } = run.request;
  const name = objectName(kind, id, generation);
  try {
    const options = signal === undefined ? {} : { signal };
    const sealed = await run.store(storage).get(name, options);
    return run.sealer.open({ kind, id, sealed });
  } catch (error) {
    const isLost =
      error instanceof AshlarError &&
      (error.code === ErrorCode.NotFound || error.code === ErrorCode.Damaged);
    if (isLost) return undefined;
    throw error;
  }
}

function fits(run: RebuildRun, id: BlockId, plain: Buffer): boolean {
  return run.hasher.hashNode(plain).toString("hex") === id;
}

function decode(plain: Buffer): TreeNode<BlockId> | undefined {
  try {
    return decodeNode<BlockId>(plain);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    if (error.fault !== FormatFault.Newer) return undefined;
    throw new AshlarError(ErrorCode.Refused, `a tree node ${error.message}`, {
      cause: error,
      remedy: "Use the newer Ashlar.",
    });
  }
}
