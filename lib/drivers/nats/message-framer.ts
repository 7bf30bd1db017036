// Puts large messages together before the client's parser sees them. What comes from a socket comes in pieces of 64 KiB; the parser
// collects the pieces of a message in memory that it doubles, clears and copies again and again, which for blocks costs several times
// what the bytes themselves do. A message that comes whole it takes as it is.
// The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol

const LINE_FEED = 10;
const SPACE = 32;
const ZERO = 48;
/** `MSG` and `HMSG`: what has bytes after its line. */
const PAYLOAD_KINDS: ReadonlySet<number> = new Set(Buffer.from("MHmh"));
const LINE_END_BYTES = 2;
/** No control line is longer: the server's default is 4 KiB. */
const LINE_BYTES_MAX = 64 * 1024;

/** Cuts what a server sends so that each message lies in one piece. */
export class MessageFramer {
  readonly #messageBytesMax: number;
  readonly #take: (bytes: number) => Uint8Array;
  /** The beginning of a line whose end has not come yet. */
  #line: Uint8Array | undefined;
  /** A message of which a part has come. */
  #message: Uint8Array | undefined;
  #filled = 0;
  /** What is no protocol that is known here goes through as it comes: the parser tells what is wrong. */
  #isForeign = false;

  /**
   * @param messageBytesMax larger ones go through in pieces, in bytes
   * @param take memory for a message of so many bytes
   */
  constructor(messageBytesMax: number, take: (bytes: number) => Uint8Array) {
    this.#messageBytesMax = messageBytesMax;
    this.#take = take;
  }

  /** Takes what came; gives what is complete, in order. Pieces of `chunk` are given on as they are, not copied. */
  push(chunk: Uint8Array): Uint8Array[] {
    if (this.#isForeign) return [chunk];
    const pieces: Uint8Array[] = [];
    let rest = chunk;
    if (this.#message !== undefined) {
      const taken = this.#fill(this.#message, chunk);
      if (this.#filled < this.#message.length) return pieces;
      pieces.push(this.#message);
      this.#message = undefined;
      rest = chunk.subarray(taken);
    }
    if (this.#line !== undefined) {
      rest = Buffer.concat([this.#line, rest]);
      this.#line = undefined;
    }
    const end = this.#walk(rest);
    if (end > 0) pieces.push(rest.subarray(0, end));
    return pieces;
  }

  #fill(message: Uint8Array, chunk: Uint8Array): number {
    const taken = Math.min(message.length - this.#filled, chunk.length);
    message.set(taken === chunk.length ? chunk : chunk.subarray(0, taken), this.#filled);
    this.#filled += taken;
    return taken;
  }

  /** Where the last complete message ends; what begins after it is kept. */
  #walk(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length) {
      const lineEnd = bytes.indexOf(LINE_FEED, at);
      if (lineEnd < 0) {
        if (bytes.length - at > LINE_BYTES_MAX) return this.#passAll(bytes);
        // The chunk's memory is the socket's. (What a Buffer's `slice` gives is no copy.)
        this.#line = Buffer.from(bytes.subarray(at));
        return at;
      }
      const payload = payloadBytes(bytes, at, lineEnd);
      if (payload > this.#messageBytesMax || Number.isNaN(payload)) return this.#passAll(bytes);
      const end = lineEnd + 1 + (payload < 0 ? 0 : payload + LINE_END_BYTES);
      if (end > bytes.length) {
        this.#message = this.#take(end - at);
        this.#filled = 0;
        this.#fill(this.#message, bytes.subarray(at));
        return at;
      }
      at = end;
    }
    return at;
  }

  #passAll(bytes: Uint8Array): number {
    this.#isForeign = true;
    return bytes.length;
  }
}

/** The last number of the line of a message; -1 for other lines, NaN where there is none. */
function payloadBytes(bytes: Uint8Array, from: number, lineEnd: number): number {
  if (!PAYLOAD_KINDS.has(bytes[from] ?? 0)) return -1;
  let at = bytes[lineEnd - 1] === 13 ? lineEnd - 2 : lineEnd - 1;
  let value = Number.NaN;
  for (let unit = 1; at > from && bytes[at] !== SPACE; at -= 1, unit *= 10) {
    const digit = (bytes[at] as number) - ZERO;
    if (digit < 0 || digit > 9) return Number.NaN;
    value = (Number.isNaN(value) ? 0 : value) + digit * unit;
  }
  return value;
}
