// Reads the golden files of every released format, as whoever restores an old backup must. They are made once, by
// test/golden/make.ts, and never change.
import assert from "node:assert/strict";
import {
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
} from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { zstdDecompressSync } from "node:zlib";
import { Blake3Hasher } from "@napi-rs/blake-hash";
import { unpack } from "msgpackr";
import {
  ACCESS_PLAN,
  BLOCKS,
  HEAD,
  KEY_FILE_KEY,
  KEYS,
  NODE,
  PASSPHRASE,
  REMOVED_HEAD,
  STAMP,
  X25519_KEYS,
} from "#test/golden/content.ts";
import { decodeHead, encodeHead } from "#proto/head.ts";
import { decodeKeyObject, encodeKeyObject } from "#proto/key-object.ts";
import { decodeNode, encodeNode } from "#proto/node.ts";
import { stampObjectId } from "#proto/object-names.ts";
import { decodeSealed, writeHeader, type Compression } from "#proto/sealed-object.ts";
import { decodeStamp, encodeStamp } from "#proto/stamp.ts";
import { createHasher } from "./hashing.ts";
import { formatKeyFile, parseKeyFile } from "./key-file.ts";
import { passphraseSecret } from "./access-key.ts";
import { openKeyObject, openKeys, verifyFacts } from "./key-objects.ts";
import { writeOnlyKeys } from "./keys.ts";
import { verifyChecksum } from "./sealed-check.ts";
import { createSealer } from "./sealing.ts";

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

  it("blocks under an X25519 key open, beside those under the symmetric keys before", () => {
    const opener = createSealer(X25519_KEYS, { compression: "none" });
    for (const [compression, plain] of Object.entries(BLOCKS) as [Compression, Buffer][]) {
      const id = hasher.hashBlock(plain).toString("hex");
      for (const name of [`1-x25519-block-${compression}.bin`, `1-block-${compression}.bin`]) {
        const sealed = golden(name);
        assert.equal(decodeSealed(sealed).header.compression, compression);
        assert.deepEqual(opener.open({ kind: "block", id, sealed }), plain);
      }
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

  it("an X25519 wrap can be read with nothing but docs/format.md and standard algorithms", () => {
    const object = golden("1-x25519-block-none.bin");
    const pair = X25519_KEYS.repositoryKeys.get(object.toString("hex", 56, 64));
    assert.ok(pair?.scheme === "x25519" && pair.privateKey !== undefined);
    assert.equal(object.toString("hex", 64, 68), "02005c00");
    const jwk = { kty: "OKP", crv: "X25519" };
    const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url");
    const ephemeral = object.subarray(68, 100);
    const shared = diffieHellman({
      privateKey: createPrivateKey({
        key: { ...jwk, x: base64(pair.publicKey), d: base64(pair.privateKey) },
        format: "jwk",
      }),
      publicKey: createPublicKey({ key: { ...jwk, x: base64(ephemeral) }, format: "jwk" }),
    });
    const info = Buffer.concat([Buffer.from("ashlar x25519 wrap 1"), ephemeral, pair.publicKey]);
    const wrapKey = Buffer.from(hkdfSync("sha256", shared, "", info, 32));
    const aad = [
      Buffer.from("ashlar data key 1\0"),
      object.subarray(8, 9),
      object.subarray(16, 48),
      object.subarray(56, 64),
    ];
    const unwrap = createDecipheriv("aes-256-gcm", wrapKey, object.subarray(100, 112))
      .setAAD(Buffer.concat(aad))
      .setAuthTag(object.subarray(144, 160));
    const dataKey = Buffer.concat([unwrap.update(object.subarray(112, 144)), unwrap.final()]);
    const end = 172 + object.readUInt32LE(52);
    const content = createDecipheriv("aes-256-gcm", dataKey, object.subarray(160, 172))
      .setAAD(object.subarray(0, 56))
      .setAuthTag(object.subarray(end, end + 16));
    const plain = Buffer.concat([content.update(object.subarray(172, end)), content.final()]);
    assert.deepEqual(plain, BLOCKS.none);
    assert.equal(object.length, end + 32);
  });

  it("key objects with facts open, of every kind, and those that were sealed to a public key", async () => {
    const contents = {
      facts: KEYS,
      x25519: X25519_KEYS,
      writer: writeOnlyKeys(X25519_KEYS),
    };
    for (const [name, keys] of Object.entries(contents)) {
      for (const secret of [
        { type: "keyfile", key: KEY_FILE_KEY } as const,
        passphraseSecret(PASSPHRASE),
      ]) {
        for (const format of [1, 2]) {
          const file = `${format}-keys-${name}-${secret.type}.json`;
          const bytes = golden(file);
          const opened = await openKeyObject([{ name: file, bytes }], secret);
          assert.deepEqual(opened.keys, keys, file);
          const { facts } = opened.object;
          assert.ok(facts !== undefined);
          assert.deepEqual(
            [facts.label, facts.createdMs, facts.revision, facts.capability],
            [
              ACCESS_PLAN.label,
              ACCESS_PLAN.createdMs,
              keys.revision,
              name === "writer" ? "write-only" : "full",
            ],
          );
          const verifier = name === "facts" ? KEYS : X25519_KEYS;
          assert.equal(verifyFacts(verifier, opened.object), "active");
          assert.deepEqual(encodeKeyObject(opened.object), bytes);
        }
      }
    }
  });
});
