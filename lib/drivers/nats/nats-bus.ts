// The Bus of a cluster: queues are streams of JetStream, subjects are subjects of NATS (DESIGN §6). A lost connection, server or
// stream costs time: what was not accepted is published again, and what was lost with a stream its requester asks for again.
import { jetstream, jetstreamManager, type JetStreamManager } from "@nats-io/jetstream";
import { errors, type NatsConnection } from "@nats-io/transport-node";
import { InvariantError } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { Semaphore } from "#lib/core/semaphore.ts";
import type {
  Bus,
  BusMessage,
  ConsumeOptions,
  MessageHandler,
  SentMessage,
  Subscription,
} from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Log } from "#lib/ports/log.ts";
import type { Random } from "#lib/ports/random.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";
import { receivePoolOf, sendWindowOf } from "./framed-transport.ts";
import { lastingError } from "./nats-errors.ts";
import { NatsConsumer } from "./nats-consumer.ts";
import { decodeMessage, encodeMessage } from "./nats-message.ts";
import { NatsPublisher } from "./nats-publisher.ts";
import { ensureStreams, openConsumer } from "./nats-streams.ts";
import { inboxName, type Topology } from "./nats-topology.ts";
import { watchQueues } from "./queue-watch.ts";

/** Options of {@link openNatsBus}. */
export interface NatsBusOptions {
  /** Closed with the bus, also when that cannot be opened. */
  readonly connection: NatsConnection;
  /** Who this is; its inboxes bear the name, so that permissions can be given for them. */
  readonly client: string;
  readonly topology: Topology;
  /** Whether this process makes the streams, and looks after them; whoever may not waits until another one has. */
  readonly managesStreams: boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly telemetry: Telemetry;
  readonly log: Log;
  /** Deliveries of one message before it is given up. */
  readonly deliveriesMax?: number;
  /** Pause before the second delivery, in ms; doubled for each further one. */
  readonly redeliverMs?: number;
  /** How often the queues are looked at, in ms. */
  readonly watchEveryMs?: number;
}

const DELIVERIES_MAX = 10;
const REDELIVER_MS = 50;
const STREAM_MISSING = "streams.missing";
const STREAM_MADE = "streams.made";
const DRAIN_MS = 2000;
/** How long streams that cannot be made yet are tried again when a bus is opened, in ms. */
const OPEN_PATIENCE_MS = 30_000;
/** Streams are looked at so often at most when something is wrong, and as often a trouble is told. */
const REPAIR_EVERY_MS = 1000;
const TELL_EVERY_MS = 30_000;

/** Opens the bus of a cluster; Config where the streams cannot be made as they must be. */
export async function openNatsBus(options: NatsBusOptions): Promise<Bus> {
  const { connection, managesStreams } = options;
  try {
    const manager = await jetstreamManager(connection, { checkAPI: false });
    if (managesStreams) await makeStreams(options, manager);
    return new NatsBus(options, manager);
  } catch (error) {
    await connection.close();
    throw error;
  }
}

/** Servers that have only just started elect their leaders first, and answer nothing meanwhile. */
async function makeStreams(
  { topology, clock, log }: NatsBusOptions,
  manager: JetStreamManager,
): Promise<void> {
  const untilMs = clock.monotonic() + OPEN_PATIENCE_MS;
  for (;;) {
    try {
      await ensureStreams(manager, topology.streams);
      return;
    } catch (error) {
      const isPassing = error instanceof AshlarError && error.retryable;
      if (!isPassing || clock.monotonic() > untilMs) throw error;
      log.info(`NATS is not ready yet: ${error.message}`);
    }
    await clock.sleep(REPAIR_EVERY_MS);
  }
}

