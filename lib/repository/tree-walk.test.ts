import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlockId } from "#lib/core/ids.ts";
import { FormatError } from "#proto/format-error.ts";
import { encodeNode } from "#proto/node.ts";
import { walkLeaves, walkParts, type Gap, type Leaf, type ReadNodes } from "./tree-walk.ts";

const idOf = (text: string): BlockId => text.padStart(64, "0") as BlockId;

/** A root over three leaves with a block each, of which the middle one is `middle`. */
function treeWith(middle: Buffer | undefined): { readonly readNodes: ReadNodes } {
  const leaf = (block: string): Buffer => encodeNode({ level: 0, children: [idOf(block)] });
  const children = ["a0", "a1", "a2"].map(idOf);
  const nodes = new Map([
    [idOf("f0"), encodeNode({ level: 1, children })],
    [idOf("a0"), leaf("b0")],
    [idOf("a2"), leaf("b2")],
    ...(middle === undefined ? [] : ([[idOf("a1"), middle]] as const)),
  ]);
  return { readNodes: (ids) => Promise.resolve(ids.map((id) => nodes.get(id))) };
}

const TREE = { root: idOf("f0"), levels: 2 };

async function partsOf(readNodes: ReadNodes): Promise<(Leaf | Gap)[]> {
  const parts: (Leaf | Gap)[] = [];
  for await (const part of walkParts(readNodes, TREE)) parts.push(part);
  return parts;
}

describe("walking a tree", () => {
  for (const [what, node, reason] of [
    ["missing", undefined, "is missing"],
    ["malformed", Buffer.from("no node"), "is not a tree node"],
    ["of another level", encodeNode({ level: 1, children: [] }), "is of another level"],
  ] as const) {
    it(`goes around a node that is ${what}, or names it`, async () => {
      const { readNodes } = treeWith(node);
      const [first, gap, last, ...more] = await partsOf(readNodes);
      assert.deepEqual([first?.id, last?.id, more], [idOf("a0"), idOf("a2"), []]);
      assert.deepEqual(gap, { id: idOf("a1"), first: 256, count: 256, reason });
      const walk = async (): Promise<void> => {
        for await (const _ of walkLeaves(readNodes, TREE));
      };
      await assert.rejects(walk, (error) => {
        assert.ok(isErrorCode(error, ErrorCode.Damaged), String(error));
        assert.match(error.message, new RegExp(`${idOf("a1")} .*blocks 256 to 511.* ${reason}`));
        return true;
      });
    });
  }

  it("does not call damaged what a newer Ashlar wrote", async () => {
    const newer = encodeNode({ level: 0, children: [] });
    newer[1] = 0xff;
    await assert.rejects(partsOf(treeWith(newer).readNodes), FormatError);
  });
});
