// What every Bus must do (lib/ports/bus.ts). Messages may be lost and repeated by the port's word, but a bus that nothing
// disturbs must deliver: a driver's fixture gives such a one.
import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { PLACE_HEADER, type Bus, type BusMessage, type Payload } from "#lib/ports/bus.ts";

/** Options of {@link describeBus}. */
export interface BusSuiteOptions {
  /** Opens a bus whose queues hold at most `queueBytes`. */
  readonly open: (test: TestContext, queueBytes: number) => Promise<Bus>;
  readonly skip?: string | undefined;
}

const QUEUE_BYTES = 20_000;
/** Two of these fit a queue and a third does not, also with what a driver adds to each message. */
const NEARLY_HALF = QUEUE_BYTES * 0.45;
/** One of these fits, and beside it nothing of this size. */
const NEARLY_ALL = QUEUE_BYTES * 0.9;
/** Long enough for anything that is going to happen to have happened. */
const WHILE_MS = 60;

/** A payload that knows how often it is held. */
export class CountedPayload implements Payload {
  readonly bytes: Uint8Array;
  references = 1;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  retain(): void {
    assert.ok(this.references > 0, "nobody retains what is free");
    this.references += 1;
  }

  release(): void {
    assert.ok(this.references > 0, "nobody releases what is free");
    this.references -= 1;
    // As memory that is used for something else.
    if (this.references === 0) this.bytes.fill(0);
  }
}

function textOf(message: BusMessage): string {
  return Buffer.from(message.body).toString();
}

function messageOf(text: string, payload?: Payload): BusMessage {
  return { body: Buffer.from(text), ...(payload === undefined ? {} : { payload }) };
}

/** Longer than a server may stall: a bus mends that (queue-watch.ts). */
const PATIENCE_MS = 60_000;

/** What has not come by then is sent again, in ms. */
const LOST_AFTER_MS = 20_000;

/** @param state what is told where it does not happen */
async function until(condition: () => boolean, state: () => string = () => ""): Promise<void> {
  const untilMs = performance.now() + PATIENCE_MS;
  while (!condition() && performance.now() < untilMs) await setTimeout(5);
  assert.ok(condition(), `it happens in time ${state()}`);
}

type Opened = (title: string, body: (bus: Bus) => Promise<void>) => void;

/** Runs the suite against one driver. */
export function describeBus(driver: string, options: BusSuiteOptions): void {
  describe(`Bus: ${driver}`, { skip: options.skip ?? false }, () => {
    const opened: Opened = (title, body) => {
      void it(title, async (test) => body(await options.open(test, QUEUE_BYTES)));
    };
    describeQueues(opened);
    describeBounds(opened);
    describePayloads(opened);
    describeSubjects(opened);
    describeEnd(opened);
  });
}

function describeQueues(opened: Opened): void {
  opened("gives each message to one consumer", async (bus) => {
    const seen: string[] = [];
    const seenBy = [0, 0];
    for (const index of [0, 1]) {
      bus.consume("work", { concurrency: 1 }, async (message) => {
        await setTimeout(1);
        seen.push(textOf(message));
        seenBy[index] = (seenBy[index] ?? 0) + 1;
      });
    }
    const sent: string[] = [];
    // A consumer may take a while to get ready.
    while (sent.length < 20 || (seenBy.includes(0) && sent.length < 1000)) {
      sent.push(`m${sent.length}`);
      await bus.publish("work", messageOf(sent.at(-1)!));
    }
    // A bus may lose messages: they are sent again, as requesters do.
    const again = new Set<string>();
    const lost = (): string[] => sent.filter((text) => !seen.includes(text));
    for (let round = 0; lost().length > 0 && round < 10; round++) {
      const untilMs = performance.now() + LOST_AFTER_MS;
      while (lost().length > 0 && performance.now() < untilMs) await setTimeout(5);
      for (const text of lost()) {
        again.add(text);
        await bus.publish("work", messageOf(text));
      }
    }
    await setTimeout(WHILE_MS);
    assert.deepEqual(lost(), [], `of ${sent.length}, ${seenBy.join(" and ")} of them handled`);
    assert.ok(again.size < sent.length / 2, `${again.size} of ${sent.length} were lost`);
    const once = seen.filter((text) => !again.has(text));
    assert.equal(new Set(once).size, once.length, "nobody got what another one had");
    assert.ok(!seenBy.includes(0), "both had something to do");
  });

  opened("keeps messages until somebody consumes", async (bus) => {
    await bus.publish("work", messageOf("early"));
    const seen: string[] = [];
    bus.consume("work", { concurrency: 4 }, async (message) => void seen.push(textOf(message)));
    await until(() => seen.length === 1);
    assert.deepEqual(seen, ["early"]);
  });

  opened("keeps queues apart", async (bus) => {
    const seen: string[] = [];
    bus.consume("a", { concurrency: 1 }, async (message) => void seen.push(textOf(message)));
    await bus.publish("b", messageOf("for b"));
    await bus.publish("a", messageOf("for a"));
    await until(() => seen.length === 1);
    assert.deepEqual(seen, ["for a"]);
  });

  opened("runs as many handlers at once as it may", async (bus) => {
    let running = 0;
    let most = 0;
    let done = 0;
    bus.consume("work", { concurrency: 3 }, async () => {
      running += 1;
      most = Math.max(most, running);
      await setTimeout(10);
      running -= 1;
      done += 1;
    });
    for (let index = 0; index < 12; index++) await bus.publish("work", messageOf("m"));
    await until(() => done === 12);
    assert.equal(most, 3);
  });

  opened("delivers again what a handler gave back", async (bus) => {
    const seen: string[] = [];
    bus.consume("work", { concurrency: 2 }, async (message) => {
      seen.push(textOf(message));
      if (seen.length === 1) throw new Error("not now");
    });
    await bus.publish("work", messageOf("stubborn"));
    await until(() => seen.length === 2);
    assert.deepEqual(seen, ["stubborn", "stubborn"]);
  });

  opened("copies bodies and headers", async (bus) => {
    const body = Buffer.from("before");
    const headers = { traceparent: "00-1" };
    const received: BusMessage[] = [];
    bus.consume("work", { concurrency: 1 }, async (message) => void received.push(message));
    await bus.publish("work", { body, headers });
    body.write("after!");
    headers.traceparent = "00-2";
    await until(() => received.length === 1);
    assert.equal(textOf(received[0]!), "before");
    const { [PLACE_HEADER]: _, ...given } = received[0]!.headers!;
    assert.deepEqual(given, { traceparent: "00-1" });
  });
}

