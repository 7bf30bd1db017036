import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isErrorCode, ErrorCode } from "#lib/core/errors.ts";
import { collect, parseCount, parseRange } from "./option-values.ts";

const usage = (error: unknown): boolean => isErrorCode(error, ErrorCode.Usage);

describe("option values", () => {
  it("collects what is given several times", () => {
    assert.deepEqual(collect("b", collect("a", undefined)), ["a", "b"]);
  });

  it("reads counts from 1", () => {
    assert.equal(parseCount("2"), 2);
    for (const text of ["0", "-1", "1.5", "", "x", "1e3"])
      assert.throws(() => parseCount(text), usage);
  });

  it("reads ranges as two sizes", () => {
    assert.deepEqual(parseRange("1KiB:4MiB"), { offset: 1024, length: 4194304 });
    for (const text of ["1", "1:2:3", "a:1", "1:", ":1"])
      assert.throws(() => parseRange(text), usage);
  });
});
