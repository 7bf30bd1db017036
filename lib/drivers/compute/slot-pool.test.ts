import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { describe, it } from "node:test";
import { InvariantError } from "#lib/core/assert.ts";
import type { Slot, SlotPool } from "#lib/ports/compute.ts";
import { createLocalSlotPool, createSharedSlotPool } from "./slot-pool.ts";

const POOLS: readonly [string, (slotBytes: number, slotCount: number) => SlotPool][] = [
  ["local", createLocalSlotPool],
  ["shared", createSharedSlotPool],
];

/** Whether a promise is still open after everything that is ready has run. */
async function pending(promise: Promise<unknown>): Promise<boolean> {
  const open = Symbol("open");
  const turn = new Promise((resolve) => setImmediate(resolve, open));
  return (await Promise.race([promise, turn])) === open;
}

for (const [name, createPool] of POOLS) {
  describe(`a slot pool: ${name}`, () => {
    it("hands out distinct memory of the right size, page by page", async () => {
      const pool = createPool(5000, 3);
      assert.deepEqual([pool.slotBytes, pool.slotCount, pool.freeCount], [5000, 3, 3]);
      const slots = await Promise.all([pool.acquire(), pool.acquire(), pool.acquire()]);
      assert.equal(pool.freeCount, 0);
      for (const [index, { bytes }] of slots.entries()) {
        assert.equal(bytes.length, 5000);
        assert.equal(bytes.byteOffset % 4096, 0);
        bytes.fill(index + 1);
      }
      for (const [index, { bytes }] of slots.entries())
        assert.ok(bytes.every((byte) => byte === index + 1));
    });

    it("makes who comes late wait for its turn", async () => {
      const pool = createPool(100, 1);
      const first = await pool.acquire();
      const order: number[] = [];
      const waiting = [1, 2].map(async (number) => {
        const slot = await pool.acquire();
        order.push(number);
        return slot;
      });
      assert.ok(await pending(Promise.race(waiting)));
      first.release();
      (await (waiting[0] as Promise<Slot>)).release();
      (await (waiting[1] as Promise<Slot>)).release();
      assert.deepEqual(order, [1, 2]);
      assert.equal(pool.freeCount, 1);
    });

    it("takes a slot back when the last reference is released, and refuses a release too many", async () => {
      const pool = createPool(100, 1);
      const slot = await pool.acquire();
      slot.retain();
      slot.release();
      assert.equal(pool.freeCount, 0);
      slot.release();
      assert.equal(pool.freeCount, 1);
      assert.throws(() => slot.release(), InvariantError);
      assert.throws(() => slot.retain(), InvariantError);
      const next = await pool.acquire();
      assert.throws(() => slot.release(), InvariantError);
      assert.equal(pool.freeCount, 0);
      next.release();
    });

    it("lets a waiter go when its signal aborts, and loses no slot", async () => {
      const pool = createPool(100, 1);
      const slot = await pool.acquire();
      const controller = new AbortController();
      const reason = new Error("stopped");
      const aborted = pool.acquire(controller.signal);
      const patient = pool.acquire(new AbortController().signal);
      controller.abort(reason);
      await assert.rejects(aborted, reason);
      await assert.rejects(pool.acquire(AbortSignal.abort(reason)), reason);
      slot.release();
      const next = await patient;
      next.release();
      assert.equal(pool.freeCount, 1);
      const holder = await pool.acquire();
      const served = new AbortController();
      const waiting = pool.acquire(served.signal);
      assert.equal(getEventListeners(served.signal, "abort").length, 1);
      holder.release();
      const last = await waiting;
      assert.equal(getEventListeners(served.signal, "abort").length, 0);
      served.abort();
      assert.equal(pool.freeCount, 0);
      last.release();
    });

    it("has slots, bytes and a bound", () => {
      for (const [bytes, count] of [
        [0, 1],
        [1, 0],
        [2 ** 30, 3],
      ] as const) {
        assert.throws(() => createPool(bytes, count), InvariantError);
      }
    });
  });
}

describe("a shared slot pool", () => {
  it("is memory that other threads can see", async () => {
    const slot = await createSharedSlotPool(100, 1).acquire();
    assert.ok(slot.bytes.buffer instanceof SharedArrayBuffer);
  });
});