function describeBounds(opened: Opened): void {
  opened("makes publishers wait while a queue is full", async (bus) => {
    const half = "x".repeat(NEARLY_HALF);
    await bus.publish("work", messageOf(half));
    await bus.publish("work", messageOf(half));
    let accepted = false;
    const third = bus.publish("work", messageOf(half)).then(() => {
      accepted = true;
    });
    await setTimeout(WHILE_MS);
    assert.equal(accepted, false);
    const seen: string[] = [];
    bus.consume("work", { concurrency: 1 }, async (message) => void seen.push(textOf(message)));
    await third;
    await until(() => seen.length === 3);
  });

  opened("stops waiting when told to", async (bus) => {
    await bus.publish("work", messageOf("x".repeat(NEARLY_ALL)));
    const stop = new AbortController();
    const large = messageOf("y".repeat(NEARLY_ALL));
    const waiting = bus.publish("work", large, { signal: stop.signal });
    await setTimeout(WHILE_MS);
    stop.abort(new Error("enough"));
    await assert.rejects(waiting, { message: "enough" });
    const seen: string[] = [];
    bus.consume("work", { concurrency: 1 }, async (message) => void seen.push(textOf(message)));
    await until(() => seen.length === 1);
    await setTimeout(WHILE_MS);
    assert.deepEqual(
      seen.map((text) => text[0]),
      ["x"],
      "what was given up is never delivered",
    );
  });

  opened("counts payloads, and what is being handled", async (bus) => {
    const payload = new CountedPayload(Buffer.alloc(NEARLY_ALL));
    const gate = Promise.withResolvers<void>();
    let handled = 0;
    bus.consume("work", { concurrency: 8 }, async () => {
      handled += 1;
      await gate.promise;
    });
    await bus.publish("work", messageOf("", payload));
    await until(() => handled === 1);
    let accepted = false;
    const second = bus.publish("work", messageOf("z".repeat(NEARLY_ALL))).then(() => {
      accepted = true;
    });
    await setTimeout(WHILE_MS);
    assert.equal(accepted, false);
    gate.resolve();
    await second;
    await until(() => handled === 2);
  });
}

function describePayloads(opened: Opened): void {
  opened("holds a payload until its message is acknowledged", async (bus) => {
    const payload = new CountedPayload(Buffer.from("block"));
    const seen: string[] = [];
    bus.consume("work", { concurrency: 1 }, async (message) => {
      assert.ok(message.payload !== undefined);
      await setTimeout(5);
      seen.push(Buffer.from(message.payload.bytes).toString());
      if (seen.length === 1) throw new Error("again");
    });
    await bus.publish("work", messageOf("", payload));
    payload.release();
    await until(() => seen.length === 2 && payload.references === 0);
    assert.deepEqual(seen, ["block", "block"]);
  });

  opened("lets a handler keep a payload", async (bus) => {
    const payload = new CountedPayload(Buffer.from("block"));
    let kept: Payload | undefined;
    bus.consume("work", { concurrency: 1 }, async (message) => {
      message.payload?.retain();
      kept = message.payload;
    });
    await bus.publish("work", messageOf("", payload));
    payload.release();
    await until(() => kept !== undefined);
    await setTimeout(WHILE_MS);
    assert.equal(Buffer.from(kept!.bytes).toString(), "block");
    kept!.release();
    await until(() => payload.references === 0);
  });

  opened("gives a payload along with a sent message", async (bus) => {
    const payload = new CountedPayload(Buffer.from("block"));
    const seen: string[] = [];
    for (let index = 0; index < 2; index++) {
      bus.subscribe("news", (message) => {
        seen.push(Buffer.from(message.payload?.bytes ?? []).toString());
      });
    }
    bus.send("news", messageOf("", payload));
    payload.release();
    await until(() => seen.length === 2 && payload.references === 0);
    assert.deepEqual(seen, ["block", "block"]);
  });
}

