// Request and reply over a Bus that may lose, repeat, delay and reorder: requests are sent again until they are answered,
// so every handler is idempotent; the reply to a repeated request is the same message again.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Bus, BusMessage, Payload, Subscription } from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import {
  decodeMessage,
  encodeMessage,
  MESSAGE_VERSION,
  type ReplyEnvelope,
  type Requests,
  type RequestType,
} from "#proto/messages.ts";

/** A reply, with the payload that came with it (the receiver releases it). */
export interface Reply<T> {
  readonly body: T;
  readonly payload: Payload | undefined;
}

interface Pending {
  readonly queue: string;
  readonly message: BusMessage;
  readonly resolve: (reply: Reply<unknown>) => void;
  readonly reject: (error: unknown) => void;
  sentAt: number;
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
  readonly #prefix: string;
  readonly #pending = new Map<string, Pending>();
  readonly #subscription: Subscription;
  readonly #stop = new AbortController();
  #next = 0;

  constructor(bus: Bus, clock: Clock, random: Random) {
    this.#bus = bus;
    this.#clock = clock;
    this.#inbox = bus.inbox();
    this.#prefix = random.bytes(6).toString("hex");
    this.#subscription = bus.subscribe(this.#inbox, (message) => this.#receive(message));
    void this.#resendLoop();
  }

  /** Sends a request and resolves with its reply; errors of the handler come back as AshlarError. */
  async request<T extends RequestType>(
    queue: string,
    type: T,
    body: Requests[T]["request"],
    options: { readonly payload?: Payload; readonly signal?: AbortSignal } = {},
  ): Promise<Reply<Requests[T]["reply"]>> {
    options.signal?.throwIfAborted();
    const id = `${this.#prefix}-${(this.#next += 1)}`;
    const message: BusMessage = {
      body: encodeMessage({ v: MESSAGE_VERSION, type, id, replyTo: this.#inbox, body }),
      ...(options.payload === undefined ? {} : { payload: options.payload }),
    };
    const { promise, resolve, reject } = Promise.withResolvers<Reply<unknown>>();
    // The answer may come before the bus has said that it took the request.
    promise.catch(() => undefined);
    // The pending entry keeps the payload: a request may be sent again until it is answered.
    options.payload?.retain();
    this.#pending.set(id, {
      queue,
      message,
      resolve,
      reject,
      sentAt: this.#clock.monotonic(),
      tries: 1,
    });
    const onAbort = (): void => reject(options.signal?.reason);
    options.signal?.addEventListener("abort", onAbort, { once: true });
    try {
      await this.#bus.publish(
        queue,
        message,
        options.signal === undefined ? {} : { signal: options.signal },
      );
      return (await promise) as Reply<Requests[T]["reply"]>;
    } finally {
      options.signal?.removeEventListener("abort", onAbort);
      this.#pending.delete(id);
      options.payload?.release();
    }
  }

  #receive(message: BusMessage): void {
    const reply = decodeMessage<ReplyEnvelope>(message.body);
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
    message.payload?.retain();
    pending.resolve({ body: reply.body, payload: message.payload });
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
        const wait = Math.min(RESEND_MAX_MS, RESEND_FIRST_MS * 2 ** (pending.tries - 1));
        if (now - pending.sentAt < wait) continue;
        pending.sentAt = now;
        pending.tries += 1;
        void this.#bus.publish(pending.queue, pending.message, { signal }).catch(() => undefined);
      }
    }
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

function asErrorCode(code: string): ErrorCode {
  return (Object.values(ErrorCode) as string[]).includes(code)
    ? (code as ErrorCode)
    : ErrorCode.Internal;
}
