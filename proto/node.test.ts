import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { FormatError, FormatFault } from "./format-error.ts";
import { decodeNode, encodeNode, NODE_BYTES_MAX, NODE_FAN_OUT, NODE_LEVEL_MAX } from "./node.ts";

const id = fc
  .uint8Array({ minLength: 32, maxLength: 32 })
  .map((bytes) => Buffer.from(bytes).toString("hex"));
const node = fc.record({
  level: fc.nat({ max: NODE_LEVEL_MAX }),
  children: fc.array(fc.option(id, { nil: undefined }), { maxLength: NODE_FAN_OUT, size: "max" }),
});

function decodes(bytes: Uint8Array): boolean {
  try {
    decodeNode(bytes);
    return true;
  } catch (error) {
    assert.ok(error instanceof FormatError, String(error));
    return false;
  }
}

describe("a tree node", () => {
  it("comes back with all 256 positions", () => {
    fc.assert(
      fc.property(node, (value) => {
        const decoded = decodeNode(encodeNode(value));
        assert.equal(decoded.level, value.level);
        assert.equal(decoded.children.length, NODE_FAN_OUT);
        for (let index = 0; index < NODE_FAN_OUT; index += 1) {
          assert.equal(decoded.children[index], value.children[index]);
        }
      }),
    );
  });

  it("has one byte string only: whatever decodes encodes to the same bytes", () => {
    const mutated = fc
      .tuple(node, fc.nat(), fc.integer({ min: 1, max: 255 }))
      .map(([value, at, flip]) => {
        const bytes = encodeNode(value);
        const index = at % Math.min(bytes.length, 40);
        bytes[index] = (bytes[index] as number) ^ flip;
        return bytes;
      });
    fc.assert(
      fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 200 })), (bytes) => {
        if (decodes(bytes)) assert.deepEqual(Buffer.from(bytes), encodeNode(decodeNode(bytes)));
      }),
      { numRuns: 2000 },
    );
  });

  it("may be empty, and full", () => {
    assert.equal(
      encodeNode({ level: 0, children: [] }).toString("hex"),
      `4e010000${"00".repeat(32)}`,
    );
    const children = Array.from({ length: NODE_FAN_OUT }, (_, index) =>
      index.toString(16).padStart(64, "0"),
    );
    const bytes = encodeNode({ level: 1, children });
    assert.equal(bytes.length, NODE_BYTES_MAX);
    assert.deepEqual(decodeNode(bytes), { level: 1, children });
  });

  it("has its bits in the order of its children", () => {
    const children = Array.from({ length: 10 }, (_, index) =>
      index === 1 || index === 9 ? "ab".repeat(32) : undefined,
    );
    const bytes = encodeNode({ level: 2, children });
    assert.equal(bytes.subarray(0, 6).toString("hex"), "4e0102000202");
  });

  it("is refused when cut, lengthened, of an unknown level, or with a reserved byte", () => {
    const bytes = encodeNode({ level: 0, children: ["11".repeat(32), undefined, "22".repeat(32)] });
    for (let length = 0; length < bytes.length; length += 1)
      assert.ok(!decodes(bytes.subarray(0, length)));
    assert.ok(!decodes(Buffer.concat([bytes, Buffer.alloc(32)])));
    for (const [at, value] of [
      [0, 0],
      [2, NODE_LEVEL_MAX + 1],
      [3, 1],
    ] as const) {
      const wrong = Buffer.from(bytes);
      wrong[at] = value;
      assert.ok(!decodes(wrong));
    }
  });

  it("of another version was written by a newer Ashlar", () => {
    const bytes = encodeNode({ level: 0, children: [] });
    bytes[1] = 2;
    assert.throws(() => decodeNode(bytes), { fault: FormatFault.Newer });
  });

  it("is not encoded with a level or a child that makes no sense", () => {
    for (const level of [-1, 0.5, NODE_LEVEL_MAX + 1])
      assert.throws(() => encodeNode({ level, children: [] }), FormatError);
    for (const child of ["", "11".repeat(31), "zz".repeat(32), "11".repeat(33)]) {
      assert.throws(() => encodeNode({ level: 0, children: [child] }), FormatError);
    }
    const many = Array.from({ length: 257 }, () => undefined);
    assert.throws(() => encodeNode({ level: 0, children: many }), FormatError);
  });
});
