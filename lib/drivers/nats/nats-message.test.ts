import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { headers as emptyHeaders } from "@nats-io/transport-node";
import * as fc from "fast-check";
import type { BusMessage } from "#lib/ports/bus.ts";
import { decodeMessage, encodeMessage, overheadBytes } from "./nats-message.ts";

const bytes = fc.uint8Array({ maxLength: 2000 });
const names = fc.stringMatching(/^[a-z][a-z0-9-]{0,20}$/);
const values = fc.stringMatching(/^[!-~]([ -~]{0,40}[!-~])?$/);

function payloadOf(content: Uint8Array) {
  return { bytes: content, retain: () => undefined, release: () => undefined };
}

function decode(message: Parameters<typeof decodeMessage>[0]): BusMessage {
  const decoded = decodeMessage(message);
  assert.ok(decoded !== "damaged");
  return decoded;
}

describe("messages on NATS", () => {
  it("are left out where their body is not what was sent", () => {
    for (const payload of [undefined, payloadOf(Buffer.from("content"))]) {
      const { data, headers } = encodeMessage({
        body: Buffer.from("what was sent"),
        ...(payload === undefined ? {} : { payload }),
      });
      assert.notEqual(decodeMessage({ data, headers }), "damaged");
      headers.set("Ashlar-Sum", "0");
      assert.equal(decodeMessage({ data, headers }), "damaged");
    }
    const { headers } = encodeMessage({ body: Buffer.from("what was sent") });
    assert.equal(decodeMessage({ data: Buffer.from("what was senT"), headers }), "damaged");
  });

  it("of strangers have no checksum", () => {
    assert.deepEqual(decode({ data: Buffer.from("{}") }), { body: Buffer.from("{}") });
  });

  it("come as they went", () => {
    fc.assert(
      fc.property(
        bytes,
        fc.option(bytes),
        fc.dictionary(names, values, { noNullPrototype: true }),
        (body, content, headers) => {
          const message: BusMessage = {
            body,
            ...(content === null ? {} : { payload: payloadOf(content) }),
            headers,
          };
          const back = decode(encodeMessage(message));
          assert.deepEqual(Buffer.from(back.body), Buffer.from(body));
          assert.deepEqual(back.headers ?? {}, headers);
          assert.deepEqual(
            back.payload === undefined ? null : Buffer.from(back.payload.bytes),
            content === null ? null : Buffer.from(content),
          );
        },
      ),
    );
  });

  it("do not copy a block", () => {
    const content = Buffer.alloc(100);
    const message = { body: Buffer.from("b"), payload: payloadOf(content) };
    assert.equal(encodeMessage(message).data, content);
  });

  it("give the memory of a payload back when nobody needs it any more", () => {
    const { data, headers } = encodeMessage({
      body: Buffer.from("b"),
      payload: payloadOf(Buffer.from("content")),
    });
    const back: Uint8Array[] = [];
    const decoded = decodeMessage({ data, headers }, (each) => back.push(each));
    assert.ok(decoded !== "damaged" && decoded.payload !== undefined);
    decoded.payload.retain();
    decoded.payload.release();
    assert.deepEqual(back, []);
    decoded.payload.release();
    assert.deepEqual(back, [data]);
    assert.throws(() => decoded.payload?.release());
    assert.throws(() => decoded.payload?.retain());
  });

  it("hide what NATS adds", () => {
    const headers = emptyHeaders();
    headers.set("Nats-Msg-Id", "1");
    headers.set("traceparent", "00");
    assert.deepEqual(decode({ data: Buffer.alloc(0), headers }).headers, {
      traceparent: "00",
    });
  });

  it("take no more than is told beside their payload", () => {
    for (const length of [0, 1, 100, 10_000]) {
      const body = Buffer.alloc(length, 255);
      const { headers } = encodeMessage({ body, payload: payloadOf(Buffer.alloc(1)) });
      const encoded = (headers as unknown as { encode(): Uint8Array }).encode();
      assert.ok(encoded.length < overheadBytes(length));
    }
  });
});
