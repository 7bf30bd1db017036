// Keys of a repository: made once at `init`, kept sealed under access keys in `keys/` objects, never anywhere in the clear.
import {
  createCipheriv,
  createDecipheriv,
  randomBytes,
  scrypt,
  type ScryptOptions,
} from "node:crypto";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { FormatError, FormatFault } from "#proto/format-error.ts";
import {
  decodeKeyContent,
  decodeKeyObject,
  encodeKeyContent,
  encodeKeyObject,
  keyObjectAad,
  type AccessMethod,
  type KeyObject,
  type ScryptParameters,
} from "#proto/key-object.ts";
import { keyObjectName } from "#proto/object-names.ts";
import type { Compression } from "#proto/sealed-object.ts";
import { deriveKey } from "./derive-key.ts";

/** What hashing needs: all that a reader is given. */
export interface HashKeys {
  /** Of 32 bytes. Cannot be rotated: it gives every id. */
  readonly dedupKey: Uint8Array;
  readonly hash: "blake3" | "hmac-sha256";
}

/** All keys of a repository. It can be cloned into a worker. */
export interface RepositoryKeys extends HashKeys {
  /** Identity of the repository, 16 hex digits. */
  readonly repository: string;
  /** The repository key that wraps what is new. */
  readonly activeKeyId: string;
  /** Repository keys of 32 bytes by id (16 hex digits), the active one and the retired ones. */
  readonly repositoryKeys: ReadonlyMap<string, Uint8Array>;
  /** Used where the configuration says nothing. */
  readonly compression: Compression;
}

/** What a person has in hand: the content of a key file, or a passphrase. */
export type AccessSecret =
  | { readonly type: "keyfile"; readonly key: Buffer }
  | { readonly type: "passphrase"; readonly passphrase: string };

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const SHORT_ID_BYTES = 8;

// 64 MiB and about a third of a second: what an interactive command may cost, on a machine that also runs backups.
const SCRYPT_DEFAULT = { N: 65_536, r: 8, p: 2 };

/** Makes the keys of a new repository. */
export function createRepositoryKeys(options: {
  readonly hash: HashKeys["hash"];
  readonly compression: Compression;
}): RepositoryKeys {
  const activeKeyId = randomBytes(SHORT_ID_BYTES).toString("hex");
  return {
    repository: randomBytes(SHORT_ID_BYTES).toString("hex"),
    dedupKey: randomBytes(KEY_BYTES),
    hash: options.hash,
    activeKeyId,
    repositoryKeys: new Map([[activeKeyId, randomBytes(KEY_BYTES)]]),
    compression: options.compression,
  };
}

/** A passphrase as typed or read from a file: the line end goes, and equal-looking text is made equal (NFC). */
export function passphraseSecret(text: string): AccessSecret {
  const passphrase = text.replace(/\r?\n$/, "").normalize("NFC");
  if (passphrase === "") throw new AshlarError(ErrorCode.Usage, "the passphrase is empty");
  return { type: "passphrase", passphrase };
}

/**
 * Seals the repository's keys under an access key. A key file has one access id for ever, so that sealing again replaces
 * its object; a passphrase gets a random one, for its object must not tell whether two repositories share it.
 */
export async function sealKeys(
  keys: RepositoryKeys,
  secret: AccessSecret,
): Promise<{ readonly name: string; readonly bytes: Buffer }> {
  const method: AccessMethod =
    secret.type === "keyfile"
      ? { type: "keyfile" }
      : { type: "passphrase", kdf: { ...SCRYPT_DEFAULT, salt: randomBytes(KEY_BYTES) } };
  const accessId =
    secret.type === "keyfile"
      ? keyFileAccessId(secret.key)
      : randomBytes(SHORT_ID_BYTES).toString("hex");
  const outside = { repository: keys.repository, accessId, method };
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", await accessKey(secret, method), nonce);
  cipher.setAAD(keyObjectAad(outside));
  const content = encodeKeyContent({
    dedupKey: Buffer.from(keys.dedupKey),
    hash: keys.hash,
    repositoryKeys: [...keys.repositoryKeys].map(([id, key]) => ({
      id,
      key: Buffer.from(key),
      state: id === keys.activeKeyId ? "active" : "retired",
    })),
    compression: keys.compression,
  });
  const sealed = Buffer.concat([cipher.update(content), cipher.final(), cipher.getAuthTag()]);
  return { name: keyObjectName(accessId), bytes: encodeKeyObject({ ...outside, nonce, sealed }) };
}

