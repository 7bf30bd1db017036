// Makes the golden files of the current format: `node test/golden/make.ts`. What is there already is left alone: a golden
// file of a released format never changes. Sealed objects have random keys and nonces, so making one again gives others.
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatKeyFile } from "#lib/repository/key-file.ts";
import { createHasher } from "#lib/repository/hashing.ts";
import { passphraseSecret } from "#lib/repository/access-key.ts";
import { resealKeys, sealKeys } from "#lib/repository/key-objects.ts";
import type { RepositoryKeys } from "#lib/repository/keys.ts";
import { createSealer } from "#lib/repository/sealing.ts";
import { encodeHead } from "#proto/head.ts";
import { encodeNode } from "#proto/node.ts";
import { stampObjectId } from "#proto/object-names.ts";
import type { Compression, ObjectKind } from "#proto/sealed-object.ts";
import { encodeStamp } from "#proto/stamp.ts";
import { decodeKeyObject, encodeKeyObject } from "#proto/key-object.ts";
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
} from "./content.ts";

function write(name: string, bytes: Uint8Array | string): void {
  const path = join(import.meta.dirname, name);
  if (!existsSync(path)) writeFileSync(path, bytes);
}

function writeSealed(
  name: string,
  object: { readonly kind: ObjectKind; readonly id: string; readonly plain: Uint8Array },
  compression: Compression,
  keys = KEYS,
): void {
  write(name, createSealer(keys, { compression }).seal(object));
}

const hasher = createHasher(KEYS);

for (const [compression, plain] of Object.entries(BLOCKS) as [Compression, Buffer][]) {
  const id = hasher.hashBlock(plain).toString("hex");
  writeSealed(`1-block-${compression}.bin`, { kind: "block", id, plain }, compression);
  const name = `1-x25519-block-${compression}.bin`;
  writeSealed(name, { kind: "block", id, plain }, compression, X25519_KEYS);
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
const keyFile = { type: "keyfile", key: KEY_FILE_KEY } as const;
const passphrase = passphraseSecret(PASSPHRASE);

// As the first releases wrote them: without facts.
for (const [name, secret] of [
  ["keyfile", keyFile],
  ["passphrase", passphrase],
] as const) {
  const { bytes } = await sealKeys(KEYS, secret, ACCESS_PLAN);
  write(`1-keys-${name}.json`, encodeKeyObject({ ...decodeKeyObject(bytes), facts: undefined }));
}

// With facts; with an X25519 repository key; write-only; and sealed to a public key.
async function writeKeys(name: string, keys: RepositoryKeys, isWriter = false): Promise<void> {
  const capability = isWriter ? "write-only" : "full";
  for (const secret of [keyFile, passphrase]) {
    const { bytes } = await sealKeys(keys, secret, { ...ACCESS_PLAN, capability });
    write(`1-keys-${name}-${secret.type}.json`, bytes);
    write(`2-keys-${name}-${secret.type}.json`, resealKeys(keys, decodeKeyObject(bytes)).bytes);
  }
}
await writeKeys("facts", KEYS);
await writeKeys("x25519", X25519_KEYS);
await writeKeys("writer", X25519_KEYS, true);
