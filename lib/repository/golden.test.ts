// Reads the golden files of every released format, as whoever restores an old backup must. They are made once, by
// test/golden/make.ts, and never change.
import assert from "node:assert/strict";
import { createDecipheriv, hkdfSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import { Blake3Hasher } from "@napi-rs/blake-hash";
import { unpack } from "msgpackr";
import {
  BLOCKS,
  HEAD,
  KEY_FILE_KEY,
  KEYS,
  NODE,
  PASSPHRASE,
  REMOVED_HEAD,
  STAMP,
} from "#test/golden/content.ts";
import { decodeHead, encodeHead } from "#proto/head.ts";
import { decodeKeyObject, encodeKeyObject } from "#proto/key-object.ts";
import { decodeNode, encodeNode } from "#proto/node.ts";
import { stampObjectId } from "#proto/object-names.ts";
import { decodeSealed, writeHeader, type Compression } from "#proto/sealed-object.ts";
import { decodeStamp, encodeStamp } from "#proto/stamp.ts";
import { createHasher } from "./hashing.ts";
import { formatKeyFile, parseKeyFile } from "./key-file.ts";
import { openKeys, passphraseSecret } from "./keys.ts";
import { createSealer, verifyChecksum } from "./sealing.ts";

const FOLDER = join(import.meta.dirname, "../../test/golden");
const golden = (name: string): Buffer => readFileSync(join(FOLDER, name));

const hasher = createHasher(KEYS);
const sealer = createSealer(KEYS, { compression: "zstd" });

describe("golden files of format 1", () => {
  it("blocks open, in every compression", () => {
    for (const [compression, plain] of Object.entries(BLOCKS) as [Compression, Buffer][]) {
      const sealed = golden(`1-block-${compression}.bin`);
      const id = hasher.hashBlock(plain).toString("hex");
      assert.equal(decodeSealed(sealed).header.compression, compression);
      assert.deepEqual(sealer.open({ kind: "block", id, sealed }), plain);
    }
  });

  it("ids are what they were", () => {
    assert.equal(
      hasher.hashBlock(BLOCKS.none).toString("hex"),
      "34a93a7bb9c7b5e50214a90adefd1c08fd38962944d4bb078ead12100cc0b27d",
    );
    assert.equal(
      hasher.hashNode(encodeNode(NODE)).toString("hex"),
      "99f74061b934a294b10a831a9c2fbb2823b1513a2d49ae8e88e628f6fb9df23c",
    );
    assert.equal(
      hasher.headName(HEAD.uid),
      "ce075c5bfc021d0920fab60038478616e0b37b25c3d5ab565e6ca40347e946a6",
    );
    const hmac = createHasher({ ...KEYS, hash: "hmac-sha256" });
    assert.equal(
      hmac.hashBlock(BLOCKS.none).toString("hex"),
      "6c6500bca90307bc2a19cafa91d7ce93f3f0f2edf67f74ddbd0b27118a0b92dc",
    );
  });

  it("a node, heads and a stamp open, decode, and encode to the same bytes", () => {
    const node = sealer.open({
      kind: "node",
      id: hasher.hashNode(golden("1-node-plain.bin")).toString("hex"),
      sealed: golden("1-node.bin"),
    });
    assert.deepEqual(node, golden("1-node-plain.bin"));
    assert.deepEqual(decodeNode(node), NODE);
    assert.deepEqual(encodeNode(NODE), node);
    for (const [name, head] of [
      ["head", HEAD],
      ["removed-head", REMOVED_HEAD],
    ] as const) {
      const plain = sealer.open({
        kind: "head",
        id: hasher.headName(head.uid),
        sealed: golden(`1-${name}.bin`),
      });
      assert.deepEqual(plain, golden(`1-${name}-plain.bin`));
      assert.deepEqual(decodeHead(plain), head);
      assert.deepEqual(encodeHead(head), plain);
    }
    const stamp = sealer.open({
      kind: "stamp",
      id: stampObjectId(STAMP.random),
      sealed: golden("1-stamp.bin"),
    });
    assert.deepEqual(stamp, golden("1-stamp-plain.bin"));
    assert.deepEqual(decodeStamp(stamp), STAMP);
    assert.deepEqual(encodeStamp(STAMP), stamp);
  });

  it("headers encode to the same bytes, and checksums fit", () => {
    const names = [
      "block-none",
      "block-zstd",
      "block-lz4",
      "node",
      "head",
      "removed-head",
      "stamp",
    ];
    for (const name of names) {
      const sealed = golden(`1-${name}.bin`);
      const copy = Buffer.from(sealed);
      copy.fill(0, 0, 68);
      writeHeader(copy, decodeSealed(sealed).header);
      assert.deepEqual(copy, sealed);
      verifyChecksum(sealed);
    }
  });

  it("a key file is read, and written in the same way", () => {
    const text = golden("1-key-file.txt").toString();
    assert.deepEqual(parseKeyFile(text), { type: "keyfile", key: KEY_FILE_KEY });
    assert.equal(formatKeyFile(KEY_FILE_KEY), text);
  });

  it("can be read with nothing but docs/format.md, the key file and standard algorithms", () => {
    const hkdf = (key: Uint8Array, info: string): Buffer =>
      Buffer.from(hkdfSync("sha256", key, "", info, 32));
    const gcm = (
      key: Uint8Array,
      nonce: Buffer,
      aad: Buffer,
      text: Buffer,
      tag: Buffer,
    ): Buffer => {
      const decipher = createDecipheriv("aes-256-gcm", key, nonce).setAAD(aad).setAuthTag(tag);
      return Buffer.concat([decipher.update(text), decipher.final()]);
    };
    const json = JSON.parse(golden("1-keys-keyfile.json").toString()) as Record<string, string>;
    const sealedKeys = Buffer.from(json["sealed"] ?? "", "base64");
    const lines = [
      "ashlar key object",
      "1",
      json["repository"],
      json["accessId"],
      "keyfile",
      "-",
      "",
    ];
    const record = unpack(
      gcm(
        hkdf(KEY_FILE_KEY, "ashlar access key 1"),
        Buffer.from(json["nonce"] ?? "", "hex"),
        Buffer.from(lines.join("\n")),
        sealedKeys.subarray(0, -16),
        sealedKeys.subarray(-16),
      ),
    ) as { dedupKey: Buffer; repositoryKeys: { id: string; key: Buffer }[] };

    const object = golden("1-block-zstd.bin");
    const repositoryKey = record.repositoryKeys.find(
      ({ id }) => id === object.toString("hex", 56, 64),
    )?.key;
    assert.ok(repositoryKey !== undefined);
    const aad = [
      Buffer.from("ashlar data key 1\0"),
      object.subarray(8, 9),
      object.subarray(16, 48),
      object.subarray(56, 64),
    ];
    const [wrapNonce, wrappedKey, wrapTag] = [
      object.subarray(68, 80),
      object.subarray(80, 112),
      object.subarray(112, 128),
    ];
    const dataKey = gcm(repositoryKey, wrapNonce, Buffer.concat(aad), wrappedKey, wrapTag);
    const end = 140 + object.readUInt32LE(52);
    const [nonce, ciphertext, tag] = [
      object.subarray(128, 140),
      object.subarray(140, end),
      object.subarray(end, end + 16),
    ];
    const plain = zstdDecompressSync(gcm(dataKey, nonce, object.subarray(0, 56), ciphertext, tag));
    assert.deepEqual(plain, BLOCKS.zstd);
    const id = Blake3Hasher.newKeyed(hkdf(record.dedupKey, "ashlar block id 1"))
      .update(plain)
      .digest("hex");
    assert.equal(id, object.toString("hex", 16, 48));
    const checksum = new Blake3Hasher()
      .update(object.subarray(0, -16))
      .digestBuffer()
      .subarray(0, 16);
    assert.deepEqual(checksum, object.subarray(-16));
  });

  it("key objects open with the key file and with the passphrase", async () => {
    const objects = ["1-keys-keyfile.json", "1-keys-passphrase.json"].map((name) => ({
      name,
      bytes: golden(name),
    }));
    assert.deepEqual(await openKeys(objects, { type: "keyfile", key: KEY_FILE_KEY }), KEYS);
    assert.deepEqual(await openKeys(objects, passphraseSecret(PASSPHRASE.normalize("NFD"))), KEYS);
    for (const { bytes } of objects)
      assert.deepEqual(encodeKeyObject(decodeKeyObject(bytes)), bytes);
  });
});
