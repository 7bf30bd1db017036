import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { describe, it } from "node:test";
import { Blake3Hasher } from "@napi-rs/blake-hash";
import { deriveKey } from "./derive-key.ts";
import { createHasher } from "./hashing.ts";

const DEDUP_KEY = Buffer.alloc(32, 5);
const PLAIN = Buffer.from("a block");
const blake3 = createHasher({ hash: "blake3", dedupKey: DEDUP_KEY });
const hmac = createHasher({ hash: "hmac-sha256", dedupKey: DEDUP_KEY });

describe("content ids", () => {
  it("are keyed BLAKE3 under keys of their own", () => {
    const expected = (info: string): string =>
      Blake3Hasher.newKeyed(deriveKey(DEDUP_KEY, info)).update(PLAIN).digest("hex");
    assert.equal(blake3.hashBlock(PLAIN).toString("hex"), expected("ashlar block id 1"));
    assert.equal(blake3.hashNode(PLAIN).toString("hex"), expected("ashlar node id 1"));
    assert.equal(blake3.headName(PLAIN.toString()), expected("ashlar head name 1"));
  });

  it("are HMAC-SHA-256 where the repository says so", () => {
    const key = deriveKey(DEDUP_KEY, "ashlar block id 1");
    assert.deepEqual(hmac.hashBlock(PLAIN), createHmac("sha256", key).update(PLAIN).digest());
  });

  it("keep the key when a hasher is used again (BLAKE3's own test vector)", () => {
    const hasher = Blake3Hasher.newKeyed(Buffer.from("whats the Elvish word for friend"));
    const input = Buffer.from([0, 1, 2]);
    for (let time = 0; time < 3; time += 1) {
      hasher.reset();
      assert.equal(
        hasher.update(input).digest("hex"),
        "39e67b76b5a007d4921969779fe666da67b5213b096084ab674742f0d5ec62b9",
      );
    }
  });

  it("do not depend on what was hashed before, or on where the bytes lie", () => {
    for (const hasher of [blake3, hmac]) {
      const first = hasher.hashBlock(PLAIN);
      hasher.hashBlock(Buffer.alloc(100_000, 1));
      const shared = new Uint8Array(new SharedArrayBuffer(64), 3, PLAIN.length);
      shared.set(PLAIN);
      assert.deepEqual(hasher.hashBlock(shared), first);
      assert.equal(first.length, 32);
    }
  });

  it("differ between blocks, nodes, head names and repositories", () => {
    const other = createHasher({ hash: "blake3", dedupKey: Buffer.alloc(32, 6) });
    const ids = [blake3, hmac, other].flatMap((hasher) => [
      hasher.hashBlock(PLAIN).toString("hex"),
      hasher.hashNode(PLAIN).toString("hex"),
      hasher.headName(PLAIN.toString()),
    ]);
    assert.equal(new Set(ids).size, ids.length);
  });
});