/** A key object as found on a storage. */
export interface StoredKeyObject {
  /** Its name on the storage, for messages. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/**
 * Opens the repository's keys with what the user has, trying each key object that it may fit. Refused when it fits none,
 * before anything else is read or written; Damaged when the only one that might fit cannot be read.
 */
export async function openKeys(
  objects: readonly StoredKeyObject[],
  secret: AccessSecret,
): Promise<RepositoryKeys> {
  let unreadable: AshlarError | undefined;
  for (const { name, bytes } of objects) {
    let object: KeyObject;
    try {
      object = decodeKeyObject(bytes);
    } catch (error) {
      unreadable = keyObjectError(name, error);
      continue;
    }
    if (object.method.type !== secret.type) continue;
    if (secret.type === "keyfile" && object.accessId !== keyFileAccessId(secret.key)) continue;
    const keys = await tryOpen(name, object, secret);
    if (keys !== undefined) return keys;
  }
  throw unreadable ?? wrongKey(secret, objects.length);
}

/** Undefined when the access key does not fit (or the object was edited: the two cannot be told apart). */
async function tryOpen(
  name: string,
  object: KeyObject,
  secret: AccessSecret,
): Promise<RepositoryKeys | undefined> {
  if (object.sealed.length <= TAG_BYTES) return undefined;
  const decipher = createDecipheriv(
    "aes-256-gcm",
    await accessKey(secret, object.method),
    object.nonce,
  );
  decipher.setAAD(keyObjectAad(object));
  decipher.setAuthTag(object.sealed.subarray(-TAG_BYTES));
  let content: Buffer;
  try {
    content = Buffer.concat([
      decipher.update(object.sealed.subarray(0, -TAG_BYTES)),
      decipher.final(),
    ]);
  } catch {
    return undefined;
  }
  try {
    const { dedupKey, hash, repositoryKeys, compression } = decodeKeyContent(content);
    const active = repositoryKeys.find((key) => key.state === "active");
    assert(active !== undefined, "the codec lets one active repository key through");
    return {
      repository: object.repository,
      dedupKey,
      hash,
      activeKeyId: active.id,
      repositoryKeys: new Map(repositoryKeys.map((key) => [key.id, key.key])),
      compression,
    };
  } catch (error) {
    throw keyObjectError(name, error);
  }
}

function keyObjectError(name: string, error: unknown): AshlarError {
  if (!(error instanceof FormatError)) throw error;
  const code = error.fault === FormatFault.Newer ? ErrorCode.Refused : ErrorCode.Damaged;
  return new AshlarError(code, `key object ${name} ${error.message}`, {
    cause: error,
    remedy:
      code === ErrorCode.Refused
        ? "Use the newer Ashlar."
        : `Put ${name} back from another storage of the repository: every storage has the same one.`,
    details: { name },
  });
}

function wrongKey(secret: AccessSecret, objectCount: number): AshlarError {
  const [message, remedy] =
    secret.type === "keyfile"
      ? [
          "the key file is not one of this repository",
          "Use the key file that `ashlar init` made for it, or a copy.",
        ]
      : ["the passphrase is wrong", "Type it again; upper and lower case differ, spaces count."];
  return new AshlarError(ErrorCode.Refused, message, {
    remedy:
      objectCount === 0
        ? "The storage has no key objects in keys/: bring them back from another one."
        : remedy,
    details: { keyObjects: objectCount },
  });
}

function accessKey(secret: AccessSecret, method: AccessMethod): Buffer | Promise<Buffer> {
  if (secret.type === "keyfile") return deriveKey(secret.key, "ashlar access key 1");
  assert(method.type === "passphrase", "a passphrase opens a passphrase's object only");
  return scryptKey(secret.passphrase, method.kdf);
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
function keyFileAccessId(key: Buffer): string {
  return deriveKey(key, "ashlar access id 1", SHORT_ID_BYTES).toString("hex");
}
