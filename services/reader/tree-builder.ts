// Builds a version's tree from below while its device is read: children are placed in any order, a node is committed once
// all its children are, and its parent follows.
import { assert } from "#lib/core/assert.ts";
import type { BlockId } from "#lib/core/ids.ts";
import { levelsFor, nodesAtLevel, NODE_FAN_OUT } from "#lib/repository/tree.ts";
import type { ReleaseEpoch } from "./epoch-tracker.ts";

/** A node of the tree: its id, undefined where everything below is zero; `release` lets the epoch of its claim go. */
export interface PlacedNode {
  readonly id: BlockId | undefined;
  readonly release?: ReleaseEpoch;
}

/** Brings a node to its place in the metadata; resolves once a parent may name it. */
export type CommitNode = (
  level: number,
  index: number,
  children: (BlockId | undefined)[],
) => Promise<PlacedNode>;

interface Accumulator {
  readonly children: (BlockId | undefined)[];
  readonly releases: ReleaseEpoch[];
  placed: number;
}

/** Accumulates a tree of known or (a stream) yet unknown size. */
export class TreeBuilder {
  readonly #commit: CommitNode;
  readonly #open = new Map<string, Accumulator>();
  /** Nodes that stand at index 0 of their level: one of them is the root. */
  readonly #firsts = new Map<number, PlacedNode>();
  readonly #root = Promise.withResolvers<PlacedNode>();
  #blockCount: number | undefined;

  constructor(commit: CommitNode, blockCount: number | undefined) {
    this.#commit = commit;
    this.#blockCount = blockCount;
    this.#root.promise.catch(() => undefined);
  }

  /** Resolves with the root once everything is placed. */
  get root(): Promise<PlacedNode> {
    return this.#root.promise;
  }

  /** A node is where a parent may name it. */
  place(level: number, index: number, node: PlacedNode): void {
    if (index === 0) this.#firsts.set(level, node);
    if (this.#blockCount !== undefined && level === levelsFor(this.#blockCount) - 1) {
      this.#finish(level, node);
      return;
    }
    const parentIndex = Math.floor(index / NODE_FAN_OUT);
    const at = `${level + 1}/${parentIndex}`;
    let parent = this.#open.get(at);
    if (parent === undefined) {
      parent = {
        children: Array.from({ length: NODE_FAN_OUT }),
        releases: [],
        placed: 0,
      };
      this.#open.set(at, parent);
    }
    parent.children[index % NODE_FAN_OUT] = node.id;
    if (node.release !== undefined) parent.releases.push(node.release);
    parent.placed += 1;
    if (parent.placed === this.#expected(level + 1, parentIndex)) {
      this.#emit(level + 1, parentIndex);
    }
  }

  /** The size of a stream is known now: nodes that are not full are complete. All leaves have been placed. */
  end(blockCount: number): void {
    assert(this.#blockCount === undefined, "a stream ends once");
    this.#blockCount = blockCount;
    const level = levelsFor(blockCount) - 1;
    const root = this.#firsts.get(level);
    if (root !== undefined) {
      this.#finish(level, root);
      return;
    }
    for (const [at, node] of this.#open) {
      const [nodeLevel, index] = at.split("/").map(Number) as [number, number];
      if (nodeLevel <= level && node.placed === this.#expected(nodeLevel, index)) {
        this.#emit(nodeLevel, index);
      }
    }
  }

  #expected(level: number, index: number): number {
    if (this.#blockCount === undefined) return NODE_FAN_OUT;
    const children = nodesAtLevel(this.#blockCount, level - 1);
    return Math.min(NODE_FAN_OUT, children - index * NODE_FAN_OUT);
  }

  #emit(level: number, index: number): void {
    const at = `${level}/${index}`;
    const node = this.#open.get(at);
    if (node === undefined) return;
    this.#open.delete(at);
    this.#place(level, index, node).catch((error: unknown) => this.#root.reject(error));
  }

  async #place(level: number, index: number, node: Accumulator): Promise<void> {
    const isZero = node.children.every((child) => child === undefined);
    const placed = isZero ? { id: undefined } : await this.#commit(level, index, node.children);
    for (const release of node.releases) release();
    this.place(level, index, placed);
  }

  #finish(level: number, node: PlacedNode): void {
    if (node.id !== undefined) {
      this.#root.resolve(node);
      return;
    }
    // A version always has a root, also when all of it is zero.
    this.#commit(level, 0, []).then(this.#root.resolve, this.#root.reject);
  }
}
