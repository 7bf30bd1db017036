import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createLocalSlotPool } from "#lib/drivers/compute/slot-pool.ts";
import { openMemoryTelemetry } from "#lib/drivers/memory/memory-telemetry.ts";
import { meterPool } from "./metered-pool.ts";

describe("a metered pool", () => {
  it("tells the bytes that are in use", async () => {
    const telemetry = openMemoryTelemetry();
    const pool = meterPool(createLocalSlotPool(1000, 2), telemetry, { role: "reader" });
    const told = (): number | undefined =>
      telemetry.gauged("ashlar.inflight.bytes", { role: "reader" });
    const first = await pool.acquire();
    assert.equal(told(), 1000);
    const second = await pool.acquire();
    assert.equal(told(), 2000);
    const third = pool.acquire();
    first.retain();
    first.release();
    assert.equal(told(), 2000);
    first.release();
    second.release();
    assert.equal(told(), 1000);
    (await third).release();
    assert.equal(told(), 0);
    assert.equal(pool.freeCount, 2);
  });
});
