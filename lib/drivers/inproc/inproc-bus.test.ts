import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { openMemoryTelemetry } from "#lib/drivers/memory/memory-telemetry.ts";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import type { BusMessage } from "#lib/ports/bus.ts";
import { CountedPayload } from "#test/conformance/bus.ts";
import { type BusFault, openInprocBus } from "./inproc-bus.ts";

function setUp(faults: Readonly<Record<string, BusFault>> = {}) {
  const clock = virtualClock();
  const telemetry = openMemoryTelemetry();
  const fault = (_where: string, message: BusMessage): BusFault =>
    faults[Buffer.from(message.body).toString()] ?? "none";
  const bus = openInprocBus({ clock, telemetry, fault, deliveriesMax: 4, redeliverMs: 100 });
  const seen: string[] = [];
  const note = (message: BusMessage): void => void seen.push(Buffer.from(message.body).toString());
  return { bus, clock, telemetry, seen, note };
}

function messageOf(text: string): BusMessage {
  return { body: Buffer.from(text) };
}

describe("the in-process bus", () => {
  it("waits longer before each further delivery, then gives up and says so", async () => {
    const { bus, clock, telemetry, seen, note } = setUp();
    const payload = new CountedPayload(Buffer.from("block"));
    const times: number[] = [];
    bus.consume("work", { concurrency: 1 }, async (message) => {
      note(message);
      times.push(clock.monotonic());
      throw new Error("never");
    });
    await bus.publish("work", { ...messageOf("bad"), payload });
    await clock.advance(10_000);
    assert.deepEqual(times, [0, 100, 300, 700]);
    assert.equal(seen.length, 4);
    assert.equal(payload.references, 1);
    assert.equal(telemetry.counted("ashlar.bus.given_up", { queue: "work" }), 1);
    assert.equal(telemetry.counted("ashlar.bus.redelivered"), 3);
  });

  it("never gives a message up where the consumer wants that", async () => {
    const { bus, clock, telemetry, seen, note } = setUp();
    bus.consume("work", { concurrency: 1, neverGivesUp: true }, async (message) => {
      note(message);
      if (seen.length < 20) throw new Error("not yet");
    });
    await bus.publish("work", messageOf("stubborn"));
    await clock.advance(20 * 30_000);
    assert.equal(seen.length, 20);
    assert.equal(telemetry.counted("ashlar.bus.given_up", { queue: "work" }), 0);
  });

  it("gives back what waits for another delivery when it is closed", async () => {
    const { bus, clock } = setUp();
    const payload = new CountedPayload(Buffer.from("block"));
    bus.consume("work", { concurrency: 1 }, () => Promise.reject(new Error("never")));
    await bus.publish("work", { ...messageOf("bad"), payload });
    await clock.advance(1);
    assert.equal(payload.references, 2);
    await bus.close();
    await setImmediate();
    assert.equal(payload.references, 1);
  });

  it("loses, repeats, delays and reorders in queues when told to", async () => {
    const { bus, clock, seen, note } = setUp({
      lost: "lose",
      twice: "repeat",
      late: { delayMs: 50 },
      first: "reorder",
    });
    const payload = new CountedPayload(Buffer.from("block"));
    for (const text of ["lost", "late", "a", "twice", "first"]) {
      await bus.publish("work", { ...messageOf(text), payload });
    }
    bus.consume("work", { concurrency: 1 }, async (message) => note(message));
    await clock.advance(1000);
    assert.deepEqual(seen, ["first", "a", "twice", "twice", "late"]);
    assert.equal(payload.references, 1);
  });

  it("does the same on subjects", async () => {
    const { bus, clock, seen, note } = setUp({
      lost: "lose",
      twice: "repeat",
      late: { delayMs: 50 },
      overtaken: "reorder",
    });
    const payload = new CountedPayload(Buffer.from("block"));
    bus.subscribe("news", note);
    for (const text of ["lost", "late", "overtaken", "a", "twice"]) {
      bus.send("news", { ...messageOf(text), payload });
    }
    await clock.advance(1000);
    assert.deepEqual(seen, ["a", "twice", "twice", "overtaken", "late"]);
    assert.equal(payload.references, 1);
  });

  it("counts subscribers that throw", async () => {
    const { bus, clock, telemetry } = setUp();
    bus.subscribe("news", () => {
      throw new Error("broken");
    });
    bus.send("news", messageOf("a"));
    await clock.advance(1);
    assert.equal(telemetry.counted("ashlar.bus.subscriber_failed", { subject: "news" }), 1);
  });

  it("lets a message that is larger than the bound through, alone", async () => {
    const bus = openInprocBus({
      clock: virtualClock(),
      telemetry: openMemoryTelemetry(),
      queueBytes: 10,
    });
    await bus.publish("work", messageOf("x".repeat(100)));
    const second = bus.publish("work", messageOf("y"));
    const seen: number[] = [];
    bus.consume("work", { concurrency: 1 }, async ({ body }) => void seen.push(body.length));
    await second;
    await setImmediate();
    assert.deepEqual(seen, [100, 1]);
  });
});
