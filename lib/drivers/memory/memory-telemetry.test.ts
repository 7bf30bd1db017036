import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { openMemoryTelemetry } from "./memory-telemetry.ts";

describe("memory telemetry", () => {
  it("keeps spans with what they were told before they ended", () => {
    const telemetry = openMemoryTelemetry();
    const parent = telemetry.span("backup");
    const child = telemetry.span("read", { offset: 1 }, parent);
    child.set({ bytes: 2 });
    const failure = new Error("failed");
    child.end(failure);
    child.end();
    child.set({ late: true });
    const [first, second] = telemetry.spans;
    assert.equal(first?.ended, false);
    assert.equal(second?.parent, first);
    assert.deepEqual(second?.attributes, { offset: 1, bytes: 2 });
    assert.equal(second?.error, failure);
  });

  it("finds measurements by their attributes", () => {
    const telemetry = openMemoryTelemetry();
    const attributes = { kind: "new", storage: "a" };
    telemetry.count("blocks", 3, attributes);
    telemetry.count("blocks", 4, { kind: "known" });
    telemetry.gauge("queue", 1);
    telemetry.gauge("queue", 2);
    telemetry.record("latency", 5);
    telemetry.record("latency", 6);
    attributes.kind = "changed";
    assert.equal(telemetry.counted("blocks"), 7);
    assert.equal(telemetry.counted("blocks", { kind: "new" }), 3);
    assert.equal(telemetry.counted("nothing"), 0);
    assert.equal(telemetry.gauged("queue"), 2);
    assert.equal(telemetry.gauged("nothing"), undefined);
    assert.deepEqual(telemetry.recorded("latency"), [5, 6]);
  });
});
