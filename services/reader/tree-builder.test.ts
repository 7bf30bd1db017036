import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import type { BlockId } from "#lib/core/ids.ts";
import { levelsFor, nodesAtLevel, NODE_FAN_OUT } from "#lib/repository/tree.ts";
import { TreeBuilder } from "./tree-builder.ts";

/** A node's id in these tests tells what is in it. */
function nameOf(level: number, index: number, children: readonly (BlockId | undefined)[]): BlockId {
  const present = children.flatMap((child, at) => (child === undefined ? [] : [at]));
  return `${level}/${index}:${present.join(",")}` as BlockId;
}

function leavesOf(blockCount: number): number {
  return nodesAtLevel(blockCount, 0);
}

async function build(
  blockCount: number,
  order: readonly number[],
  isZero: (leaf: number) => boolean,
  isStream: boolean,
): Promise<{ root: BlockId | undefined; committed: string[] }> {
  const committed: string[] = [];
  const tree = new TreeBuilder(
    async (level, index, children) => {
      await Promise.resolve();
      const id = nameOf(level, index, children);
      committed.push(id);
      return { id };
    },
    isStream ? undefined : blockCount,
  );
  for (const leaf of order) {
    tree.place(0, leaf, { id: isZero(leaf) ? undefined : (`leaf${leaf}` as BlockId) });
  }
  if (isStream) tree.end(blockCount);
  return { root: (await tree.root).id, committed };
}

describe("TreeBuilder", () => {
  it("gives an empty root to a device that is all zero, or has no bytes", async () => {
    for (const blocks of [0, 1, 256, 257, 70_000]) {
      const order = Array.from({ length: leavesOf(blocks) }, (_, leaf) => leaf);
      const { root, committed } = await build(blocks, order, () => true, false);
      assert.equal(root, `${levelsFor(blocks) - 1}/0:`);
      assert.equal(committed.length, 1, "only the root is committed");
    }
  });

  it("builds the same tree whatever the order of its leaves, and whether its size was known", async () => {
    const shape = fc.record({
      leaves: fc.integer({ min: 1, max: 600 }),
      seed: fc.integer(),
      zeros: fc.integer({ min: 1, max: 5 }),
    });
    await fc.assert(
      fc.asyncProperty(shape, async ({ leaves, seed, zeros }) => {
        const blockCount = leaves * NODE_FAN_OUT - 1;
        const isZero = (leaf: number): boolean => (leaf * 7 + seed) % zeros === 0;
        const forwards = Array.from({ length: leaves }, (_, leaf) => leaf);
        const shuffled = forwards.toSorted(
          (a, b) => ((a * 31 + seed) % 17) - ((b * 31 + seed) % 17),
        );
        const known = await build(blockCount, forwards, isZero, false);
        const mixed = await build(blockCount, shuffled, isZero, false);
        const stream = await build(blockCount, forwards, isZero, true);
        assert.equal(mixed.root, known.root);
        assert.equal(stream.root, known.root);
        assert.deepEqual(new Set(mixed.committed), new Set(known.committed));
      }),
      { numRuns: 60 },
    );
  });

  it("fails as a whole when a node cannot be committed", async () => {
    const tree = new TreeBuilder(() => Promise.reject(new Error("no")), 300);
    tree.place(0, 0, { id: "a" as BlockId });
    tree.place(0, 1, { id: "b" as BlockId });
    await assert.rejects(tree.root, /no/);
  });
});
