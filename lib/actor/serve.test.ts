// What becomes of messages that another release, or nobody who knows the protocol, has sent.
import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Packr } from "msgpackr";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { openInprocBus } from "#lib/drivers/inproc/inproc-bus.ts";
import { openMemoryTelemetry } from "#lib/drivers/memory/memory-telemetry.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import type { Bus, Payload } from "#lib/ports/bus.ts";
import { decodeReply } from "#proto/message-codec.ts";
import { MESSAGE_VERSION, type Envelope, type ReplyEnvelope } from "#proto/messages.ts";
import { Requester } from "./requester.ts";
import { serve, type Handlers } from "./serve.ts";

const packr = new Packr({ useRecords: false, variableMapSize: true });
const HOLD = { session: "s", token: "t", id: "00", level: 0, index: 1 };

/** A bus whose queue `q` is served, with what its server calls a defect. */
function serving(test: TestContext, handlers: Handlers) {
  const telemetry = openMemoryTelemetry();
  const bus = openInprocBus({ clock: systemClock(), telemetry, redeliverMs: 1 });
  test.after(() => bus.close());
  const defects: unknown[] = [];
  serve(bus, "q", 1, handlers, (error) => void defects.push(error));
  return { bus, telemetry, defects };
}

/** Sends what no requester of this release would, and gives the answer. */
async function ask(bus: Bus, envelope: object): Promise<ReplyEnvelope> {
  const replyTo = bus.inbox();
  const { promise, resolve } = Promise.withResolvers<ReplyEnvelope>();
  const inbox = bus.subscribe(replyTo, ({ body }) => resolve(decodeReply(body)));
  const whole = { v: MESSAGE_VERSION, type: "hold", id: "1", replyTo, body: HOLD, ...envelope };
  await bus.publish("q", { body: packr.pack(whole) });
  const reply = await promise;
  await inbox.stop();
  return reply;
}

const holding: Handlers = { hold: () => Promise.resolve({ body: { held: true } }) };

