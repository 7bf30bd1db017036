// The receiving side of request and reply: decode, handle, answer. No decision is made here.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Bus, BusMessage, Payload, Subscription } from "#lib/ports/bus.ts";
import { decodeRequest, encodeReply, readRequest } from "#proto/message-codec.ts";
import type { ErrorMessage } from "#proto/message-parts.ts";
import {
  MESSAGE_VERSION,
  type Envelope,
  type ReplyEnvelope,
  type Requests,
  type RequestType,
} from "#proto/messages.ts";
import { notUnderstood } from "./not-understood.ts";

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

/** What the subjects of inboxes begin with (lib/ports/bus.ts). */
const INBOX = "inbox.";

/**
 * Serves the requests of a queue. Failures are answered as errors; they are not delivered again. So are requests that cannot be
 * understood; where they do not even say who asks, they are left out.
 */
export function serve(
  bus: Bus,
  queue: string,
  concurrency: number,
  handlers: Handlers,
  onDefect: (error: unknown) => void,
): Subscription {
  /** Requests under way: one that comes again meanwhile gets the answer of the first, and needs no place of its own. */
  const underWay = new Set<string>();
  return bus.consume(queue, { concurrency }, async (message) => {
    let envelope: Envelope;
    try {
      envelope = decodeRequest(message.body);
    } catch (error) {
      // The next delivery would be no better, here or elsewhere.
      onDefect(notUnderstood(error, `a message at ${queue}`, "this process"));
      return;
    }
    // Whoever asks is answered at an inbox, and can have nothing said for him anywhere else.
    if (!envelope.replyTo.startsWith(INBOX)) return;
    if (underWay.has(envelope.id)) return;
    underWay.add(envelope.id);
    try {
      const answer = await handle(queue, envelope, message, handlers, onDefect);
      try {
        sendAnswer(bus, envelope, answer);
      } finally {
        answer.payload?.release();
      }
    } finally {
      underWay.delete(envelope.id);
    }
  });
}

/** An answer that the bus cannot carry is told as an error: whoever asked would ask for it for ever. */
function sendAnswer(bus: Bus, envelope: Envelope, answer: BusMessage): void {
  try {
    bus.send(envelope.replyTo, answer);
  } catch (error) {
    if (!(error instanceof AshlarError)) throw error;
    const body = encodeReply({ v: MESSAGE_VERSION, id: envelope.id, error: describe(error) });
    bus.send(envelope.replyTo, { body });
  }
}

async function handle(
  queue: string,
  envelope: Envelope,
  message: BusMessage,
  handlers: Handlers,
  onDefect: (error: unknown) => void,
): Promise<BusMessage> {
  const reply = (rest: Partial<ReplyEnvelope>): Uint8Array =>
    encodeReply({ v: MESSAGE_VERSION, id: envelope.id, ...rest });
  try {
    const request = read(queue, envelope);
    const handler = handlers[envelope.type as RequestType] as
      | ((request: unknown, payload: Payload | undefined) => Promise<Answer<unknown>>)
      | undefined;
    if (handler === undefined) {
      throw new AshlarError(ErrorCode.Internal, `nobody handles ${envelope.type} here`);
    }
    const { body, payload } = await handler(request, message.payload);
    return { body: reply({ body }), ...(payload === undefined ? {} : { payload }) };
  } catch (error) {
    if (!(error instanceof AshlarError)) onDefect(error);
    return { body: reply({ error: describe(error) }) };
  }
}

function read(queue: string, envelope: Envelope): unknown {
  try {
    return readRequest(envelope);
  } catch (error) {
    throw notUnderstood(error, `a request to ${queue}`, `the process that serves ${queue}`);
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
