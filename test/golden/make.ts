// Makes the golden files of the current format: `node test/golden/make.ts`. What is there already is left alone: a golden
// file of a released format never changes. Sealed objects have random keys and nonces, so making one again gives others.
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatKeyFile } from "#lib/repository/key-file.ts";
import { createHasher } from "#lib/repository/hashing.ts";
import { passphraseSecret, sealKeys } from "#lib/repository/keys.ts";
import { createSealer } from "#lib/repository/sealing.ts";
import { encodeHead } from "#proto/head.ts";
import { encodeNode } from "#proto/node.ts";
import { stampObjectId } from "#proto/object-names.ts";
import type { Compression, ObjectKind } from "#proto/sealed-object.ts";
import { encodeStamp } from "#proto/stamp.ts";
import {
  BLOCKS,
  HEAD,
  KEY_FILE_KEY,
  KEYS,
  NODE,
  PASSPHRASE,
  REMOVED_HEAD,
  STAMP,
} from "./content.ts";

function write(name: string, bytes: Uint8Array | string): void {
  const path = join(import.meta.dirname, name);
  if (!existsSync(path)) writeFileSync(path, bytes);
}

function writeSealed(
  name: string,
  object: { readonly kind: ObjectKind; readonly id: string; readonly plain: Uint8Array },
  compression: Compression,
): void {
  write(name, createSealer(KEYS, { compression }).seal(object));
}

const hasher = createHasher(KEYS);

for (const [compression, plain] of Object.entries(BLOCKS) as [Compression, Buffer][]) {
  const id = hasher.hashBlock(plain).toString("hex");
  writeSealed(`1-block-${compression}.bin`, { kind: "block", id, plain }, compression);
}

const node = encodeNode(NODE);
write("1-node-plain.bin", node);
writeSealed(
  "1-node.bin",
  { kind: "node", id: hasher.hashNode(node).toString("hex"), plain: node },
  "zstd",
);

for (const [name, head] of [
  ["head", HEAD],
  ["removed-head", REMOVED_HEAD],
] as const) {
  const plain = encodeHead(head);
  write(`1-${name}-plain.bin`, plain);
  writeSealed(`1-${name}.bin`, { kind: "head", id: hasher.headName(head.uid), plain }, "zstd");
}

const stamp = encodeStamp(STAMP);
write("1-stamp-plain.bin", stamp);
writeSealed(
  "1-stamp.bin",
  { kind: "stamp", id: stampObjectId(STAMP.random), plain: stamp },
  "zstd",
);

write("1-key-file.txt", formatKeyFile(KEY_FILE_KEY));
write("1-keys-keyfile.json", (await sealKeys(KEYS, { type: "keyfile", key: KEY_FILE_KEY })).bytes);
write("1-keys-passphrase.json", (await sealKeys(KEYS, passphraseSecret(PASSPHRASE))).bytes);
