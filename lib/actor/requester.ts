// Request and reply over a Bus that may lose, repeat, delay and reorder: requests are sent again until they are answered,
// so every handler is idempotent; the reply to a repeated request is the same message again.
import { createHmac } from "node:crypto";
import { AshlarError, asErrorCode, ErrorCode } from "#lib/core/errors.ts";
import type { Bus, BusMessage, Payload, Subscription } from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import { decodeReply, encodeRequest, readReply } from "#proto/message-codec.ts";
import { MESSAGE_VERSION, type Requests, type RequestType } from "#proto/messages.ts";
import { notUnderstood } from "./not-understood.ts";

/** A reply, with the payload that came with it (the receiver releases it). */
export interface Reply<T> {
  readonly body: T;
  readonly payload: Payload | undefined;
}

interface Pending {
  readonly queue: string;
  readonly type: RequestType;
  readonly message: BusMessage;
  readonly resolve: (reply: Reply<unknown>) => void;
  readonly reject: (error: unknown) => void;
  /** How long its answer is waited for before it is sent a second time, in ms. */
  readonly resendMs: number;
  /** When the bus took it last; undefined while it waits for room: then nothing is lost. */
  sentAt: number | undefined;
  tries: number;
}

/** How often a request without an answer is sent again, in ms: doubled each time up to the limit. */
const RESEND_FIRST_MS = 30_000;
const RESEND_MAX_MS = 240_000;
const RESEND_CHECK_MS = 5_000;

/** Sends requests and awaits their replies at an inbox of its own. */
export class Requester {
  readonly #bus: Bus;
  readonly #clock: Clock;
  readonly #inbox: string;
  /** Nobody who sees some of the ids can tell the others, and answer in somebody else's stead. */
  readonly #idKey: Buffer;
  readonly #pending = new Map<string, Pending>();
  readonly #subscription: Subscription;
  readonly #stop = new AbortController();
  #next = 0;

  constructor(bus: Bus, clock: Clock, random: Random) {
    this.#bus = bus;
    this.#clock = clock;
    this.#inbox = bus.inbox();
    this.#idKey = random.bytes(32);
    this.#subscription = bus.subscribe(this.#inbox, (message) => this.#receive(message));
    void this.#resendLoop();
  }

  /**
   * Sends a request and resolves with its reply; errors of the handler come back as AshlarError.
   * @param options.resendMs where its answer usually takes long: how long it is waited for before it is sent a second time
   */
  async request<T extends RequestType>(
    queue: string,
    type: T,
    body: Requests[T]["request"],
    options: {
      readonly payload?: Payload;
      readonly signal?: AbortSignal;
      readonly resendMs?: number;
    } = {},
  ): Promise<Reply<Requests[T]["reply"]>> {
    options.signal?.throwIfAborted();
    const id = this.#newId();
    const message: BusMessage = {
      body: encodeRequest({ v: MESSAGE_VERSION, type, id, replyTo: this.#inbox, body }),
      ...(options.payload === undefined ? {} : { payload: options.payload }),
    };
    const { promise, resolve, reject } = Promise.withResolvers<Reply<unknown>>();
    // The answer may come before the bus has said that it took the request.
    promise.catch(() => undefined);
    // The pending entry keeps the payload: a request may be sent again until it is answered.
    options.payload?.retain();
    const { resendMs = RESEND_FIRST_MS } = options;
    const unsent = { sentAt: undefined, tries: 1 };
    const pending: Pending = { queue, type, message, resolve, reject, resendMs, ...unsent };
    this.#pending.set(id, pending);
    const onAbort = (): void => reject(options.signal?.reason);
    options.signal?.addEventListener("abort", onAbort, { once: true });
    try {
      await this.#bus.publish(
        queue,
        message,
        options.signal === undefined ? {} : { signal: options.signal },
      );
      pending.sentAt = this.#clock.monotonic();
      return (await promise) as Reply<Requests[T]["reply"]>;
    } finally {
      options.signal?.removeEventListener("abort", onAbort);
      this.#pending.delete(id);
      options.payload?.release();
    }
  }

  #newId(): string {
    this.#next += 1;
    return createHmac("sha256", this.#idKey).update(String(this.#next)).digest("base64url");
  }

  #receive(message: BusMessage): void {
    const reply = decodeReply(message.body);
    const pending = this.#pending.get(reply.id);
    if (pending === undefined) return;
    this.#pending.delete(reply.id);
    if (reply.error !== undefined) {
      const { code, message: text, remedy, details } = reply.error;
      pending.reject(
        new AshlarError(asErrorCode(code), text, {
          ...(remedy === undefined ? {} : { remedy }),
          ...(details === undefined ? {} : { details }),
        }),
      );
      return;
    }
    let body: unknown;
    try {
      body = readReply(pending.type, reply);
    } catch (error) {
      // Asked again it would be answered in the same way.
      pending.reject(notUnderstood(error, `the answer to ${pending.type}`, "this process"));
      return;
    }
    message.payload?.retain();
    pending.resolve({ body, payload: message.payload });
  }

  async #resendLoop(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.#clock.sleep(RESEND_CHECK_MS, signal);
      } catch {
        return;
      }
      const now = this.#clock.monotonic();
      for (const pending of this.#pending.values()) {
        const wait = Math.min(RESEND_MAX_MS, pending.resendMs * 2 ** (pending.tries - 1));
        if (pending.sentAt === undefined || now - pending.sentAt < wait) continue;
        pending.tries += 1;
        void this.#sendAgain(pending, signal);
      }
    }
  }

  async #sendAgain(pending: Pending, signal: AbortSignal): Promise<void> {
    pending.sentAt = undefined;
    // The first one may be answered, and its payload given back, while this one waits for room.
    pending.message.payload?.retain();
    try {
      await this.#bus.publish(pending.queue, pending.message, { signal });
    } catch {
      // The bus is closed, or refuses it: the first publisher hears of it.
    } finally {
      pending.message.payload?.release();
    }
    pending.sentAt = this.#clock.monotonic();
  }

  /** Rejects what is pending and stops. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#subscription.stop();
    for (const pending of this.#pending.values()) {
      pending.reject(new AshlarError(ErrorCode.Cancelled, "the process is stopping"));
    }
    this.#pending.clear();
  }
}
