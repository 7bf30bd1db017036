// Walking a version's tree in order, reading only what is needed.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId } from "#lib/core/ids.ts";
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

/**
 * The leaves of a tree that intersect `range`, in order; leaves that are wholly zero do not come.
 * Holds at most one node per level in memory. A missing or malformed node is Damaged, naming its blocks.
 */
export async function* walkLeaves(
  readNodes: ReadNodes,
  tree: Tree,
  range: BlockRange = { from: 0, to: Infinity },
): AsyncGenerator<Leaf> {
  yield* walk(readNodes, tree.root, tree.levels - 1, 0, range);
}

async function* walk(
  readNodes: ReadNodes,
  id: BlockId,
  level: number,
  index: number,
  range: BlockRange,
): AsyncGenerator<Leaf> {
  const children = await readChildren(readNodes, id, level, index);
  if (level === 0) {
    yield { id, first: index * NODE_FAN_OUT, blocks: children };
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

async function readChildren(
  readNodes: ReadNodes,
  id: BlockId,
  level: number,
  index: number,
): Promise<readonly (BlockId | undefined)[]> {
  const [plain] = await readNodes([id]);
  const first = index * blocksPerNode(level);
  const where = `blocks ${first} to ${first + blocksPerNode(level) - 1}`;
  if (plain === undefined) {
    throw new AshlarError(ErrorCode.Damaged, `tree node ${id} (${where}) is missing`, {
      remedy: "`ashlar scrub --deep` tells what is damaged; another storage may have it",
      details: { node: id, firstBlock: first },
    });
  }
  const node = decodeNode<BlockId>(plain);
  if (node.level !== level) {
    throw new AshlarError(ErrorCode.Damaged, `tree node ${id} (${where}) is of another level`);
  }
  return node.children;
}
