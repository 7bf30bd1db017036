// Walking a version's tree in order, reading only what is needed.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId } from "#lib/core/ids.ts";
import { FormatError, FormatFault } from "#proto/format-error.ts";
import { decodeNode } from "#proto/node.ts";
import { blocksPerNode, NODE_FAN_OUT } from "./tree.ts";

/** Plaintexts of nodes, in order; undefined where a node is not there. */
export type ReadNodes = (ids: readonly BlockId[]) => Promise<(Buffer | undefined)[]>;

/** A leaf with the block ids that it lists, by position; `first` is the block index of position 0. */
export interface Leaf {
  readonly id: BlockId;
  readonly first: number;
  readonly blocks: readonly (BlockId | undefined)[];
}

/** A tree to walk. */
export interface Tree {
  readonly root: BlockId;
  readonly levels: number;
}

/** Blocks [from, to). */
export interface BlockRange {
  readonly from: number;
  readonly to: number;
}

/** A part of a tree that cannot be read: everything below a node that is missing or malformed. */
export interface Gap {
  /** The node. */
  readonly id: BlockId;
  /** The first block below it; there may be fewer in the version than it has room for. */
  readonly first: number;
  readonly count: number;
  /** What is wrong with the node, as a clause: "is missing". */
  readonly reason: string;
}

/**
 * The leaves of a tree that intersect `range`, in order; leaves that are wholly zero do not come.
 * Holds at most one node per level in memory. A missing or malformed node is Damaged, naming its blocks.
 */
export async function* walkLeaves(
  readNodes: ReadNodes,
  tree: Tree,
  range: BlockRange = ALL_BLOCKS,
): AsyncGenerator<Leaf> {
  for await (const part of walkParts(readNodes, tree, range)) {
    if ("blocks" in part) yield part;
    else throw gapError(part);
  }
}

/** {@link walkLeaves} around what is damaged: a node that is missing or malformed comes as a gap, in its place. */
export async function* walkParts(
  readNodes: ReadNodes,
  tree: Tree,
  range: BlockRange = ALL_BLOCKS,
): AsyncGenerator<Leaf | Gap> {
  yield* walk(readNodes, tree.root, tree.levels - 1, 0, range);
}

const ALL_BLOCKS: BlockRange = { from: 0, to: Infinity };

async function* walk(
  readNodes: ReadNodes,
  id: BlockId,
  level: number,
  index: number,
  range: BlockRange,
): AsyncGenerator<Leaf | Gap> {
  const count = blocksPerNode(level);
  const first = index * count;
  const children = await readChildren(readNodes, id, level);
  if (typeof children === "string") {
    yield { id, first, count, reason: children };
    return;
  }
  if (level === 0) {
    yield { id, first, blocks: children };
    return;
  }
  const span = blocksPerNode(level - 1);
  for (const [position, child] of children.entries()) {
    if (child === undefined) continue;
    const childIndex = index * NODE_FAN_OUT + position;
    if ((childIndex + 1) * span <= range.from || childIndex * span >= range.to) continue;
    yield* walk(readNodes, child, level - 1, childIndex, range);
  }
}

/** The node's children, or what is wrong with it. */
async function readChildren(
  readNodes: ReadNodes,
  id: BlockId,
  level: number,
): Promise<readonly (BlockId | undefined)[] | string> {
  const [plain] = await readNodes([id]);
  if (plain === undefined) return "is missing";
  try {
    const node = decodeNode<BlockId>(plain);
    return node.level === level ? node.children : "is of another level";
  } catch (error) {
    // What a newer Ashlar wrote is not damaged.
    if (!(error instanceof FormatError) || error.fault === FormatFault.Newer) throw error;
    return error.message;
  }
}

function gapError({ id, first, count, reason }: Gap): AshlarError {
  const where = `blocks ${first} to ${first + count - 1}`;
  return new AshlarError(ErrorCode.Damaged, `tree node ${id} (${where}) ${reason}`, {
    remedy: "`ashlar scrub --deep` tells what is damaged; another storage may have it",
    details: { node: id, firstBlock: first },
  });
}
