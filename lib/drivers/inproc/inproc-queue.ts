// One queue of the in-process bus: bounded in bytes, its messages handed to consumers in turn, and again when they fail.
import { InvariantError } from "#lib/core/assert.ts";
import type { BusMessage, ConsumeOptions, MessageHandler, Subscription } from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";
import type { BusFault } from "./inproc-bus.ts";
import { copyOf } from "./message-copy.ts";

/** What all queues of a bus have in common. */
export interface QueueSettings {
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly bytesMax: number;
  readonly deliveriesMax: number;
  readonly redeliverMs: number;
  readonly closed: AbortSignal;
}

/** A message that was accepted and is not acknowledged. */
interface Entry {
  readonly message: BusMessage;
  readonly bytes: number;
  deliveries: number;
}

/** Somebody who waits for room. */
interface Publisher {
  readonly message: BusMessage;
  readonly fault: BusFault;
  readonly bytes: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface Consumer {
  readonly handler: MessageHandler;
  readonly neverGivesUp: boolean;
  readonly running: Set<Promise<void>>;
  free: number;
  isActive: boolean;
}

const REDELIVER_MS_MAX = 30_000;

/** A queue. */
export class InprocQueue {
  readonly #name: string;
  readonly #settings: QueueSettings;
  readonly #waiting: Entry[] = [];
  readonly #publishers: Publisher[] = [];
  readonly #consumers: Consumer[] = [];
  /** Of everything accepted and not acknowledged. */
  #bytes = 0;
  #turn = 0;

  constructor(name: string, settings: QueueSettings) {
    this.#name = name;
    this.#settings = settings;
  }

  /** Resolves when the message is accepted; rejects when the signal aborts first, or the bus is closed. */
  publish(message: BusMessage, fault: BusFault, signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const bytes = message.body.length + (message.payload?.bytes.length ?? 0);
    const publisher = { message: copyOf(message), fault, bytes, resolve, reject };
    this.#publishers.push(publisher);
    this.#admit();
    if (signal === undefined) return promise;
    const onAbort = (): void => {
      const at = this.#publishers.indexOf(publisher);
      if (at < 0) return;
      this.#publishers.splice(at, 1);
      reject(signal.reason);
      // It may have been a large one that kept smaller ones waiting.
      this.#admit();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    return promise.finally(() => signal.removeEventListener("abort", onAbort));
  }

  /** Adds a consumer. */
  consume(
    { concurrency, neverGivesUp = false }: ConsumeOptions,
    handler: MessageHandler,
  ): Subscription {
    const consumer = {
      handler,
      neverGivesUp,
      running: new Set<Promise<void>>(),
      free: concurrency,
      isActive: true,
    };
    this.#consumers.push(consumer);
    this.#deliver();
    return {
      stop: async () => {
        const at = this.#consumers.indexOf(consumer);
        if (at >= 0) this.#consumers.splice(at, 1);
        consumer.isActive = false;
        await Promise.all(consumer.running);
      },
    };
  }

  /** Forgets what waits, and resolves when the handlers under way have ended. */
  async close(): Promise<void> {
    for (const { reject } of this.#publishers.splice(0)) reject(this.#settings.closed.reason);
    for (const entry of this.#waiting.splice(0)) this.#forget(entry);
    await Promise.all(this.#consumers.flatMap(({ running }) => [...running]));
  }

  /** Accepts publishers in their order for as long as there is room; a message larger than the bound goes alone. */
  #admit(): void {
    for (;;) {
      const [first] = this.#publishers;
      if (first === undefined) return;
      if (this.#bytes > 0 && this.#bytes + first.bytes > this.#settings.bytesMax) return;
      this.#publishers.shift();
      first.resolve();
      if (first.fault === "lose") continue;
      this.#accept(first);
      if (first.fault === "repeat") this.#accept(first);
    }
  }

  #accept({ message, bytes, fault }: Publisher): void {
    message.payload?.retain();
    this.#bytes += bytes;
    const entry = { message, bytes, deliveries: 0 };
    if (typeof fault === "object") {
      void this.#enqueueLater(entry, fault.delayMs);
      return;
    }
    if (fault === "reorder") this.#waiting.unshift(entry);
    else this.#waiting.push(entry);
    this.#deliver();
  }

  async #enqueueLater(entry: Entry, ms: number): Promise<void> {
    const { clock, closed } = this.#settings;
    try {
      await clock.sleep(ms, closed);
    } catch {
      this.#forget(entry);
      return;
    }
    this.#waiting.push(entry);
    this.#deliver();
  }

  /** Gives waiting messages to consumers with a free place, in turn. */
  #deliver(): void {
    while (this.#waiting.length > 0) {
      const consumer = this.#nextFree();
      if (consumer === undefined) return;
      const entry = this.#waiting.shift() as Entry;
      consumer.free -= 1;
      const running = this.#handle(consumer, entry).finally(() => {
        consumer.running.delete(running);
        consumer.free += 1;
        this.#deliver();
      });
      consumer.running.add(running);
    }
  }

  #nextFree(): Consumer | undefined {
    for (let tries = 0; tries < this.#consumers.length; tries++) {
      const consumer = this.#consumers[this.#turn % this.#consumers.length];
      this.#turn += 1;
      if (consumer !== undefined && consumer.free > 0) return consumer;
    }
    return undefined;
  }

  async #handle(consumer: Consumer, entry: Entry): Promise<void> {
    // Never within the publisher's own call.
    await Promise.resolve();
    if (this.#settings.closed.aborted) {
      this.#forget(entry);
      return;
    }
    if (!consumer.isActive) {
      this.#waiting.unshift(entry);
      this.#deliver();
      return;
    }
    entry.deliveries += 1;
    try {
      await consumer.handler(copyOf(entry.message));
      this.#forget(entry);
    } catch (error) {
      if (error instanceof InvariantError) stopProcess(error);
      this.#failed(entry, consumer.neverGivesUp);
    }
  }

  #failed(entry: Entry, neverGivesUp: boolean): void {
    const { telemetry, deliveriesMax, redeliverMs } = this.#settings;
    if (entry.deliveries >= deliveriesMax && !neverGivesUp) {
      telemetry.count("ashlar.bus.given_up", 1, { queue: this.#name });
      this.#forget(entry);
      return;
    }
    telemetry.count("ashlar.bus.redelivered", 1, { queue: this.#name });
    const pauseMs = Math.min(REDELIVER_MS_MAX, redeliverMs * 2 ** (entry.deliveries - 1));
    void this.#enqueueLater(entry, pauseMs);
  }

  /** It is acknowledged, or given up: the bus keeps nothing of it. */
  #forget(entry: Entry): void {
    entry.message.payload?.release();
    this.#bytes -= entry.bytes;
    this.#admit();
  }
}

/** A handler has broken an invariant: nobody may go on as if it had merely failed. */
function stopProcess(error: InvariantError): void {
  queueMicrotask(() => {
    throw error;
  });
}
