// X25519 (RFC 7748) with keys as 32 raw bytes, and the agreed secret through HKDF. Worker threads load this, so it is small.
import { createPrivateKey, createPublicKey, diffieHellman, generateKeyPairSync } from "node:crypto";
import { assert } from "#lib/core/assert.ts";
import { deriveKey } from "./derive-key.ts";

/** Bytes of a public and of a private key. */
export const X25519_KEY_BYTES = 32;

// RFC 8410: the DER forms end with the raw key.
const PRIVATE_PREFIX = Buffer.from("302e020100300506032b656e04220420", "hex");
const PUBLIC_PREFIX = Buffer.from("302a300506032b656e032100", "hex");

/** A pair of raw keys. */
export interface X25519Pair {
  readonly publicKey: Buffer;
  readonly privateKey: Buffer;
}

/** Makes a new pair. */
export function createX25519Pair(): X25519Pair {
  const { privateKey, publicKey } = generateKeyPairSync("x25519");
  return {
    publicKey: publicKey.export({ format: "der", type: "spki" }).subarray(PUBLIC_PREFIX.length),
    privateKey: privateKey.export({ format: "der", type: "pkcs8" }).subarray(PRIVATE_PREFIX.length),
  };
}

/** The public key of a private one; any 32 bytes are one. */
export function x25519PublicKey(privateKey: Uint8Array): Buffer {
  const whole = createPublicKey(importPrivate(privateKey)).export({ format: "der", type: "spki" });
  return whole.subarray(PUBLIC_PREFIX.length);
}

/**
 * What both sides compute. Undefined where the public key is one of the few that give zeros whatever the private key is:
 * nobody makes those but an attacker (RFC 7748, 6.1).
 */
export function x25519(privateKey: Uint8Array, publicKey: Uint8Array): Buffer | undefined {
  const ours = importPrivate(privateKey);
  const theirs = importPublic(publicKey);
  let shared: Buffer;
  try {
    shared = diffieHellman({ privateKey: ours, publicKey: theirs });
  } catch {
    // OpenSSL refuses zeros itself, and there is nothing else that could fail with two whole keys.
    return undefined;
  }
  return shared.every((byte) => byte === 0) ? undefined : shared;
}

/** A pair for one message, whose private half nobody keeps, and the key that is agreed with `recipient` through it. */
export function agreeWith(
  recipient: Uint8Array,
  info: string,
): { readonly ephemeral: Buffer; readonly key: Buffer } {
  const { publicKey: ephemeral, privateKey } = createX25519Pair();
  const shared = x25519(privateKey, recipient);
  privateKey.fill(0);
  assert(shared !== undefined, "the public key of an access key or repository key is a sound one");
  return { ephemeral, key: agreedKey(shared, info, ephemeral, recipient) };
}

/** The same key for who has the recipient's private key; undefined for an ephemeral key that is none. */
export function agreeFrom(
  ephemeral: Uint8Array,
  recipient: { readonly publicKey: Uint8Array; readonly privateKey: Uint8Array },
  info: string,
): Buffer | undefined {
  const shared = x25519(recipient.privateKey, ephemeral);
  return shared && agreedKey(shared, info, ephemeral, recipient.publicKey);
}

/** HKDF over the shared secret; both public keys are part of `info`, so that a key belongs to one message and one recipient. */
function agreedKey(
  shared: Buffer,
  info: string,
  ephemeral: Uint8Array,
  recipient: Uint8Array,
): Buffer {
  const key = deriveKey(shared, Buffer.concat([Buffer.from(info, "latin1"), ephemeral, recipient]));
  shared.fill(0);
  return key;
}

function importPrivate(raw: Uint8Array): ReturnType<typeof createPrivateKey> {
  assert(raw.length === X25519_KEY_BYTES, "an X25519 key has 32 bytes");
  const der = Buffer.concat([PRIVATE_PREFIX, raw]);
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  der.fill(0);
  return key;
}

function importPublic(raw: Uint8Array): ReturnType<typeof createPublicKey> {
  assert(raw.length === X25519_KEY_BYTES, "an X25519 key has 32 bytes");
  return createPublicKey({
    key: Buffer.concat([PUBLIC_PREFIX, raw]),
    format: "der",
    type: "spki",
  });
}
