// Content ids. Blocks, nodes and head names are hashed under different keys derived from the dedup key, so that no guest
// can write a block that passes for a node, and no name tells what it stands for.
import { createHmac, createSecretKey } from "node:crypto";
import { Blake3Hasher } from "@napi-rs/blake-hash";
import { deriveKey } from "./derive-key.ts";
import type { HashKeys } from "./keys.ts";

/** Keyed hashing for one repository. Synchronous; one per thread. */
export interface Hasher {
  /** Id of a block: 32 bytes. */
  hashBlock(plain: Uint8Array): Buffer;
  /** Id of an encoded node: 32 bytes. */
  hashNode(plain: Uint8Array): Buffer;
  /** What a version's heads are named by: 64 hex digits. */
  headName(uid: string): string;
}

/** Makes a hasher from the dedup key alone. */
export function createHasher(keys: HashKeys): Hasher {
  const hashBlock = keyedHash(keys, "ashlar block id 1");
  const hashNode = keyedHash(keys, "ashlar node id 1");
  const hashUid = keyedHash(keys, "ashlar head name 1");
  return {
    hashBlock,
    hashNode,
    headName: (uid) => hashUid(Buffer.from(uid, "utf8")).toString("hex"),
  };
}

function keyedHash(keys: HashKeys, info: string): (bytes: Uint8Array) => Buffer {
  const key = deriveKey(keys.dedupKey, info);
  if (keys.hash === "hmac-sha256") {
    const secret = createSecretKey(key);
    return (bytes) => createHmac("sha256", secret).update(bytes).digest();
  }
  // One native object for all blocks: making one per block costs as much as hashing 8 KiB.
  const hasher = Blake3Hasher.newKeyed(key);
  return (bytes) => {
    hasher.reset();
    return hasher.update(asBuffer(bytes)).digestBuffer();
  };
}

/** The same memory as a Buffer: native modules take nothing else. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
