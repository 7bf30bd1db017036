// The receiving side of request and reply: decode, handle, answer. No decision is made here.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Bus, BusMessage, Payload, Subscription } from "#lib/ports/bus.ts";
import {
  decodeMessage,
  encodeMessage,
  MESSAGE_VERSION,
  type Envelope,
  type ErrorMessage,
  type ReplyEnvelope,
  type Requests,
  type RequestType,
} from "#proto/messages.ts";

/** What a handler answers: a body, and perhaps a payload, which is released once it is on its way. */
export interface Answer<T> {
  readonly body: T;
  readonly payload?: Payload;
}

/** A handler of one type of request; `payload` stays valid until it resolves (retain it for longer). */
export type Handler<T extends RequestType> = (
  request: Requests[T]["request"],
  payload: Payload | undefined,
) => Promise<Answer<Requests[T]["reply"]>>;

/** Handlers by type of request. */
export type Handlers = { readonly [T in RequestType]?: Handler<T> };

/** Serves the requests of a queue. Failures are answered as errors; they are not delivered again. */
export function serve(
  bus: Bus,
  queue: string,
  concurrency: number,
  handlers: Handlers,
  onDefect: (error: unknown) => void,
): Subscription {
  return bus.consume(queue, { concurrency }, async (message) => {
    const envelope = decodeMessage<Envelope>(message.body);
    const answer = await handle(envelope, message, handlers, onDefect);
    bus.send(envelope.replyTo, answer);
    answer.payload?.release();
  });
}

async function handle(
  envelope: Envelope,
  message: BusMessage,
  handlers: Handlers,
  onDefect: (error: unknown) => void,
): Promise<BusMessage> {
  const reply = (rest: Partial<ReplyEnvelope>): Uint8Array =>
    encodeMessage({ v: MESSAGE_VERSION, id: envelope.id, ...rest });
  try {
    if (envelope.v > MESSAGE_VERSION) {
      throw new AshlarError(ErrorCode.Config, "the message is of a newer Ashlar", {
        remedy: "upgrade this process",
      });
    }
    const handler = handlers[envelope.type as RequestType] as
      | ((request: unknown, payload: Payload | undefined) => Promise<Answer<unknown>>)
      | undefined;
    if (handler === undefined) {
      throw new AshlarError(ErrorCode.Internal, `nobody handles ${envelope.type} here`);
    }
    const { body, payload } = await handler(envelope.body, message.payload);
    return { body: reply({ body }), ...(payload === undefined ? {} : { payload }) };
  } catch (error) {
    if (!(error instanceof AshlarError)) onDefect(error);
    return { body: reply({ error: describe(error) }) };
  }
}

/** An error as a message: only what an operator may see. */
function describe(error: unknown): ErrorMessage {
  if (!(error instanceof AshlarError)) {
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return { code: ErrorCode.Internal, message: text };
  }
  return {
    code: error.code,
    message: error.message,
    ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    details: error.details,
  };
}
