import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FormatFault } from "./format-error.ts";
import { decodeRecord, encodeRecord } from "./record.ts";
import { decodeStamp, encodeStamp, type Stamp } from "./stamp.ts";

const STAMP: Stamp = {
  repository: "0011223344556677",
  storage: "8899aabbccddeeff",
  run: 7,
  random: "0123456789abcdef",
  createdMs: 1_764_000_000_000,
};

describe("a stamp", () => {
  it("comes back as it was", () => {
    assert.deepEqual(decodeStamp(encodeStamp(STAMP)), STAMP);
  });

  it("ignores fields that it does not know, and refuses wrong ones by name", () => {
    const map = decodeRecord(encodeStamp(STAMP));
    assert.deepEqual(decodeStamp(encodeRecord({ ...map, later: true })), STAMP);
    for (const name of ["repository", "storage", "run", "random", "createdMs"]) {
      assert.throws(() => decodeStamp(encodeRecord({ ...map, [name]: "xyz" })), {
        message: new RegExp(`"${name}"`),
      });
    }
    assert.throws(() => decodeStamp(encodeRecord({ ...map, format: 2 })), {
      fault: FormatFault.Newer,
    });
  });
});