describe("a request of another release", () => {
  it("is served though it has fields that nobody knows", async (test) => {
    const { bus } = serving(test, holding);
    const body = { ...HOLD, since: "a later release" };
    assert.deepEqual((await ask(bus, { body, priority: 7 })).body, { held: true });
  });

  it("of a kind that nobody knows is answered with an error that passes", async (test) => {
    const { bus, defects, telemetry } = serving(test, holding);
    for (const type of ["rehash", "toString", "__proto__"]) {
      const { error } = await ask(bus, { type });
      assert.equal(error?.code, ErrorCode.Unavailable);
      assert.match(error?.message ?? "", /a newer Ashlar \(it asks for "/);
      assert.match(error?.remedy ?? "", /upgrade the process that serves q/);
    }
    assert.deepEqual(defects, []);
    assert.equal(telemetry.counted("ashlar.bus.redelivered"), 0);
  });

  it("of a newer version is answered with an error, whatever is in it", async (test) => {
    const { bus } = serving(test, holding);
    const { error } = await ask(bus, { v: MESSAGE_VERSION + 1, body: ["otherwise"] });
    assert.equal(error?.code, ErrorCode.Unavailable);
    assert.match(error?.message ?? "", /a newer Ashlar \(messages of version 2\)/);
    for (const v of [0, -1, 0.5]) {
      assert.match((await ask(bus, { v })).error?.message ?? "", /has no valid version/);
    }
  });

  it("that lacks what it must have, or has it otherwise, is answered with the field", async (test) => {
    const { bus } = serving(test, {
      hold: () => assert.fail("the handler sees nothing of it"),
    });
    for (const [body, field] of [
      [{ ...HOLD, level: undefined }, '"level" (a number expected)'],
      [{ ...HOLD, level: "0" }, '"level" (a number expected)'],
      [{ ...HOLD, level: null }, '"level" (a number expected)'],
      [null, '"" (a map expected)'],
    ] as const) {
      const { error } = await ask(bus, { body });
      assert.equal(error?.code, ErrorCode.Internal);
      assert.ok(error?.message.includes(field), error?.message);
      assert.match(error?.remedy ?? "", /one release, or of two that follow each other/);
    }
  });

  it("is left out where it does not say who asks, and never comes again", async (test) => {
    const { bus, defects, telemetry } = serving(test, holding);
    const noEnvelope: Partial<Envelope> = { v: 1, type: "hold", body: HOLD };
    for (const body of [
      Buffer.from("{}"),
      Buffer.from([0xc1]),
      Buffer.alloc(0),
      packr.pack(noEnvelope),
    ]) {
      await bus.publish("q", { body });
    }
    assert.deepEqual((await ask(bus, {})).body, { held: true });
    assert.equal(defects.length, 4);
    assert.ok(defects.every((defect) => isErrorCode(defect, ErrorCode.Internal)));
    assert.equal(telemetry.counted("ashlar.bus.redelivered"), 0);
  });
});

describe("a reply of another release", () => {
  const answered = async (test: TestContext, reply: object): Promise<unknown> => {
    const bus = openInprocBus({ clock: systemClock(), telemetry: openMemoryTelemetry() });
    const requester = new Requester(bus, systemClock(), seededRandom(1));
    test.after(() => requester.close().then(() => bus.close()));
    bus.consume("q", { concurrency: 1 }, (message) => {
      const { id, replyTo } = packr.unpack(message.body) as Envelope;
      bus.send(replyTo, { body: packr.pack({ v: MESSAGE_VERSION, id, ...reply }) });
      return Promise.resolve();
    });
    return requester.request("q", "hold", HOLD).then(
      ({ body }) => body,
      (error: unknown) => error,
    );
  };

  it("is taken though it has fields that nobody knows", async (test) => {
    const body = { held: true, since: 3 };
    assert.deepEqual(await answered(test, { body, took: 5 }), body);
  });

  it("of a newer version is an error, and its own error can be read", async (test) => {
    const newer = await answered(test, { v: MESSAGE_VERSION + 1, body: { held: true } });
    assert.ok(newer instanceof AshlarError && newer.retryable);
    assert.match(newer.message, /the answer to hold was written by a newer Ashlar/);
    const told = { code: "FENCED", message: "the session is over", since: 3 };
    const fenced = await answered(test, { v: MESSAGE_VERSION + 1, error: told });
    assert.ok(isErrorCode(fenced, ErrorCode.Fenced));
    const unknown = await answered(test, { error: { code: "TIRED", message: "no" } });
    assert.ok(isErrorCode(unknown, ErrorCode.Internal));
  });

  it("that lacks what it must have fails the request with the field", async (test) => {
    const error = await answered(test, { body: { heldd: true } });
    assert.ok(isErrorCode(error, ErrorCode.Internal));
    assert.match(
      error.message,
      /the answer to hold has no valid field "held" \(true or false expected\)/,
    );
  });
});

describe("the payload of an answer", () => {
  it("is given back once it is on its way, also when it cannot be sent", async (test) => {
    for (const isRefused of [false, true]) {
      let held = 1;
      const payload: Payload = {
        bytes: new Uint8Array(8),
        retain: () => void (held += 1),
        release: () => void (held -= 1),
      };
      const { bus } = serving(test, {
        hold: () => Promise.resolve({ body: { held: true }, payload }),
      });
      const send = bus.send.bind(bus);
      bus.send = (subject, message) => {
        if (isRefused && message.payload !== undefined) {
          throw new AshlarError(ErrorCode.Config, "it is too large for the server");
        }
        send(subject, message);
      };
      const { body, error } = await ask(bus, {});
      assert.equal(error?.code, isRefused ? ErrorCode.Config : undefined);
      assert.deepEqual(body, isRefused ? undefined : { held: true });
      await setImmediate();
      assert.equal(held, 0);
    }
  });
});