function describeSubjects(opened: Opened): void {
  opened("reaches all who subscribe, in order", async (bus) => {
    const seen: string[][] = [[], []];
    for (const list of seen) bus.subscribe("news", (message) => void list.push(textOf(message)));
    const sent = Array.from({ length: 50 }, (_, index) => `${index}`);
    for (const text of sent) bus.send("news", messageOf(text));
    await until(() => seen.every((list) => list.length === sent.length));
    assert.deepEqual(seen, [sent, sent]);
  });

  opened("forgets what is sent to nobody", async (bus) => {
    const payload = new CountedPayload(Buffer.from("block"));
    bus.send("news", messageOf("lost", payload));
    const seen: string[] = [];
    bus.subscribe("news", (message) => void seen.push(textOf(message)));
    await setTimeout(WHILE_MS);
    assert.deepEqual(seen, []);
    assert.equal(payload.references, 1);
  });

  opened("delivers nothing after a subscription was stopped", async (bus) => {
    const seen: string[] = [];
    const subscription = bus.subscribe("news", (message) => void seen.push(textOf(message)));
    bus.send("news", messageOf("1"));
    await until(() => seen.length === 1);
    await subscription.stop();
    bus.send("news", messageOf("2"));
    await setTimeout(WHILE_MS);
    assert.deepEqual(seen, ["1"]);
  });

  opened("goes on when a subscriber throws", async (bus) => {
    const seen: string[] = [];
    bus.subscribe("news", () => {
      throw new Error("broken subscriber");
    });
    bus.subscribe("news", (message) => void seen.push(textOf(message)));
    bus.send("news", messageOf("1"));
    bus.send("news", messageOf("2"));
    await until(() => seen.length === 2);
  });

  opened("has inboxes that nobody else has", async (bus) => {
    const inboxes = new Set(Array.from({ length: 100 }, () => bus.inbox()));
    assert.equal(inboxes.size, 100);
    const seen: string[] = [];
    const [first = "", second = ""] = inboxes;
    bus.subscribe(first, (message) => void seen.push(textOf(message)));
    bus.send(second, messageOf("other"));
    bus.send(first, messageOf("mine"));
    await until(() => seen.length === 1);
    assert.deepEqual(seen, ["mine"]);
  });

  opened("takes a star for any one token, and tells the subject", async (bus) => {
    const seen: string[] = [];
    bus.subscribe("hosts.*.here", ({ body, subject }) => {
      seen.push(`${subject} ${Buffer.from(body).toString()}`);
    });
    for (const subject of ["hosts.a.here", "hosts.b.gone", "hosts.here", "hosts.a.b.here"]) {
      bus.send(subject, messageOf("1"));
    }
    bus.send("hosts.b=2e.here", messageOf("2"));
    await until(() => seen.length >= 2);
    assert.deepEqual(seen, ["hosts.a.here 1", "hosts.b=2e.here 2"]);
  });
}

function describeEnd(opened: Opened): void {
  opened(
    "waits for handlers when a subscription stops, and leaves the rest to others",
    async (bus) => {
      const gate = Promise.withResolvers<void>();
      let ended = false;
      let begun = 0;
      const subscription = bus.consume("work", { concurrency: 1 }, async () => {
        begun += 1;
        await gate.promise;
        ended = true;
      });
      await bus.publish("work", messageOf("1"));
      await bus.publish("work", messageOf("2"));
      await until(() => begun === 1);
      const stopping = subscription.stop();
      await setTimeout(WHILE_MS);
      assert.equal(ended, false);
      gate.resolve();
      await stopping;
      assert.equal(ended, true);
      const seen: string[] = [];
      bus.consume("work", { concurrency: 1 }, async (message) => void seen.push(textOf(message)));
      await until(() => seen.length === 1);
      assert.deepEqual(seen, ["2"]);
      assert.equal(begun, 1);
    },
  );

  opened("gives back everything when it is closed", async (bus) => {
    const payloads = [1, 2, 3].map(() => new CountedPayload(Buffer.alloc(NEARLY_HALF)));
    const publishing = payloads.map((payload) => bus.publish("work", messageOf("", payload)));
    await Promise.all(publishing.slice(0, 2));
    const waiting = assert.rejects(publishing[2]!);
    await bus.close();
    await waiting;
    assert.deepEqual(
      payloads.map(({ references }) => references),
      [1, 1, 1],
    );
    await assert.rejects(bus.publish("work", messageOf("late")));
  });
}
