// Copies of messages, so that sender and receivers share no memory but the payload.
import type { BusMessage } from "#lib/ports/bus.ts";

/** The message as it would arrive over a network. */
export function copyOf(message: BusMessage): BusMessage {
  return {
    body: Buffer.from(message.body),
    ...(message.payload === undefined ? {} : { payload: message.payload }),
    ...(message.headers === undefined ? {} : { headers: { ...message.headers } }),
  };
}
