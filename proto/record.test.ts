import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { pack, Packr } from "msgpackr";
import { FormatError, FormatFault } from "./format-error.ts";
import { decodeRecord, encodeRecord, FieldReader, isHex, type RecordMap } from "./record.ts";

const leaf = fc.oneof(
  fc.constant(null),
  fc.boolean(),
  fc.maxSafeInteger(),
  fc.double({ noNaN: true }).map((value) => (Object.is(value, -0) ? 0 : value)),
  fc.string({ unit: "grapheme" }),
  fc.uint8Array().map((bytes) => Buffer.from(bytes)),
);
const key = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc.constantFrom("__proto__", "constructor", "toString"),
);
// Object.fromEntries, for fc.dictionary leaves such keys out.
const dictionary = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<Record<string, T>> =>
  fc.array(fc.tuple(key, value)).map((entries) => Object.fromEntries(entries));
const record = dictionary(
  fc.oneof(leaf, fc.array(leaf), dictionary(leaf)),
) as fc.Arbitrary<RecordMap>;

function faultOf(action: () => unknown): FormatFault {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof FormatError, String(error));
    return error.fault;
  }
  throw new Error("accepted");
}

describe("a record", () => {
  it("comes back as it was", () => {
    fc.assert(
      fc.property(record, (value) => assert.deepEqual(decodeRecord(encodeRecord(value)), value)),
    );
  });

  it("has the same bytes whatever the order of its keys", () => {
    fc.assert(
      fc.property(record, (value) => {
        const turned = Object.fromEntries(Object.entries(value).toReversed());
        assert.deepEqual(encodeRecord(turned), encodeRecord(value));
      }),
    );
  });

  it("leaves out what is undefined, and sorts keys by their UTF-8 bytes", () => {
    const bytes = encodeRecord({ b: 1, a: undefined, "\u{1F600}": 2, "\uFFFD": 3 });
    assert.deepEqual(Object.keys(decodeRecord(bytes)), ["b", "\uFFFD", "\u{1F600}"]);
  });

  it("is standard msgpack, byte by byte", () => {
    const bytes = encodeRecord({
      n: 300,
      a: [true, null],
      raw: Buffer.from("ff00", "hex"),
      t: "ü",
    });
    assert.equal(bytes.toString("hex"), "84a16192c3c0a16ecd012ca3726177c402ff00a174a2c3bc");
  });

  it("is refused when it is cut, has a tail, or is no map", () => {
    const bytes = encodeRecord({ name: "value", list: [1, 2, 3] });
    for (let length = 0; length < bytes.length; length += 1) {
      assert.equal(
        faultOf(() => decodeRecord(bytes.subarray(0, length))),
        FormatFault.Malformed,
      );
    }
    assert.equal(
      faultOf(() => decodeRecord(Buffer.concat([bytes, bytes]))),
      FormatFault.Malformed,
    );
    for (const other of [[1], "text", 5, null]) {
      assert.equal(
        faultOf(() => decodeRecord(pack(other))),
        FormatFault.Malformed,
      );
    }
  });

  it("is refused with extensions, structures, keys that are not text, and deep nesting", () => {
    const packr = new Packr({ useRecords: false, mapsAsObjects: false, moreTypes: true });
    let deep: unknown = 1;
    for (let depth = 0; depth < 20; depth += 1) deep = [deep];
    const wrong = [
      { a: new Date(0) },
      { a: new Set([1]) },
      new Map([[1, 2]]),
      { a: undefined },
      { a: deep },
    ];
    for (const value of wrong) {
      const bytes = packr.pack(value instanceof Map ? value : new Map(Object.entries(value)));
      assert.equal(
        faultOf(() => decodeRecord(bytes)),
        FormatFault.Malformed,
      );
    }
    assert.equal(
      faultOf(() => decodeRecord(new Packr({ structures: [] }).pack({ a: 1, b: 2 }))),
      FormatFault.Malformed,
    );
  });

  it("never fails otherwise than by a FormatError", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        try {
          decodeRecord(bytes);
        } catch (error) {
          assert.ok(error instanceof FormatError, String(error));
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("a field reader", () => {
  it("names the field that is wrong", () => {
    const fields = new FieldReader({ policy: { quorum: "2" } }).record("policy");
    assert.throws(() => fields.whole("quorum", 1, 5), {
      name: "FormatError",
      message: 'has no valid field "policy.quorum" (a whole number from 1 to 5 expected)',
    });
  });

  it("accepts what fits and nothing else", () => {
    const wrong: ((fields: FieldReader) => unknown)[] = [
      (fields) => fields.text("a"),
      (fields) => fields.text("long", 3),
      (fields) => fields.hex("upper", 1),
      (fields) => fields.oneOf("long", ["short"]),
      (fields) => fields.whole("half", 0),
      (fields) => fields.whole("a", 2),
      (fields) => fields.flag("a"),
      (fields) => fields.bytes("raw", 2),
      (fields) => fields.list("a", () => 1, "x"),
      (fields) => fields.list("list", () => undefined, "x"),
      (fields) => fields.map("list", () => 1, "x"),
      (fields) => fields.record("list"),
      (fields) => fields.text("toString"),
    ];
    const map = { a: 1, long: "long", upper: "AB", half: 0.5, raw: Buffer.alloc(1), list: [1] };
    for (const read of wrong)
      assert.equal(
        faultOf(() => read(new FieldReader(map))),
        FormatFault.Malformed,
      );
  });

  it("knows which fields nobody asked for", () => {
    const fields = new FieldReader({ a: 1, b: 2 });
    fields.whole("a", 0);
    assert.deepEqual(fields.unknown(), { b: 2 });
  });
});

describe("hex digits", () => {
  it("are lower-case and of the right number", () => {
    assert.ok(isHex("00ff", 2));
    for (const wrong of ["00FF", "00f", "00ff00", "zzzz", "00ff\n", 12, undefined])
      assert.ok(!isHex(wrong, 2));
  });
});
