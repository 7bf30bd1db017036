// Access keys: what people and hosts hold. From a key file or a passphrase come the key that opens a key object, and an X25519
// pair, by whose public half the repository's keys can be sealed to an access key without having it.
import { scrypt, type ScryptOptions } from "node:crypto";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { AccessMethod, ScryptParameters } from "#proto/key-object.ts";
import { deriveKey } from "./derive-key.ts";
import { x25519PublicKey, type X25519Pair } from "./x25519.ts";

/** What a person has in hand: the content of a key file, or a passphrase. */
export type AccessSecret =
  | { readonly type: "keyfile"; readonly key: Buffer }
  | { readonly type: "passphrase"; readonly passphrase: string };

/** What is derived from an access secret for one key object. */
export interface AccessKeys {
  /** Seals and opens key objects of the access key's own making. */
  readonly key: Buffer;
  /** Opens those that somebody else has sealed to it. */
  readonly pair: X25519Pair;
}

const KEY_BYTES = 32;
const ACCESS_ID_BYTES = 8;
const PAIR_INFO = "ashlar access x25519 1";

/** A passphrase as typed or read from a file: the line end goes, and equal-looking text is made equal (NFC). */
export function passphraseSecret(text: string): AccessSecret {
  const passphrase = text.replace(/\r?\n$/, "").normalize("NFC");
  if (passphrase === "") throw new AshlarError(ErrorCode.Usage, "the passphrase is empty");
  return { type: "passphrase", passphrase };
}

/** Derives the keys of a secret. With a passphrase it takes a third of a second, and the object's parameters. */
export async function accessKeys(secret: AccessSecret, method: AccessMethod): Promise<AccessKeys> {
  if (secret.type === "keyfile") {
    return { key: deriveKey(secret.key, "ashlar access key 1"), pair: pairFrom(secret.key) };
  }
  assert(method.type === "passphrase", "a passphrase opens a passphrase's object only");
  const key = await scryptKey(secret.passphrase, method.kdf);
  return { key, pair: pairFrom(key) };
}

function pairFrom(key: Uint8Array): X25519Pair {
  const privateKey = deriveKey(key, PAIR_INFO);
  return { privateKey, publicKey: x25519PublicKey(privateKey) };
}

function scryptKey(passphrase: string, kdf: ScryptParameters): Promise<Buffer> {
  // Twice what the algorithm needs: OpenSSL refuses at its estimate, which is a little above 128·N·r.
  const options: ScryptOptions = { N: kdf.N, r: kdf.r, p: kdf.p, maxmem: 256 * kdf.N * kdf.r };
  return new Promise((resolve, reject) => {
    scrypt(Buffer.from(passphrase, "utf8"), kdf.salt, KEY_BYTES, options, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}

/** Names the key object of a key file, and tells a wrong key file from a damaged object. Reveals nothing of the key. */
export function keyFileAccessId(key: Buffer): string {
  return deriveKey(key, "ashlar access id 1", ACCESS_ID_BYTES).toString("hex");
}
