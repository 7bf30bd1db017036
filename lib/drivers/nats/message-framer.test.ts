import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { MessageFramer } from "./message-framer.ts";

const MAX = 1000;
const take = (bytes: number): Uint8Array => Buffer.alloc(bytes, 255);

const message = fc
  .record({ kind: fc.constantFrom("MSG", "HMSG"), payload: fc.uint8Array({ maxLength: 300 }) })
  .map(({ kind, payload }) => {
    const sizes = kind === "MSG" ? `${payload.length}` : `0 ${payload.length}`;
    return Buffer.concat([
      Buffer.from(`${kind} a.subject 12 $JS.ACK.a.b ${sizes}\r\n`),
      payload,
      Buffer.from("\r\n"),
    ]);
  });
const line = fc.constantFrom("PING\r\n", "PONG\r\n", "+OK\r\n", "INFO {}\r\n", "-ERR 'no'\r\n");
const stream = fc.array(
  fc.oneof(
    message,
    line.map((text) => Buffer.from(text)),
  ),
  {
    minLength: 1,
    maxLength: 20,
  },
);

/** Cuts it there, and overwrites each chunk once the framer is done with it, as a socket does. */
function pushAll(framer: MessageFramer, bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].toSorted(
    (a, b) => a - b,
  );
  const pieces: Buffer[] = [];
  let at = 0;
  for (const end of ends) {
    const chunk = Buffer.from(bytes.subarray(at, end));
    for (const piece of framer.push(chunk)) pieces.push(Buffer.from(piece));
    chunk.fill(0);
    at = end;
  }
  return pieces;
}

describe("the framer of messages", () => {
  it("gives the same bytes, and each message in one piece", () => {
    fc.assert(
      fc.property(stream, fc.array(fc.nat(), { maxLength: 30 }), (messages, cuts) => {
        const bytes = Buffer.concat(messages);
        const pieces = pushAll(new MessageFramer(MAX, take), bytes, cuts);
        assert.deepEqual(Buffer.concat(pieces), bytes);
        const ends = new Set<number>();
        let at = 0;
        for (const each of messages) ends.add((at += each.length));
        at = 0;
        for (const piece of pieces)
          assert.ok(ends.has((at += piece.length)), "a message ends there");
      }),
    );
  });

  it("takes memory only for what comes in pieces", () => {
    const taken: number[] = [];
    const framer = new MessageFramer(MAX, (bytes) => {
      taken.push(bytes);
      return Buffer.alloc(bytes);
    });
    const whole = Buffer.from("PING\r\nMSG a 1 5\r\nhello\r\n");
    framer.push(whole);
    assert.deepEqual(taken, []);
    framer.push(whole.subarray(0, 20));
    framer.push(whole.subarray(20));
    assert.deepEqual(taken, ["MSG a 1 5\r\nhello\r\n".length]);
  });

  it("lets through as it comes what it does not know", () => {
    for (const text of ["MSG a 1 x\r\nfoo", `MSG a 1 ${MAX + 1}\r\nfoo`, "MSG a\r\nfoo"]) {
      const framer = new MessageFramer(MAX, take);
      const chunks = [Buffer.from("PING\r\n"), Buffer.from(text), Buffer.from("MSG a 1 5\r\n")];
      assert.deepEqual(
        chunks.flatMap((chunk) => framer.push(chunk)).map((piece) => Buffer.from(piece).toString()),
        chunks.map(String),
      );
    }
  });
});
