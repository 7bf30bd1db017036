// Consuming a work queue: as many messages are asked for as there are handlers free, and each is acknowledged when its handler
// has ended. While it runs the server is told so, however long it takes: only the messages of those who are gone come again.
import type { Consumer, ConsumerMessages, JsMsg } from "@nats-io/jetstream";
import { InvariantError } from "#lib/core/assert.ts";
import { Semaphore } from "#lib/core/semaphore.ts";
import { untilAborted } from "#lib/core/until-aborted.ts";
import {
  PLACE_HEADER,
  type BusMessage,
  type ConsumeOptions,
  type MessageHandler,
  type Subscription,
} from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";
import { decodeMessage } from "./nats-message.ts";
import type { QueueSpec } from "./nats-topology.ts";

/** What consumers work with. */
export interface ConsumerPorts {
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly deliveriesMax: number;
  readonly redeliverMs: number;
  /** Aborts when the bus is closed. */
  readonly closed: AbortSignal;
  /** Opens the queue's consumer, made anew where it is missing; rejects while that cannot be. */
  readonly open: (queue: QueueSpec) => Promise<Consumer>;
  /** It could not be opened, or it ended. */
  readonly onTrouble: (queue: QueueSpec, error: unknown) => void;
  /** Takes the memory of a payload that nobody needs any more. */
  readonly giveBack: ((bytes: Uint8Array) => void) | undefined;
  /** A message is not what was sent. */
  readonly onDamaged: (queue: string) => void;
}

/** How long an idle request for a message stands, and how often the server says that it still does, in ms. */
const EXPIRES_MS = 30_000;
const HEARTBEAT_MS = 2000;
const REDELIVER_MS_MAX = 30_000;
const TROUBLE_FIRST_MS = 50;
const TROUBLE_MAX_MS = 2000;

/** Consumes a queue until it is stopped. */
export class NatsConsumer implements Subscription {
  readonly #ports: ConsumerPorts;
  readonly #queue: QueueSpec;
  readonly #handler: MessageHandler;
  readonly #neverGivesUp: boolean;
  readonly #places: Semaphore;
  readonly #running = new Set<JsMsg>();
  readonly #work = new Set<Promise<void>>();
  readonly #stopped = new AbortController();
  readonly #ended: Promise<void>;
  #messages: ConsumerMessages | undefined;
  #isStale = false;

  constructor(
    ports: ConsumerPorts,
    queue: QueueSpec,
    { concurrency, neverGivesUp = false }: ConsumeOptions,
    handler: MessageHandler,
  ) {
    this.#ports = ports;
    this.#queue = queue;
    this.#handler = handler;
    this.#neverGivesUp = neverGivesUp;
    this.#places = new Semaphore(concurrency);
    this.#ended = this.#consume();
    void this.#tellProgress();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#messages?.stop();
    await this.#ended;
    await Promise.all(this.#work);
  }

  /** Opens the consumer again: its stream has been made anew. */
  reopen(stream: string): void {
    if (stream !== this.#queue.stream) return;
    this.#isStale = true;
    this.#messages?.stop();
  }

  get #isOver(): boolean {
    return this.#stopped.signal.aborted || this.#ports.closed.aborted;
  }

  async #consume(): Promise<void> {
    const { clock, open, onTrouble } = this.#ports;
    let troubleMs = TROUBLE_FIRST_MS;
    while (!this.#isOver) {
      try {
        const consumer = await open(this.#queue);
        this.#isStale = false;
        while (!this.#isOver && !this.#isStale) {
          await this.#takeOne(consumer);
          troubleMs = TROUBLE_FIRST_MS;
        }
        continue;
      } catch (error) {
        if (!this.#isOver) onTrouble(this.#queue, error);
      }
      if (this.#isOver) return;
      await clock.sleep(troubleMs, this.#stopped.signal).catch(() => undefined);
      troubleMs = Math.min(TROUBLE_MAX_MS, troubleMs * 2);
    }
  }

  /**
   * Asks for one message, once a handler is free for it. A standing request would be repeated by the client whenever it is not
   * answered in time, and what then comes would wait here, where nobody says that it is worked on.
   */
  async #takeOne(consumer: Consumer): Promise<void> {
    await untilAborted(this.#places.run(doNothing), this.#stopped.signal).catch(() => undefined);
    if (this.#isOver) return;
    const messages = await consumer.fetch({
      max_messages: 1,
      expires: EXPIRES_MS,
      idle_heartbeat: HEARTBEAT_MS,
    });
    this.#messages = messages;
    if (this.#isOver || this.#isStale) messages.stop();
    for await (const message of messages) {
      if (this.#isOver) answer(() => message.nak());
      else this.#start(message);
    }
  }

  #start(message: JsMsg): void {
    this.#running.add(message);
    const work = this.#places
      .run(() => this.#handle(message))
      .finally(() => {
        this.#running.delete(message);
        this.#work.delete(work);
      });
    this.#work.add(work);
  }

  async #handle(message: JsMsg): Promise<void> {
    const { telemetry, deliveriesMax, redeliverMs, onDamaged, giveBack } = this.#ports;
    const { deliveryCount } = message.info;
    const queue = this.#queue.subject;
    // It may have ended the processes that it came to before.
    if (deliveryCount > deliveriesMax && !this.#neverGivesUp) {
      telemetry.count("ashlar.bus.given_up", 1, { queue });
      answer(() => message.term());
      return;
    }
    if (deliveryCount > 1) telemetry.count("ashlar.bus.redelivered", 1, { queue });
    const decoded = decodeMessage(message, giveBack);
    if (decoded === "damaged") {
      // Another delivery would be no better: whoever asked asks again.
      onDamaged(queue);
      answer(() => message.term());
      return;
    }
    try {
      await this.#handler(withDelivery(decoded, message));
      answer(() => message.ack());
    } catch (error) {
      if (error instanceof InvariantError) stopProcess(error);
      answer(() => message.nak(Math.min(REDELIVER_MS_MAX, redeliverMs * 2 ** (deliveryCount - 1))));
    } finally {
      decoded.payload?.release();
    }
  }

  /** Until it has stopped and all that ran has ended. */
  async #tellProgress(): Promise<void> {
    const { clock, closed } = this.#ports;
    while (!closed.aborted && !(this.#stopped.signal.aborted && this.#running.size === 0)) {
      await clock.sleep(this.#queue.ackWaitMs / 3, closed).catch(() => undefined);
      for (const message of this.#running) answer(() => message.working());
    }
  }
}

/** Where the message stands in its stream: the same for each delivery, and for no other message. */
function withDelivery(decoded: BusMessage, { info }: JsMsg): BusMessage {
  const place = `${info.stream}:${info.streamSequence}:${info.timestampNanos}`;
  return { ...decoded, headers: { ...decoded.headers, [PLACE_HEADER]: place } };
}

/** A connection that has ended for good takes no answer any more: the message comes again elsewhere. */
function answer(tell: () => void): void {
  try {
    tell();
  } catch {
    // Whoever waits for the connection's end hears of it.
  }
}

const doNothing = (): Promise<void> => Promise.resolve();

/** A handler has broken an invariant: nobody may go on as if it had merely failed. */
function stopProcess(error: InvariantError): void {
  queueMicrotask(() => {
    throw error;
  });
}
