// Messages on NATS: the body is the data; where there is a payload, that is the data, as it is, and the body a header. A body has
// a checksum: what is said of copies and commits decides about data, and payloads have their hashes. (TCP's own is 16 bits, and
// none at all covers the memory of servers and clients.)
import { crc32 } from "node:zlib";
import { headers as emptyHeaders, type MsgHdrs } from "@nats-io/transport-node";
import { CountedBytes } from "#lib/drivers/counted-bytes.ts";
import type { BusMessage } from "#lib/ports/bus.ts";

const BODY = "Ashlar-Body";
const SUM = "Ashlar-Sum";
/** NATS's own: what a stream adds, and the identity of a message. */
const RESERVED = "Nats-";

/** A message as NATS takes it. */
export interface NatsMessage {
  readonly data: Uint8Array;
  readonly headers: MsgHdrs;
}

/** Nothing is copied: the message must not change before it has been flushed. */
export function encodeMessage(message: BusMessage): NatsMessage {
  const { body, payload } = message;
  const headers = emptyHeaders();
  for (const [name, value] of Object.entries(message.headers ?? {})) headers.set(name, value);
  headers.set(SUM, checksum(body));
  if (payload === undefined) return { data: body, headers };
  headers.set(BODY, Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("base64"));
  return { data: payload.bytes, headers };
}

function checksum(body: Uint8Array): string {
  return crc32(body).toString(16);
}

/** Bytes that a message takes on its way beside its payload, at most: its body as a header, names and identity. */
export function overheadBytes(bodyBytes: number): number {
  return Math.ceil((bodyBytes * 4) / 3) + 1024;
}

/**
 * The message that came. *damaged* where its body is not what was sent; of strangers, who submit jobs, there is no checksum.
 * @param giveBack takes the memory of its payload when the last reference is released; without, the garbage collector does
 */
export function decodeMessage(
  { data, headers }: { readonly data: Uint8Array; readonly headers?: MsgHdrs | undefined },
  giveBack?: (bytes: Uint8Array) => void,
): BusMessage | "damaged" {
  if (headers === undefined) return { body: data };
  const others: Record<string, string> = {};
  for (const [name, values] of headers) {
    const [value] = values;
    if (name !== BODY && name !== SUM && !name.startsWith(RESERVED) && value !== undefined)
      others[name] = value;
  }
  const rest = Object.keys(others).length === 0 ? {} : { headers: others };
  const hasPayload = headers.has(BODY);
  const body = hasPayload ? Buffer.from(headers.get(BODY), "base64") : data;
  if (headers.has(SUM) && headers.get(SUM) !== checksum(body)) return "damaged";
  return {
    body,
    ...(hasPayload ? { payload: new ReceivedPayload(data, () => giveBack?.(data)) } : {}),
    ...rest,
  };
}

/** Bytes that came over the network. */
class ReceivedPayload extends CountedBytes {
  readonly isForeign = true;
}
