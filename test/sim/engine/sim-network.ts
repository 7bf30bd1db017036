// The Bus between simulated processes: work queues and subjects with latencies, and with messages that get lost, come twice,
// come late and overtake each other. Payloads are copied: nothing that a process holds in memory outlives it.
import type {
  Bus,
  BusMessage,
  SentMessage,
  ConsumeOptions,
  MessageHandler,
  Payload,
  Subscription,
} from "#lib/ports/bus.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { FaultPlan } from "./faults.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimProcess } from "./sim-process.ts";

interface Consumer {
  readonly process: SimProcess;
  readonly handler: MessageHandler;
  free: number;
  isActive: boolean;
}

interface Queue {
  waiting: BusMessage[];
  readonly consumers: Consumer[];
}

interface Subscriber {
  readonly process: SimProcess;
  readonly handler: (message: SentMessage) => void;
  isActive: boolean;
}

/** Sees every message that is accepted, before anything happens to it. */
export type MessageWatcher = (where: string, message: BusMessage, from: SimProcess) => void;

/** A message that nobody acknowledged is delivered again after so long, in ms. */
const REDELIVER_MS = 30_000;
/** How late a late message is at most, in ms. */
const LATE_MS_MAX = 90_000;

/** The network. */
export class SimNetwork {
  readonly #scheduler: Scheduler;
  readonly #faults: FaultPlan;
  readonly #watch: MessageWatcher;
  readonly #queues = new Map<string, Queue>();
  readonly #subjects = new Map<string, Set<Subscriber>>();
  #inboxes = 0;
  /** Raised when all streams are lost: what is under way to a queue of an earlier life never arrives. */
  #life = 0;

  constructor(scheduler: Scheduler, faults: FaultPlan, watch: MessageWatcher) {
    this.#scheduler = scheduler;
    this.#faults = faults;
    this.#watch = watch;
  }

  /** The Bus as one process sees it. */
  client(process: SimProcess): Bus {
    return {
      publish: async (name, message, options = {}) => {
        options.signal?.throwIfAborted();
        this.#watch(name, message, process);
        this.#travel(name, process, copyOf(message), (copy) => this.#enqueue(name, copy));
        await process.turn("published");
        options.signal?.throwIfAborted();
      },
      consume: (name, options, handler) => this.#consume(process, name, options, handler),
      send: (subject, message) => {
        if (process.isDead) return;
        this.#watch(subject, message, process);
        this.#travel(subject, process, copyOf(message), (copy) => this.#hand(subject, copy));
      },
      subscribe: (subject, handler) => this.#subscribe(process, subject, handler),
      inbox: () => `inbox.${(this.#inboxes += 1)}`,
      close: () => Promise.resolve(),
    };
  }

  /** All messages that wait in queues, or are under way to one, vanish. */
  loseStreams(): void {
    this.#life += 1;
    for (const queue of this.#queues.values()) {
      if (queue.waiting.length > 0) this.#faults.count("streams-lost");
      queue.waiting = [];
    }
  }

  #travel(
    where: string,
    from: SimProcess,
    message: BusMessage,
    arrive: (message: BusMessage) => void,
  ): void {
    if (from.isDead || this.#faults.strikes("message-lost")) return;
    const life = this.#life;
    const once = (): void => {
      let delayMs = from.drawLatencyMs();
      if (this.#faults.strikes("message-late"))
        delayMs += this.#scheduler.random.below(LATE_MS_MAX);
      this.#scheduler.after(delayMs, undefined, where, () => {
        if (life === this.#life) arrive(message);
        else this.#faults.count("streams-lost");
      });
    };
    once();
    if (this.#faults.strikes("message-repeated")) once();
  }

  #queue(name: string): Queue {
    const queue = this.#queues.get(name) ?? { waiting: [], consumers: [] };
    this.#queues.set(name, queue);
    return queue;
  }

  #enqueue(name: string, message: BusMessage): void {
    const queue = this.#queue(name);
    queue.waiting.push(message);
    this.#deliver(name, queue);
  }

  #consume(
    process: SimProcess,
    name: string,
    options: ConsumeOptions,
    handler: MessageHandler,
  ): Subscription {
    const queue = this.#queue(name);
    const consumer: Consumer = { process, handler, free: options.concurrency, isActive: true };
    queue.consumers.push(consumer);
    const leave = (): void => {
      consumer.isActive = false;
      const at = queue.consumers.indexOf(consumer);
      if (at >= 0) queue.consumers.splice(at, 1);
    };
    process.whenDead(leave);
    this.#deliver(name, queue);
    return {
      stop: () => {
        leave();
        return Promise.resolve();
      },
    };
  }

  #deliver(name: string, queue: Queue): void {
    while (queue.waiting.length > 0) {
      const free = queue.consumers.filter((consumer) => consumer.free > 0);
      if (free.length === 0) return;
      const consumer = this.#scheduler.random.pick(free);
      const message = queue.waiting.shift() as BusMessage;
      consumer.free -= 1;
      void this.#handle(name, queue, consumer, message);
    }
  }

  async #handle(
    name: string,
    queue: Queue,
    consumer: Consumer,
    message: BusMessage,
  ): Promise<void> {
    const life = this.#life;
    const again = (): void => {
      this.#scheduler.after(REDELIVER_MS, undefined, `again ${name}`, () => {
        if (life === this.#life) this.#enqueue(name, message);
      });
    };
    const forget = consumer.process.whenDead(again);
    await consumer.process.turn(`deliver ${name}`);
    try {
      if (!consumer.isActive) again();
      else await consumer.handler(copyOf(message));
    } catch {
      again();
    }
    forget();
    consumer.free += 1;
    this.#deliver(name, queue);
  }

  #subscribe(
    process: SimProcess,
    subject: string,
    handler: (message: SentMessage) => void,
  ): Subscription {
    const subscribers = this.#subjects.get(subject) ?? new Set();
    this.#subjects.set(subject, subscribers);
    const subscriber: Subscriber = { process, handler, isActive: true };
    subscribers.add(subscriber);
    const stop = (): void => {
      subscriber.isActive = false;
      subscribers.delete(subscriber);
      if (subscribers.size === 0) this.#subjects.delete(subject);
    };
    process.whenDead(stop);
    return {
      stop: () => {
        stop();
        return Promise.resolve();
      },
    };
  }

  #hand(subject: string, message: BusMessage): void {
    for (const subscriber of this.#subjects.get(subject) ?? []) {
      const { process } = subscriber;
      this.#scheduler.after(process.drawLatencyMs(), process, `hear ${subject}`, () => {
        if (subscriber.isActive) subscriber.handler({ ...copyOf(message), subject });
      });
    }
  }
}

/** The error of a request whose process is gone: what the operator of a job sees. */
export function processGone(name: string): AshlarError {
  return new AshlarError(ErrorCode.Unavailable, `${name} is gone`);
}

function copyOf(message: BusMessage): BusMessage {
  return {
    body: Buffer.from(message.body),
    ...(message.payload === undefined ? {} : { payload: copiedPayload(message.payload) }),
    ...(message.headers === undefined ? {} : { headers: { ...message.headers } }),
  };
}

function copiedPayload(payload: Payload): Payload {
  return { bytes: Buffer.from(payload.bytes), retain: () => undefined, release: () => undefined };
}
