import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import type { BlockId } from "#lib/core/ids.ts";
import { levelsFor, NODE_FAN_OUT } from "#lib/repository/tree.ts";
import { encodeNode } from "#proto/node.ts";
import { planBackup, type PlannedPart, type PlannedRange } from "./backup-plan.ts";

const BLOCK = 512;

/** A tree in memory: plaintexts by id, ids counted up. */
class Trees {
  readonly #plains = new Map<BlockId, Buffer>();

  add(level: number, children: (BlockId | undefined)[]): BlockId {
    const id = (this.#plains.size + 1).toString(16).padStart(64, "0") as BlockId;
    this.#plains.set(id, encodeNode({ level, children }));
    return id;
  }

  /** Builds a version over these blocks; returns its root. */
  version(blocks: readonly (BlockId | undefined)[]): BlockId {
    let nodes: (BlockId | undefined)[] = [...blocks];
    for (let level = 0; level < levelsFor(blocks.length); level += 1) {
      const parents: (BlockId | undefined)[] = [];
      for (let at = 0; at < Math.max(1, nodes.length); at += NODE_FAN_OUT) {
        const children = nodes.slice(at, at + NODE_FAN_OUT);
        const isTop = level === levelsFor(blocks.length) - 1;
        const isZero = children.every((child) => child === undefined);
        parents.push(isZero && !isTop ? undefined : this.add(level, children));
      }
      nodes = parents;
    }
    return nodes[0] as BlockId;
  }

  readonly read = (ids: readonly BlockId[]): Promise<(Buffer | undefined)[]> =>
    Promise.resolve(ids.map((id) => this.#plains.get(id)));

  /** The blocks below a node. */
  async blocksOf(id: BlockId): Promise<(BlockId | undefined)[]> {
    const { decodeNode } = await import("#proto/node.ts");
    const node = decodeNode<BlockId>(this.#plains.get(id) as Buffer);
    if (node.level === 0) return [...node.children];
    const span = NODE_FAN_OUT ** node.level;
    const below = await Promise.all(
      node.children.map((child) =>
        child === undefined
          ? Promise.resolve(Array.from<BlockId | undefined>({ length: span }))
          : this.blocksOf(child),
      ),
    );
    return below.flat();
  }
}

const blockId = (at: number): BlockId => `b${at}`.padEnd(64, "0").replace("b", "d") as BlockId;

async function* ranges(list: readonly PlannedRange[]): AsyncGenerator<PlannedRange> {
  yield* list;
  await Promise.resolve();
}

/** Applies a plan: what every block of the new version comes to. */
async function apply(
  trees: Trees,
  parts: AsyncIterable<PlannedPart>,
  blockCount: number,
): Promise<{ state: (BlockId | "read" | "sample" | undefined)[]; leaves: number }> {
  const state: (BlockId | "read" | "sample" | undefined)[] = Array.from({ length: blockCount });
  const covered = new Uint8Array(blockCount);
  let leaves = 0;
  for await (const part of parts) {
    const level = part.kind === "leaf" ? 0 : part.level;
    const first = part.index * NODE_FAN_OUT ** (level + 1);
    const end = Math.min(blockCount, first + NODE_FAN_OUT ** (level + 1));
    assert.ok(
      covered.subarray(first, end).every((seen) => seen === 0),
      "no block comes twice",
    );
    covered.fill(1, first, end);
    let below: readonly (BlockId | undefined)[] = [];
    if (part.kind === "leaf") {
      leaves += 1;
      below = part.keep;
    } else if (part.id !== undefined) {
      below = await trees.blocksOf(part.id);
    }
    for (let at = first; at < end; at += 1) state[at] = below[at - first];
    if (part.kind === "leaf") {
      for (const range of part.reads) {
        assert.notEqual(range.state, "zero");
        state.fill(range.state as "read" | "sample", range.from, range.to);
      }
    }
  }
  assert.ok(
    covered.every((seen) => seen === 1),
    "every block comes",
  );
  return { state, leaves };
}

const plan = (
  trees: Trees,
  blockCount: number,
  list: readonly PlannedRange[],
  base?: { root: BlockId; blocks: number },
) =>
  planBackup({
    sizeBytes: blockCount * BLOCK,
    blockBytes: BLOCK,
    ranges: ranges(list),
    base:
      base === undefined
        ? undefined
        : { root: base.root, levels: levelsFor(base.blocks), sizeBytes: base.blocks * BLOCK },
    readNodes: trees.read,
    placed: new Map(),
  });

describe("planBackup", () => {
  it("reads nothing of a device without allocated blocks, in one part", async () => {
    const parts = [];
    for await (const part of plan(new Trees(), 4_000_000, [])) parts.push(part);
    assert.deepEqual(parts, [{ kind: "node", level: 2, index: 0, id: undefined }]);
  });

  it("takes over whole subtrees of the base where nothing has changed", async () => {
    const trees = new Trees();
    const blocks = Array.from({ length: 70_000 }, (_, at) => blockId(at % 50));
    const root = trees.version(blocks);
    const list: PlannedRange[] = [{ from: 300, to: 301, state: "read" }];
    const { state, leaves } = await apply(
      trees,
      plan(trees, 70_000, list, { root, blocks: 70_000 }),
      70_000,
    );
    assert.equal(leaves, 1);
    assert.equal(state[300], "read");
    assert.equal(state[299], blocks[299]);
    assert.equal(state[69_999], blocks[69_999]);
  });

  it("does what a plain loop over all blocks does, for bases of any size", async () => {
    const cases = fc.record({
      blocks: fc.integer({ min: 1, max: 70_000 }),
      baseBlocks: fc.option(fc.integer({ min: 1, max: 70_000 }), { nil: undefined }),
      cuts: fc.array(fc.nat(), { maxLength: 12 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ blocks, baseBlocks, cuts }) => {
        const trees = new Trees();
        const old = Array.from({ length: baseBlocks ?? 0 }, (_, at) =>
          at % 5 === 0 || Math.floor(at / 600) % 3 === 1 ? undefined : blockId(at % 99),
        );
        const points = [...new Set(cuts.map((cut) => cut % blocks))].toSorted((a, b) => a - b);
        const list: PlannedRange[] = [];
        for (let at = 0; at + 1 < points.length; at += 2) {
          const state = (["read", "zero", "sample"] as const)[at % 3] as PlannedRange["state"];
          list.push({ from: points[at] as number, to: points[at + 1] as number, state });
        }
        // What the base has in another length is always read: here, everything behind its end.
        if (baseBlocks !== undefined && baseBlocks < blocks) {
          const rest = list.filter((range) => range.to <= baseBlocks);
          list.splice(0, list.length, ...rest, { from: baseBlocks, to: blocks, state: "read" });
        }
        const expected = Array.from(
          { length: blocks },
          (_, at) => old[at] as BlockId | "read" | "sample" | undefined,
        );
        for (const range of list) {
          expected.fill(range.state === "zero" ? undefined : range.state, range.from, range.to);
        }
        const base =
          baseBlocks === undefined ? undefined : { root: trees.version(old), blocks: baseBlocks };
        const { state } = await apply(trees, plan(trees, blocks, list, base), blocks);
        assert.deepEqual(state, expected);
      }),
      { numRuns: 60 },
    );
  });
});
