// Messages as bytes: msgpack maps. What is decoded has been held against its shape: a message of another release, or a defect, is
// found here, with the name of the field at fault, and not where it would do harm.
import { Packr } from "msgpackr";
import { malformed, writtenByNewer } from "./format-error.ts";
import {
  AGENT,
  ENVELOPE,
  PRESENCE,
  PROGRESS,
  REPLY_ENVELOPE,
  REPLY_SHAPES,
  REQUEST_SHAPES,
} from "./message-shapes.ts";
import type { ProgressMessage } from "./message-parts.ts";
import {
  MESSAGE_VERSION,
  type AgentMessage,
  type Envelope,
  type PresenceMessage,
  type ReplyEnvelope,
  type Requests,
  type RequestType,
} from "./messages.ts";
import { checkShape, type Shape } from "./shape.ts";

const packr = new Packr({ useRecords: false, variableMapSize: true, int64AsType: "number" });

/** Encodes a request. */
export function encodeRequest(request: Envelope): Buffer {
  return packr.pack(request);
}

/** Encodes a reply. */
export function encodeReply(reply: ReplyEnvelope): Buffer {
  return packr.pack(reply);
}

/**
 * Decodes the envelope of a request, of whatever version it is: so much is the same in all of them. What it asks is looked at by
 * {@link readRequest}. FormatError where nobody could be answered.
 */
export function decodeRequest(bytes: Uint8Array): Envelope {
  return decode(ENVELOPE, bytes);
}

/** What a request asks; FormatError where its version or its kind is not known here, or a field is not as it must be. */
export function readRequest<T extends RequestType>(envelope: Envelope): Requests[T]["request"] {
  const { v, type, body } = envelope;
  requireVersion(v);
  if (!isRequestType(type)) throw writtenByNewer(`it asks for ${JSON.stringify(type)}`);
  checkShape(REQUEST_SHAPES[type], body);
  return body as Requests[T]["request"];
}

/** Decodes the envelope of a reply; an error in it can be read whatever version it is of. */
export function decodeReply(bytes: Uint8Array): ReplyEnvelope {
  return decode(REPLY_ENVELOPE, bytes);
}

/** What a request of that kind was answered; FormatError as in {@link readRequest}. */
export function readReply<T extends RequestType>(
  type: T,
  { v, body }: ReplyEnvelope,
): Requests[T]["reply"] {
  requireVersion(v);
  checkShape(REPLY_SHAPES[type], body);
  return body as Requests[T]["reply"];
}

function isRequestType(type: string): type is RequestType {
  return Object.hasOwn(REQUEST_SHAPES, type);
}

function requireVersion(v: number): void {
  if (v > MESSAGE_VERSION) throw writtenByNewer(`messages of version ${v}`);
  if (!Number.isSafeInteger(v) || v < 1) throw malformed(`has no valid version (${v})`);
}

/** Encodes a progress event. */
export function encodeProgress(progress: ProgressMessage): Buffer {
  return packr.pack(progress);
}

/** Decodes a progress event. */
export function decodeProgress(bytes: Uint8Array): ProgressMessage {
  return decode(PROGRESS, bytes);
}

/** Encodes an agent's presence. */
export function encodePresence(presence: PresenceMessage): Buffer {
  return packr.pack(presence);
}

/** Decodes it. */
export function decodePresence(bytes: Uint8Array): PresenceMessage {
  return decode(PRESENCE, bytes);
}

/** Encodes an agent's word. */
export function encodeAgent(agent: AgentMessage): Buffer {
  return packr.pack(agent);
}

/** Decodes an agent's word. */
export function decodeAgent(bytes: Uint8Array): AgentMessage {
  return decode(AGENT, bytes);
}

function decode<T>(shape: Shape<T>, bytes: Uint8Array): T {
  let value: unknown;
  try {
    // What a bus hands over may be a plain Uint8Array, and so would binary values be: their toString("hex") is no hex.
    value = packr.unpack(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch (cause) {
    throw malformed("is not msgpack", cause);
  }
  checkShape(shape, value);
  return value as T;
}
