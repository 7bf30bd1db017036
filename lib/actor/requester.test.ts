// Requests over a bus that answers in its own time.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { describe, it, type TestContext } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { openInprocBus } from "#lib/drivers/inproc/inproc-bus.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import type { Bus } from "#lib/ports/bus.ts";
import { Requester } from "./requester.ts";
import { serve, type Handlers } from "./serve.ts";

/** A bus that says that it took a message only when the message has long been answered. */
function slowBus(test: TestContext, handlers: Handlers): Bus {
  const bus = openInprocBus({ clock: systemClock(), telemetry: noTelemetry() });
  serve(bus, "q", 1, handlers, (error) => assert.fail(String(error)));
  test.after(() => bus.close());
  return {
    ...bus,
    publish: async (...message) => {
      await bus.publish(...message);
      await setTimeout(20);
    },
    consume: (...how) => bus.consume(...how),
    send: (...message) => bus.send(...message),
    subscribe: (...how) => bus.subscribe(...how),
    inbox: () => bus.inbox(),
    close: () => bus.close(),
  };
}

describe("a reply that overtakes the bus's own answer", () => {
  it("is the answer", async (test) => {
    const bus = slowBus(test, { nodes: () => Promise.resolve({ body: { plains: [] } }) });
    const requester = new Requester(bus, systemClock(), seededRandom(1));
    test.after(() => requester.close());
    const { body } = await requester.request("q", "nodes", {
      session: "s",
      token: "t",
      ids: Buffer.alloc(0),
    });
    assert.deepEqual(body, { plains: [] });
  });

  it("fails the request, and nothing else, when it is an error", async (test) => {
    const error = new AshlarError(ErrorCode.Io, "no");
    const bus = slowBus(test, { nodes: () => Promise.reject(error) });
    const requester = new Requester(bus, systemClock(), seededRandom(1));
    test.after(() => requester.close());
    await assert.rejects(
      requester.request("q", "nodes", { session: "s", token: "t", ids: Buffer.alloc(0) }),
      (thrown) => isErrorCode(thrown, ErrorCode.Io),
    );
  });
});
