import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import {
  blockObjectName,
  formatObjectName,
  headObjectName,
  keyObjectName,
  nodeObjectName,
  ObjectFolder,
  parseObjectName,
  stampObjectId,
  stampObjectName,
  type ObjectName,
} from "./object-names.ts";

const hex = (bytes: number): fc.Arbitrary<string> =>
  fc
    .uint8Array({ minLength: bytes, maxLength: bytes })
    .map((raw) => Buffer.from(raw).toString("hex"));

/** Records as code writes them; fast-check's have no prototype half of the time, which deepEqual tells apart. */
const plainRecord = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record<T>(model, { noNullPrototype: true });

const name: fc.Arbitrary<ObjectName> = fc.oneof(
  plainRecord({
    type: fc.constantFrom("block" as const, "node" as const),
    id: hex(32),
    generation: hex(8),
  }),
  plainRecord({
    type: fc.constant("head" as const),
    hash: hex(32),
    revision: fc.integer({ min: 1, max: 1e15 - 1 }),
    random: hex(8),
  }),
  plainRecord({ type: fc.constant("stamp" as const), random: hex(8) }),
  plainRecord({ type: fc.constant("key" as const), accessId: hex(8) }),
);

describe("an object's name", () => {
  it("comes back as it was, and is one that every storage takes", () => {
    fc.assert(
      fc.property(name, (value) => {
        const text = formatObjectName(value);
        assert.match(text, /^[a-z0-9._-]+\/[a-z0-9._-]+$/);
        assert.ok(text.length <= 200);
        assert.deepEqual(parseObjectName(text), value);
      }),
    );
  });

  it("is written in one way only", () => {
    fc.assert(
      fc.property(
        name,
        fc.nat(),
        fc.constantFrom("0", "f", "A", ".", "/", "\n", ""),
        (value, at, mutation) => {
          const text = formatObjectName(value);
          const index = at % (text.length + 1);
          const mutated = text.slice(0, index) + mutation + text.slice(index + 1);
          const parsed = parseObjectName(mutated);
          if (parsed !== undefined) assert.equal(formatObjectName(parsed), mutated);
        },
      ),
      { numRuns: 2000 },
    );
  });

  it("has a folder for each type", () => {
    const id = "ab".repeat(32);
    const short = "0123456789abcdef";
    assert.equal(blockObjectName(id, short), `${ObjectFolder.blocks}${id}.${short}`);
    assert.equal(nodeObjectName(id, short), `${ObjectFolder.nodes}${id}.${short}`);
    assert.equal(headObjectName(id, 12, short), `${ObjectFolder.heads}${id}.12.${short}`);
    assert.equal(stampObjectName(short), `${ObjectFolder.stamps}${short}`);
    assert.equal(keyObjectName(short), `${ObjectFolder.keys}${short}`);
    assert.equal(stampObjectId(short), `${short}${"00".repeat(24)}`);
  });

  it("of anything else is none of ours", () => {
    const id = "ab".repeat(32);
    const foreign = [
      "",
      "blocks/",
      "ashlar-storage.json",
      `blocks/${id}`,
      `heads/${id}.0.0123456789abcdef`,
    ];
    for (const text of foreign) assert.equal(parseObjectName(text), undefined);
  });
});
