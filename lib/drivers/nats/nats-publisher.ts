// Publishing into a bounded work queue. A stream that is full refuses what comes, after it has crossed the network: so of all
// who wait only the first tries, and the others stand in line behind it.
import type { JetStreamClient } from "@nats-io/jetstream";
import { errors } from "@nats-io/transport-node";
import { untilAborted } from "#lib/core/until-aborted.ts";
import type { BusMessage, Payload } from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import { isFull, lastingError } from "./nats-errors.ts";
import { encodeMessage } from "./nats-message.ts";
import type { QueueSpec } from "./nats-topology.ts";
import type { SendWindow } from "./send-window.ts";

/** What publishers work with. */
export interface PublisherPorts {
  readonly client: JetStreamClient;
  readonly clock: Clock;
  readonly random: Random;
  /** Aborts when the bus is closed. */
  readonly closed: AbortSignal;
  /** Aborts when the connection is another one: no answer to what was asked before will come. */
  readonly reconnected: () => AbortSignal;
  /** Resolves when the server has taken all that was sent before; rejects when the connection is lost. */
  readonly flush: () => Promise<void>;
  /** Of the connection as it is now. */
  readonly sendWindow: () => SendWindow | undefined;
  /** Nothing could be published: perhaps the stream is missing. */
  readonly onTrouble: (stream: string, error: unknown) => void;
}

/** A stream answers within this, once the server has the message. */
const ANSWER_MS = 10_000;
/** Nobody waits as long for an answer: only so that the client does not keep what it waits for, for ever. */
const FORGET_MS = 600_000;
const FULL_FIRST_MS = 4;
const FULL_MAX_MS = 250;
const TROUBLE_FIRST_MS = 50;
const TROUBLE_MAX_MS = 2000;

/** Publishes to one queue. */
export class NatsPublisher {
  readonly #ports: PublisherPorts;
  readonly #queue: QueueSpec;
  /** Those who wait for room, in their order. */
  readonly #line: (() => void)[] = [];
  #isFull = false;

  constructor(ports: PublisherPorts, queue: QueueSpec) {
    this.#ports = ports;
    this.#queue = queue;
  }

  /**
   * Resolves when the stream has the message. Waits while it is full, missing or away; rejects when the signal aborts first (then
   * a try that was under way may have come through), when the bus is closed, or with what waiting does not mend.
   */
  async publish(message: BusMessage, signal: AbortSignal | undefined): Promise<void> {
    const { clock, closed, random } = this.#ports;
    const stop = new Stop([closed, signal]);
    // The same for each try: a stream takes a message once, also when its answer was lost.
    const identity = random.bytes(12).toString("base64url");
    let isFirst = false;
    let fullMs = FULL_FIRST_MS;
    let troubleMs = TROUBLE_FIRST_MS;
    try {
      for (;;) {
        if (this.#isFull && !isFirst) {
          await this.#stand(stop.signal);
          isFirst = true;
        }
        const { payload } = message;
        const window = payload && this.#ports.sendWindow();
        await window?.enter(payload?.bytes.length ?? 0, stop.signal);
        const outcome = await untilAborted(this.#try(message, identity), stop.signal);
        if (outcome === "accepted") return;
        if (outcome === "full") {
          // Somebody else may have found it full meanwhile.
          if (this.#isFull && !isFirst) continue;
          this.#isFull = isFirst = true;
          await clock.sleep(fullMs + random.below(fullMs), stop.signal);
          fullMs = Math.min(FULL_MAX_MS, fullMs * 2);
        } else {
          await clock.sleep(troubleMs + random.below(troubleMs), stop.signal);
          troubleMs = Math.min(TROUBLE_MAX_MS, troubleMs * 2);
        }
      }
    } finally {
      stop.end();
      if (isFirst) this.#next();
    }
  }

  async #try(message: BusMessage, identity: string): Promise<"accepted" | "full" | "trouble"> {
    const { client, onTrouble, reconnected } = this.#ports;
    const { subject, stream } = this.#queue;
    const { data, headers } = encodeMessage(message);
    // The client has its bytes in hand until the server has answered this, or something later.
    message.payload?.retain();
    let isAnswered = false;
    try {
      const answer = client.publish(subject, data, {
        msgID: identity,
        timeout: FORGET_MS,
        expect: { streamName: stream },
        headers,
      });
      // Not a race with a promise that lasts: each message would leave something behind at it.
      await untilAborted(this.#inTime(answer), reconnected());
      isAnswered = true;
      return "accepted";
    } catch (error) {
      if (isFull(error)) {
        isAnswered = true;
        return "full";
      }
      const lasting = lastingError(error, `publishing to ${subject}`);
      if (lasting !== undefined) throw lasting;
      onTrouble(stream, error);
      return "trouble";
    } finally {
      if (message.payload !== undefined) this.#release(message.payload, isAnswered);
    }
  }

  /** The answer; rejects when none comes although the server has had the message for a while, however long that took to cross. */
  async #inTime<T>(answer: Promise<T>): Promise<T> {
    const { clock, flush } = this.#ports;
    const answered = new AbortController();
    const tooLate = async (): Promise<never> => {
      await clock.sleep(ANSWER_MS, answered.signal);
      const askedMs = clock.monotonic();
      await flush();
      // What stood before it in the line has taken its time, and so may have the message.
      await clock.sleep(Math.min(ANSWER_MS, clock.monotonic() - askedMs), answered.signal);
      throw new errors.TimeoutError();
    };
    try {
      return await Promise.race([answer, tooLate()]);
    } finally {
      answered.abort();
    }
  }

  /** An answer that is late says nothing about the bytes: they may still wait to be sent. */
  #release(payload: Payload, isAnswered: boolean): void {
    if (isAnswered) payload.release();
    else
      void this.#ports
        .flush()
        .catch(doNothing)
        .finally(() => payload.release());
  }

  /** Resolves when whoever comes before has found room. */
  #stand(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#line.push(resolve);
    const onAbort = (): void => {
      const at = this.#line.indexOf(resolve);
      if (at < 0) return;
      this.#line.splice(at, 1);
      reject(signal.reason);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    return promise.finally(() => signal.removeEventListener("abort", onAbort));
  }

  #next(): void {
    const next = this.#line.shift();
    if (next === undefined) this.#isFull = false;
    else next();
  }
}

const doNothing = (): void => undefined;

/** One signal out of several, which leaves nothing behind at them: they may outlive very many messages. */
class Stop {
  readonly #controller = new AbortController();
  readonly #sources: readonly AbortSignal[];
  readonly #onAbort = (): void => {
    const aborted = this.#sources.find((source) => source.aborted);
    this.#controller.abort(aborted?.reason);
  };

  constructor(sources: readonly (AbortSignal | undefined)[]) {
    this.#sources = sources.filter((source) => source !== undefined);
    for (const source of this.#sources) source.addEventListener("abort", this.#onAbort);
    if (this.#sources.some((source) => source.aborted)) this.#onAbort();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  end(): void {
    for (const source of this.#sources) source.removeEventListener("abort", this.#onAbort);
  }
}
