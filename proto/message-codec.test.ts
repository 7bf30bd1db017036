import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { packBlockIds, unpackBlockIds, type BlockId } from "#lib/core/ids.ts";
import { decodeRequest, encodeRequest, readRequest } from "./message-codec.ts";
import { MESSAGE_VERSION } from "./messages.ts";

describe("a message", () => {
  it("has binary values that are Buffers, whatever the bus hands over", () => {
    const ids = ["00", "ff"].map((byte) => byte.repeat(32) as BlockId);
    const body = { session: "s", token: "t", ids: packBlockIds(ids) };
    const envelope = { v: MESSAGE_VERSION, type: "nodes", id: "1", replyTo: "inbox.1", body };
    const whole = encodeRequest(envelope);
    // What a client of NATS makes of a message that came in two pieces.
    const shared = new Uint8Array(new SharedArrayBuffer(whole.length));
    shared.set(whole);
    const wide = new Uint8Array(whole.length + 20).fill(1);
    wide.set(whole, 10);
    for (const bytes of [
      whole,
      new Uint8Array(whole),
      shared,
      wide.subarray(10, 10 + whole.length),
    ]) {
      const read = readRequest<"nodes">(decodeRequest(bytes));
      assert.ok(Buffer.isBuffer(read.ids));
      assert.deepEqual(unpackBlockIds(read.ids), ids);
    }
  });
});
