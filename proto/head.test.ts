import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { FormatError, FormatFault } from "./format-error.ts";
import { decodeHead, encodeHead, type Head } from "./head.ts";
import { decodeRecord, encodeRecord, type RecordMap } from "./record.ts";

const HEAD: Head = {
  uid: "web-k3v9qa",
  revision: 2,
  removed: false,
  volume: "web",
  snapshot: "nightly",
  createdMs: 1_764_000_000_123,
  sizeBytes: 5 * 2 ** 40 + 1,
  blockBytes: 4 * 2 ** 20,
  levels: 3,
  root: "ab".repeat(32),
  labels: { site: "north", __proto__x: "y" },
  protected: true,
  statistics: { bytesRead: 5 * 2 ** 40, durationMs: 1.5 },
  policy: { storages: ["0123456789abcdef", "fedcba9876543210"], quorum: 1 },
  source: "file:/dev/vg/web",
  warnings: ["the source is mounted"],
};

/** Records as code writes them; fast-check's have no prototype half of the time, which deepEqual tells apart. */
const plainRecord = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record<T>(model, { noNullPrototype: true });

function withField(name: string, value: RecordMap[string]): Buffer {
  return encodeRecord({ ...decodeRecord(encodeHead(HEAD)), [name]: value });
}

describe("a head", () => {
  it("comes back as it was", () => {
    assert.deepEqual(decodeHead(encodeHead(HEAD)), HEAD);
    const { policy } = HEAD;
    const compression = { name: "of a newer Ashlar", level: 0 };
    const chosen: Head = {
      ...HEAD,
      policy: { ...policy, prefer: policy.storages.slice(1), compression },
    };
    assert.deepEqual(decodeHead(encodeHead(chosen)), chosen);
    const last: Head = { ...HEAD, removed: true, root: undefined };
    assert.deepEqual(decodeHead(encodeHead(last)), last);
  });

  it("comes back with any text, numbers and labels", () => {
    const text = fc.string({ unit: "grapheme" });
    const head: fc.Arbitrary<Head> = plainRecord({
      uid: text,
      revision: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      removed: fc.constant(false),
      volume: text,
      snapshot: text,
      createdMs: fc.maxSafeNat(),
      sizeBytes: fc.maxSafeNat(),
      blockBytes: fc.integer({ min: 1, max: 2 ** 24 }),
      levels: fc.integer({ min: 1, max: 8 }),
      root: fc.constant("cd".repeat(32)),
      labels: fc
        .array(fc.tuple(fc.oneof(text, fc.constant("__proto__")), text))
        .map((pairs) => Object.fromEntries(pairs)),
      protected: fc.boolean(),
      statistics: plainRecord({ bytesRead: fc.maxSafeNat() }),
      policy: plainRecord({
        storages: fc.constant(["0123456789abcdef"]),
        quorum: fc.integer({ min: 1, max: 9 }),
      }),
      source: text,
      warnings: fc.array(text),
    });
    fc.assert(fc.property(head, (value) => assert.deepEqual(decodeHead(encodeHead(value)), value)));
  });

  it("keeps the fields of a newer Ashlar for its next revision", () => {
    const decoded = decodeHead(withField("shape", { sides: 6 }));
    assert.deepEqual(decoded, { ...HEAD, unknown: { shape: { sides: 6 } } });
    assert.deepEqual(decodeRecord(encodeHead({ ...decoded, revision: 3 }))["shape"], { sides: 6 });
  });

  it("is refused with a field that is missing or makes no sense, and the error names it", () => {
    const wrong: [string, RecordMap[string]][] = [
      ["uid", 5],
      ["revision", 0],
      ["revision", 1.5],
      ["removed", 1],
      ["volume", undefined],
      ["createdMs", -1],
      ["sizeBytes", 2 ** 60],
      ["blockBytes", 0],
      ["levels", 9],
      ["root", Buffer.alloc(31)],
      ["labels", { a: 1 }],
      ["labels", ["a"]],
      ["protected", null],
      ["statistics", { a: "1" }],
      ["warnings", "none"],
    ];
    for (const [name, value] of wrong) {
      assert.throws(() => decodeHead(withField(name, value)), {
        fault: FormatFault.Malformed,
        message: new RegExp(`"${name}"`),
      });
    }
    const policies = [{ storages: ["xyz"], quorum: 1 }, { storages: [], quorum: 0 }, { quorum: 1 }];
    for (const policy of policies) {
      assert.throws(() => decodeHead(withField("policy", policy)), { message: /"policy\./ });
    }
  });

  it("names a root exactly when it was not removed", () => {
    assert.throws(() => encodeHead({ ...HEAD, root: undefined }), FormatError);
    assert.throws(() => encodeHead({ ...HEAD, removed: true }), FormatError);
    assert.throws(() => decodeHead(withField("removed", true)), FormatError);
    assert.throws(() => decodeHead(withField("root", undefined)), FormatError);
  });

  it("of a newer format is refused as such", () => {
    assert.throws(() => decodeHead(withField("format", 2)), { fault: FormatFault.Newer });
  });
});
