// What every Telemetry must do (lib/ports/telemetry.ts): take everything, disturb nobody.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Telemetry } from "#lib/ports/telemetry.ts";

/** Runs the suite against one driver. */
export function describeTelemetry(driver: string, open: () => Telemetry): void {
  describe(`Telemetry: ${driver}`, () => {
    it("takes whatever it is told", async () => {
      const telemetry = open();
      const parent = telemetry.span("backup", { volume: "vm1" });
      const child = telemetry.span("read", {}, parent);
      child.set({ bytes: 1, ok: true });
      child.end(new Error("failed"));
      child.end();
      child.set({ late: true });
      parent.end();
      telemetry.count("blocks", 1);
      telemetry.count("blocks", 2, { kind: "new" });
      telemetry.gauge("queue", Number.NaN);
      telemetry.record("latency", -1, { storage: "a" });
      await telemetry.flush();
    });

    it("keeps nothing of the caller's that may change", () => {
      const telemetry = open();
      const attributes = { volume: "vm1" };
      telemetry.span("backup", attributes).end();
      telemetry.count("blocks", 1, attributes);
      attributes.volume = "vm2";
      assert.equal(attributes.volume, "vm2");
    });
  });
}
