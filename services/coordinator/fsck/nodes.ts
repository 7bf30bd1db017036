// Checks of `node/<id>`: the plaintext is what the id says, everything that it names is there, at every storage where the
// node is placed (closure), and its mark follows from its copies and its children.
import { FormatError } from "#proto/format-error.ts";
import { decodeNode, type TreeNode } from "#proto/node.ts";
import type { BlockId, StorageId } from "#lib/core/ids.ts";
import type { KvReader } from "#lib/ports/kv.ts";
import { hasGoodCopy, placedAt, type BlockRecord } from "#lib/repository/block-record.ts";
import { createHasher, type Hasher } from "#lib/repository/hashing.ts";
import { key, parse, range } from "#lib/repository/keyspace.ts";
import { oweCopy, recheckAndClimb } from "./repair.ts";
import type { Check, FsckRun, Problem } from "./run.ts";
import { decodeOrUnreadable, readRecord } from "../readable-records.ts";

/** Nodes looked at in one read: each has up to 256 children, whose records are read with it. */
const STEP = 16;

/** The level of an encoded node stands in its third byte (docs/format.md); read so where its children do not matter. */
const LEVEL_AT = 2;

interface Child {
  readonly id: BlockId;
  readonly record: BlockRecord | undefined | "unreadable";
}

/** Checks all nodes. */
export async function checkNodes(run: FsckRun): Promise<void> {
  const hasher = createHasher(run.repo.keys);
  await run.checkAll("nodes", range.nodes(), STEP, (entry) =>
    checkNode(run, hasher, parse.node(entry.key)),
  );
}

/** The distinct children of a node in the order of their places. */
export function distinctChildren(node: TreeNode<BlockId>): BlockId[] {
  return [...new Set(node.children.filter((child) => child !== undefined))];
}

/** A node as its plaintext says, or undefined when the plaintext is not that of this id. */
export function readPlain(
  hasher: Hasher,
  id: BlockId,
  plain: Buffer,
): TreeNode<BlockId> | undefined {
  if (hasher.hashNode(plain).toString("hex") !== id) return undefined;
  try {
    return decodeNode<BlockId>(plain);
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

function checkNode(run: FsckRun, hasher: Hasher, id: BlockId): Check {
  const where = `node ${id}`;
  return async (reader) => {
    const plain = await reader.get(key.node(id));
    if (plain === undefined) return [];
    const node = readPlain(hasher, id, plain);
    if (node === undefined) {
      return [{ invariant: "nodes", what: "its content does not fit its id", where }];
    }
    const record = await readRecord(reader, id);
    if (record === "unreadable") return [];
    if (record === undefined) {
      return [{ invariant: "records", what: "the node has no record of its copies", where }];
    }
    if (record.kind !== "node") {
      return [{ invariant: "records", what: "its record says that it is a block", where }];
    }
    const children = await readChildren(reader, distinctChildren(node));
    return [
      ...childProblems(run, where, record, node, children),
      ...(await lowerNodeProblems(reader, where, node, children)),
      ...(await markProblems(reader, id, record, children)),
    ];
  };
}

async function readChildren(reader: KvReader, ids: readonly BlockId[]): Promise<Child[]> {
  const values = await reader.getMany(ids.map((id) => key.block(id)));
  return ids.map((id, index) => ({ id, record: decodeOrUnreadable(values[index]) }));
}

/** Children have records of the right kind, and copies wherever the node is placed. */
function childProblems(
  run: FsckRun,
  where: string,
  record: BlockRecord,
  node: TreeNode,
  children: readonly Child[],
): Problem[] {
  const kind = node.level === 0 ? "block" : "node";
  const placed = record.copies.filter((copy) => copy.state === "placed");
  return children.flatMap(({ id, record: child }): Problem[] => {
    if (child === "unreadable") return [];
    if (child === undefined) {
      return [
        { invariant: "closure", what: `${kind} ${id}, which it names, has no record`, where },
      ];
    }
    if (child.kind !== kind) {
      return [{ invariant: "records", what: `it names ${id} as a ${kind}, which is none`, where }];
    }
    return placed
      .filter(({ storage }) => !isCovered(child, storage))
      .map(({ storage }) => ({
        invariant: "closure",
        what: `it is placed at storage ${storage}, but ${kind} ${id}, which it names, is not`,
        where,
        repair: (tx) => oweCopy(tx, run.repo.random, id, storage),
      }));
  });
}

/** Placed; or bad, with a new copy on its way (I1). */
function isCovered(child: BlockRecord, storage: StorageId): boolean {
  if (placedAt(child, storage) !== undefined) return true;
  const here = child.copies.filter((copy) => copy.storage === storage);
  return (
    here.some((copy) => copy.state === "bad") &&
    here.some((copy) => copy.state === "owed" || copy.state === "coming")
  );
}

/** The nodes below are known, one level down. One that is lost everywhere may be unknown: rebuild found it so. */
async function lowerNodeProblems(
  reader: KvReader,
  where: string,
  node: TreeNode,
  children: readonly Child[],
): Promise<Problem[]> {
  if (node.level === 0) return [];
  const plains = await reader.getMany(children.map(({ id }) => key.node(id)));
  return children.flatMap(({ id, record }, index): Problem[] => {
    const plain = plains[index];
    if (plain === undefined) {
      const isLost = typeof record === "object" && record.damaged && !hasGoodCopy(record);
      if (isLost || typeof record !== "object") return [];
      return [{ invariant: "nodes", what: `node ${id}, which it names, has no content`, where }];
    }
    if (plain[LEVEL_AT] === node.level - 1) return [];
    return [{ invariant: "nodes", what: `node ${id}, which it names, is of a wrong level`, where }];
  });
}

/** Marked exactly when no copy is good or a child is marked; re-checks that are under way excuse. */
async function markProblems(
  reader: KvReader,
  id: BlockId,
  record: BlockRecord,
  children: readonly Child[],
): Promise<Problem[]> {
  // One that cannot be read is reported as that; what it says of damage is not known.
  if (children.some((child) => child.record === "unreadable")) return [];
  const marked = children.filter(
    (child) => typeof child.record !== "object" || child.record.damaged,
  );
  const expected = !hasGoodCopy(record) || marked.length > 0;
  if (expected === record.damaged) return [];
  const pending = await reader.getMany([
    key.recheck(id),
    ...children.map((child) => key.recheck(child.id)),
  ]);
  if (pending.some((entry) => entry !== undefined)) return [];
  const reason =
    marked[0] === undefined ? "no copy of it is good" : `${marked[0].id} below it is marked`;
  return [
    {
      invariant: "marks",
      what: expected
        ? `it is not marked, but ${reason}`
        : "it is marked, but it and all below it is good",
      where: `node ${id}`,
      repair: (tx) => recheckAndClimb(tx, id),
    },
  ];
}
