import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { freeMemory } from "./free-memory.ts";

const MIB = 1024 * 1024;

describe("freeing memory", () => {
  it("frees what a Buffer has to itself", () => {
    for (const size of [16 * 1024, Buffer.poolSize, MIB]) {
      const bytes = Buffer.allocUnsafeSlow(size);
      freeMemory(bytes);
      assert.equal(bytes.length, 0);
    }
    const part = Buffer.allocUnsafeSlow(MIB).subarray(10, 20);
    freeMemory(part);
    assert.equal(part.length, 0);
  });

  it("leaves what may be shared", () => {
    for (const size of [5, Buffer.poolSize / 2 - 1]) {
      const pooled = Buffer.allocUnsafe(size).fill(1);
      freeMemory(pooled);
      assert.equal(pooled.length, size);
    }
    const shared = Buffer.from(new SharedArrayBuffer(MIB));
    freeMemory(shared);
    assert.equal(shared.length, MIB);
  });
});
