// Geometry of a version's hash tree: fan-out 256, leaves at level 0. A node at (level, index) covers the blocks
// [index · 256^(level+1), (index + 1) · 256^(level+1)), whatever the height of the tree.
import { assert } from "#lib/core/assert.ts";
import { NODE_FAN_OUT } from "#proto/node.ts";

export { NODE_FAN_OUT };

/** Blocks that a device of this size has; the last may be short. */
export function blockCountOf(sizeBytes: number, blockBytes: number): number {
  return Math.ceil(sizeBytes / blockBytes);
}

/** Bytes of block `index` of a device. */
export function blockLength(sizeBytes: number, blockBytes: number, index: number): number {
  const length = Math.min(blockBytes, sizeBytes - index * blockBytes);
  assert(length > 0, "a block within the device");
  return length;
}

/** Height of the tree: the smallest L ≥ 1 with 256^L ≥ blocks. The root is at level L − 1, index 0. */
export function levelsFor(blockCount: number): number {
  let levels = 1;
  for (let covered = NODE_FAN_OUT; covered < blockCount; covered *= NODE_FAN_OUT) levels += 1;
  return levels;
}

/** Blocks that a node of this level covers. */
export function blocksPerNode(level: number): number {
  return NODE_FAN_OUT ** (level + 1);
}

/** Nodes that a tree over so many blocks has at a level (at least 1 at the root's). */
export function nodesAtLevel(blockCount: number, level: number): number {
  return Math.max(1, Math.ceil(blockCount / blocksPerNode(level)));
}
