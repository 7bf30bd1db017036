import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { InvariantError } from "#lib/core/assert.ts";
import { ReceivePool } from "./receive-pool.ts";

const MIB = 1024 * 1024;

describe("the pool of received messages", () => {
  it("gives memory again that was given back, and no other", () => {
    const pool = new ReceivePool(4 * MIB);
    const first = pool.take(MIB);
    const second = pool.take(MIB);
    assert.notEqual(first.buffer, second.buffer);
    pool.giveBack(first.subarray(100, 200));
    // About as long.
    const third = pool.take(MIB - 1000);
    assert.equal(third.buffer, first.buffer);
    assert.equal(third.length, MIB - 1000);
    assert.notEqual(pool.take(MIB).buffer, second.buffer);
  });

  it("finds what is given back twice", () => {
    const pool = new ReceivePool(4 * MIB);
    const bytes = pool.take(MIB);
    pool.giveBack(bytes);
    assert.throws(() => pool.giveBack(bytes), InvariantError);
  });

  it("keeps no more than it may, and nothing that is small", () => {
    const pool = new ReceivePool(2 * MIB);
    const all = [1, 2, 3, 4].map(() => pool.take(MIB));
    for (const bytes of all) pool.giveBack(bytes);
    const again = [1, 2, 3, 4].map(() => pool.take(MIB).buffer);
    assert.equal(again.filter((buffer) => all.some((bytes) => bytes.buffer === buffer)).length, 2);
    const small = pool.take(1000);
    pool.giveBack(small);
    assert.notEqual(pool.take(1000).buffer, small.buffer);
  });
});
