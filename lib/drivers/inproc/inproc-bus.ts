// The Bus of one process. Bodies are copied, as if they had crossed a network; payloads are handed over in memory.
import { InvariantError } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type {
  Bus,
  BusMessage,
  ConsumeOptions,
  MessageHandler,
  SentMessage,
  Subscription,
} from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";
import { InprocQueue, type QueueSettings } from "./inproc-queue.ts";
import { copyOf } from "./message-copy.ts";

/**
 * What becomes of a message; tests and simulations decide.
 * - `lose`: it is accepted and never arrives. `repeat`: it arrives twice.
 * - `reorder`: it overtakes what waits in its queue; on a subject it is overtaken by what follows closely.
 * - `delayMs`: it arrives later, and what follows overtakes it.
 */
export type BusFault = "none" | "lose" | "repeat" | "reorder" | { readonly delayMs: number };

/** Options of {@link openInprocBus}. */
export interface InprocBusOptions {
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  /** Bytes (bodies and payloads) that a queue holds, under way included, before publishers wait. */
  readonly queueBytes?: number;
  /** Deliveries of one message before it is given up. */
  readonly deliveriesMax?: number;
  /** Pause before the second delivery, in ms; doubled for each further one. */
  readonly redeliverMs?: number;
  /** Asked for each message as it is accepted; `where` is the queue or subject. */
  readonly fault?: (where: string, message: BusMessage) => BusFault;
}

const QUEUE_BYTES = 256 * 1024 * 1024;
/** A handler that always throws must not spin. */
const DELIVERIES_MAX = 10;
const REDELIVER_MS = 50;
/** How long a reordered message waits to be overtaken. */
const REORDER_MS = 1;

interface Subscriber {
  readonly handler: (message: SentMessage) => void;
  isActive: boolean;
}

/** Opens a bus for one process. */
export function openInprocBus(options: InprocBusOptions): Bus {
  return new InprocBus(options);
}

class InprocBus implements Bus {
  readonly #clock: Clock;
  readonly #telemetry: Telemetry;
  readonly #fault: (where: string, message: BusMessage) => BusFault;
  readonly #settings: QueueSettings;
  readonly #queues = new Map<string, InprocQueue>();
  readonly #subjects = new Map<string, Set<Subscriber>>();
  /** Those of {@link #subjects} that stand for several subjects. */
  readonly #patterns = new Set<string>();
  readonly #closed = new AbortController();
  #inboxes = 0;

  constructor(options: InprocBusOptions) {
    this.#clock = options.clock;
    this.#telemetry = options.telemetry;
    this.#fault = options.fault ?? (() => "none");
    this.#settings = {
      clock: options.clock,
      telemetry: options.telemetry,
      bytesMax: options.queueBytes ?? QUEUE_BYTES,
      deliveriesMax: options.deliveriesMax ?? DELIVERIES_MAX,
      redeliverMs: options.redeliverMs ?? REDELIVER_MS,
      closed: this.#closed.signal,
    };
  }

  async publish(
    name: string,
    message: BusMessage,
    options: { signal?: AbortSignal } = {},
  ): Promise<void> {
    this.#closed.signal.throwIfAborted();
    options.signal?.throwIfAborted();
    const fault = this.#fault(name, message);
    await this.#queue(name).publish(message, fault, options.signal);
  }

  consume(name: string, options: ConsumeOptions, handler: MessageHandler): Subscription {
    this.#closed.signal.throwIfAborted();
    return this.#queue(name).consume(options, handler);
  }

  send(subject: string, message: BusMessage): void {
    const subscribers = this.#subscribersOf(subject);
    const fault = this.#fault(subject, message);
    if (this.#closed.signal.aborted || subscribers.length === 0 || fault === "lose") return;
    // The sender may reuse its memory when this returns.
    const copy = copyOf(message);
    message.payload?.retain();
    const arrive = (): void => {
      for (const subscriber of subscribers) {
        this.#hand(subject, subscriber, copy);
        if (fault === "repeat") this.#hand(subject, subscriber, copy);
      }
      message.payload?.release();
    };
    if (typeof fault === "object") void this.#later(fault.delayMs, arrive);
    else if (fault === "reorder") void this.#later(REORDER_MS, arrive);
    else queueMicrotask(arrive);
  }

  #subscribersOf(subject: string): Subscriber[] {
    const found = [...(this.#subjects.get(subject) ?? [])];
    for (const pattern of this.#patterns) {
      if (isMatch(pattern, subject)) found.push(...(this.#subjects.get(pattern) ?? []));
    }
    return found;
  }

  subscribe(subject: string, handler: (message: SentMessage) => void): Subscription {
    this.#closed.signal.throwIfAborted();
    const subscribers = this.#subjects.get(subject) ?? new Set();
    this.#subjects.set(subject, subscribers);
    if (subject.split(".").includes("*")) this.#patterns.add(subject);
    const subscriber = { handler, isActive: true };
    subscribers.add(subscriber);
    return {
      stop: () => {
        subscriber.isActive = false;
        subscribers.delete(subscriber);
        if (subscribers.size === 0 && this.#subjects.get(subject) === subscribers) {
          this.#subjects.delete(subject);
          this.#patterns.delete(subject);
        }
        return Promise.resolve();
      },
    };
  }

  inbox(): string {
    this.#inboxes += 1;
    return `inbox.${this.#inboxes}`;
  }

  async close(): Promise<void> {
    this.#closed.abort(new AshlarError(ErrorCode.Cancelled, "the bus is closed"));
    this.#subjects.clear();
    this.#patterns.clear();
    await Promise.all([...this.#queues.values()].map((queue) => queue.close()));
  }

  #queue(name: string): InprocQueue {
    const queue = this.#queues.get(name) ?? new InprocQueue(name, this.#settings);
    this.#queues.set(name, queue);
    return queue;
  }

  async #later(ms: number, arrive: () => void): Promise<void> {
    // A closed bus hands out nothing, but what it holds is still given back.
    await this.#clock.sleep(ms, this.#closed.signal).catch(() => undefined);
    arrive();
  }

  #hand(subject: string, subscriber: Subscriber, message: BusMessage): void {
    if (!subscriber.isActive || this.#closed.signal.aborted) return;
    try {
      subscriber.handler({ ...copyOf(message), subject });
    } catch (error) {
      if (error instanceof InvariantError) throw error;
      this.#telemetry.count("ashlar.bus.subscriber_failed", 1, { subject });
    }
  }
}

/** Whether a subject is one that a pattern stands for. */
function isMatch(pattern: string, subject: string): boolean {
  const tokens = subject.split(".");
  const wanted = pattern.split(".");
  return (
    tokens.length === wanted.length &&
    wanted.every((token, index) => token === "*" || token === tokens[index])
  );
}