class NatsBus implements Bus {
  readonly #options: NatsBusOptions;
  readonly #manager: JetStreamManager;
  readonly #publishers = new Map<string, NatsPublisher>();
  readonly #consumers = new Set<NatsConsumer>();
  readonly #closed = new AbortController();
  /** Aborted, and replaced, at each reconnect. */
  #connection = new AbortController();
  readonly #opening = new Semaphore(1);
  #isMending = false;
  #toldMs = Number.NEGATIVE_INFINITY;

  constructor(options: NatsBusOptions, manager: JetStreamManager) {
    this.#options = options;
    this.#manager = manager;
    void this.#followConnection();
    this.#followStreams();
    if (options.managesStreams) void this.#watchQueues();
  }

  async publish(
    name: string,
    message: BusMessage,
    options: { signal?: AbortSignal } = {},
  ): Promise<void> {
    this.#closed.signal.throwIfAborted();
    options.signal?.throwIfAborted();
    await this.#publisher(name).publish(message, options.signal);
  }

  #publisher(name: string): NatsPublisher {
    let publisher = this.#publishers.get(name);
    if (publisher === undefined) {
      const { connection, topology, clock, random } = this.#options;
      const ports = {
        client: jetstream(connection),
        clock,
        random,
        closed: this.#closed.signal,
        reconnected: () => this.#connection.signal,
        flush: () => connection.flush(),
        sendWindow: () => sendWindowOf(connection),
        onTrouble: this.#onTrouble,
      };
      publisher = new NatsPublisher(ports, topology.queue(name));
      this.#publishers.set(name, publisher);
    }
    return publisher;
  }

  consume(name: string, options: ConsumeOptions, handler: MessageHandler): Subscription {
    this.#closed.signal.throwIfAborted();
    const { connection, topology, clock, telemetry, deliveriesMax, redeliverMs } = this.#options;
    const pool = receivePoolOf(connection);
    const consumer = new NatsConsumer(
      {
        clock,
        giveBack: pool && ((bytes) => pool.giveBack(bytes)),
        telemetry,
        deliveriesMax: deliveriesMax ?? DELIVERIES_MAX,
        redeliverMs: redeliverMs ?? REDELIVER_MS,
        closed: this.#closed.signal,
        // One after the other: of two who make the same consumer at once, one may get no answer.
        open: (queue) =>
          this.#opening.run(() => openConsumer(this.#manager, jetstream(connection), queue)),
        onTrouble: ({ stream }, error) => this.#onTrouble(stream, error),
        onDamaged: (queue) => this.#onDamaged(queue),
      },
      topology.queue(name),
      options,
      handler,
    );
    this.#consumers.add(consumer);
    return {
      stop: async () => {
        await consumer.stop();
        this.#consumers.delete(consumer);
      },
    };
  }

  send(subject: string, message: BusMessage): void {
    if (this.#closed.signal.aborted) return;
    const { connection, telemetry } = this.#options;
    const { payload } = message;
    // The sender may reuse its memory when this returns; its payload it has lent until it is released.
    const { data, headers } = encodeMessage({ ...message, body: Buffer.from(message.body) });
    try {
      connection.publish(this.#subject(subject), data, { headers });
    } catch (error) {
      if (error instanceof errors.InvalidArgumentError) {
        throw lastingError(error, `sending to ${subject}`) ?? error;
      }
      // Nobody hears it: it is lost, as any message may be.
      telemetry.count("ashlar.bus.send_failed", 1);
      return;
    }
    if (payload === undefined) return;
    payload.retain();
    void connection
      .flush()
      .catch(() => undefined)
      .finally(() => payload.release());
  }

  subscribe(subject: string, handler: (message: SentMessage) => void): Subscription {
    this.#closed.signal.throwIfAborted();
    const { connection, telemetry, log, topology } = this.#options;
    const own = topology.subjectPrefix.length + 1;
    const subscription = connection.subscribe(this.#subject(subject), {
      callback: (error, message) => {
        if (error !== null) {
          log.error(`NATS ended the subscription to ${subject}`, { error });
          return;
        }
        try {
          const decoded = decodeMessage(message);
          if (decoded === "damaged") this.#onDamaged(subject);
          else handler({ ...decoded, subject: message.subject.slice(own) });
        } catch (thrown) {
          if (thrown instanceof InvariantError) throw thrown;
          telemetry.count("ashlar.bus.subscriber_failed", 1, { subject });
        }
      },
    });
    return {
      stop: () => {
        subscription.unsubscribe();
        return Promise.resolve();
      },
    };
  }

  inbox(): string {
    const { client, random } = this.#options;
    return `${inboxName(client)}.${random.bytes(15).toString("base64url")}`;
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new AshlarError(ErrorCode.Cancelled, "the bus is closed"));
    await Promise.all([...this.#consumers].map((consumer) => consumer.stop()));
    // Acknowledgements and replies that are on their way; while no server is there, nothing is.
    const { connection, clock } = this.#options;
    const drained = connection.drain().catch(() => undefined);
    await Promise.race([drained, clock.sleep(DRAIN_MS)]);
    await connection.close();
  }

  /** It is lost, as any message may be; but nobody but a defect damages one. */
  #onDamaged(where: string): void {
    const { log, telemetry } = this.#options;
    telemetry.count("ashlar.bus.damaged", 1);
    log.error(`a message at ${where} came damaged and is left out: what it asked is asked again`);
  }

  /** All of ours lies below our own name: a reply can be addressed to nothing else. */
  #subject(name: string): string {
    return `${this.#options.topology.subjectPrefix}.${name}`;
  }

  async #followConnection(): Promise<void> {
    for await (const { type } of this.#options.connection.status()) {
      if (type !== "reconnect") continue;
      const before = this.#connection;
      this.#connection = new AbortController();
      before.abort(new Error("the connection was lost"));
    }
  }

  /** Who finds a stream missing tells those who may make it, and they tell those who consume it. */
  #followStreams(): void {
    this.subscribe(STREAM_MADE, ({ body }) => {
      const stream = Buffer.from(body).toString();
      for (const consumer of this.#consumers) consumer.reopen(stream);
    });
    if (this.#options.managesStreams) this.subscribe(STREAM_MISSING, () => void this.#mend());
  }

  /** A stream may be missing: whoever may makes it anew. */
  readonly #onTrouble = (stream: string, error: unknown): void => {
    const { clock, log, managesStreams } = this.#options;
    const now = clock.monotonic();
    if (now - this.#toldMs >= TELL_EVERY_MS) {
      this.#toldMs = now;
      log.warn(`the NATS stream ${stream} cannot be reached; trying again`, { error });
    }
    if (managesStreams) void this.#mend();
    else this.send(STREAM_MISSING, { body: Buffer.from(stream) });
  };

  /** Whoever consumes it opens it again. */
  #tellMade(stream: string): void {
    this.send(STREAM_MADE, { body: Buffer.from(stream) });
  }

  #watchQueues(): Promise<void> {
    const { topology, watchEveryMs, clock, telemetry, log } = this.#options;
    return watchQueues({
      ...topology,
      manager: this.#manager,
      clock,
      telemetry,
      log,
      closed: this.#closed.signal,
      onRemade: (stream) => this.#tellMade(stream),
      ...(watchEveryMs === undefined ? {} : { everyMs: watchEveryMs }),
    });
  }

  async #mend(): Promise<void> {
    if (this.#isMending) return;
    this.#isMending = true;
    const { topology, clock, log } = this.#options;
    try {
      for (const stream of await ensureStreams(this.#manager, topology.streams)) {
        log.warn(`the NATS stream ${stream} was missing and has been made anew`);
        this.#tellMade(stream);
      }
    } catch (error) {
      log.debug("the NATS streams could not be made", { error });
    }
    await clock.sleep(REPAIR_EVERY_MS, this.#closed.signal).catch(() => undefined);
    this.#isMending = false;
  }
}
