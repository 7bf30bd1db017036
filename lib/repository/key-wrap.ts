// Wrapping: the data key of an object under a repository key (docs/format.md, "Sealed objects"). Each object has a data key of
// its own, so that an object can be wrapped under another repository key without touching its content.
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from "node:crypto";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import {
  ID_BYTES,
  KEY_ID_BYTES,
  ObjectKind,
  type SealedObject,
  type WrapScheme,
} from "#proto/sealed-object.ts";
import { asBuffer } from "./hashing.ts";
import type { RepositoryKey, RepositoryKeys } from "./keys.ts";
import { damaged, nameOf, type ObjectIdentity } from "./sealed-check.ts";
import { agreeFrom, agreeWith } from "./x25519.ts";

/** The parts of an object that its wrap is in. */
export type WrapParts = Pick<SealedObject, "ephemeral" | "wrapNonce" | "wrappedKey" | "wrapTag">;

/** Wraps data keys under the active repository key. */
export interface KeyWrapper {
  readonly scheme: WrapScheme;
  readonly keyId: string;
  /** Fills in the wrap; its nonce is there already. */
  wrap(object: ObjectIdentity, dataKey: Uint8Array, parts: WrapParts): void;
}

/** Gets data keys out of their wraps, under any of the repository keys. */
export interface KeyUnwrapper {
  /**
   * The data key, which the caller overwrites after use. Damaged, with `details.check`: `key` for a repository key that is not
   * among these, `wrap` for an edited or foreign one. Refused where only the public half of the repository key is there.
   */
  unwrap(object: ObjectIdentity, sealed: SealedObject): Buffer;
  /** Damaged, as {@link unwrap}, for a repository key that is not among these, or is of another kind. */
  requireKnown(object: ObjectIdentity, sealed: SealedObject): void;
}

const CIPHER = "aes-256-gcm";
const WRAP_DOMAIN = Buffer.from("ashlar data key 1\0", "latin1");
const AGREEMENT_INFO = "ashlar x25519 wrap 1";

/** So many objects share an agreed key: making one takes 0.1 ms, as long as sealing a small block. */
export const OBJECTS_PER_EPHEMERAL = 4096;
/** So many agreed keys are remembered: those of 16 TiB in blocks of 4 MiB. */
export const AGREED_KEYS_MAX = 1024;

/** Makes a wrapper for the active repository key. */
export function createKeyWrapper(keys: RepositoryKeys): KeyWrapper {
  const keyId = keys.activeKeyId;
  const active = keys.repositoryKeys.get(keyId);
  assert(active !== undefined, "the active repository key is among the repository's keys");
  if (active.scheme === "aes") {
    assert(active.key !== undefined, "the codec lets no active key through that is not there");
    // A key object, for the cipher takes five times as long to set up with raw bytes.
    const key = createSecretKey(active.key);
    return {
      scheme: "aes",
      keyId,
      wrap: (object, dataKey, parts) => encryptKey(object, keyId, key, dataKey, parts),
    };
  }
  const { publicKey } = active;
  let agreed: { readonly ephemeral: Buffer; readonly key: KeyObject } | undefined;
  let objects = 0;
  return {
    scheme: "x25519",
    keyId,
    wrap(object, dataKey, parts) {
      if (agreed === undefined || objects === OBJECTS_PER_EPHEMERAL) {
        const { ephemeral, key } = agreeWith(publicKey, AGREEMENT_INFO);
        agreed = { ephemeral, key: createSecretKey(key) };
        key.fill(0);
        objects = 0;
      }
      objects += 1;
      parts.ephemeral.set(agreed.ephemeral);
      encryptKey(object, keyId, agreed.key, dataKey, parts);
    },
  };
}

/** Makes an unwrapper for all repository keys. */
export function createKeyUnwrapper(keys: RepositoryKeys): KeyUnwrapper {
  const symmetric = new Map<string, KeyObject>();
  for (const [id, key] of keys.repositoryKeys) {
    if (key.scheme === "aes" && key.key !== undefined) symmetric.set(id, createSecretKey(key.key));
  }
  const agreed = new AgreedKeys();
  const known = (object: ObjectIdentity, sealed: SealedObject): RepositoryKey => {
    const { keyId, wrapScheme } = sealed.header;
    const key = keys.repositoryKeys.get(keyId);
    if (key === undefined) {
      throw damaged(
        nameOf(object),
        "key",
        `is sealed under a key that this repository does not have (${keyId})`,
      );
    }
    if (key.scheme !== wrapScheme) throw wrongWrap(object);
    return key;
  };
  const keyFor = (object: ObjectIdentity, sealed: SealedObject): KeyObject => {
    const key = known(object, sealed);
    const { keyId } = sealed.header;
    if (key.scheme === "aes") return symmetric.get(keyId) ?? refuse(object);
    const { privateKey, publicKey } = key;
    if (privateKey === undefined) return refuse(object);
    return agreed.get(keyId, sealed.ephemeral, () => {
      const found = agreeFrom(sealed.ephemeral, { privateKey, publicKey }, AGREEMENT_INFO);
      if (found === undefined) throw wrongWrap(object);
      return found;
    });
  };
  return {
    unwrap: (object, sealed) => decryptKey(object, keyFor(object, sealed), sealed),
    requireKnown: (object, sealed) => void known(object, sealed),
  };
}

/** What is said where something needs the private key. */
export function refusedToWriters(what: string): AshlarError {
  return new AshlarError(
    ErrorCode.Refused,
    `${what}: the access key in use is write-only, and cannot open what is stored`,
    {
      remedy:
        "do it on a host with a full access key; `ashlar key ls` shows what each key is good for",
      details: { check: "write-only" },
    },
  );
}

/** What a writer that cannot open what is stored tells a reader: to ask again, for another writer may take it then. */
export function passedOn(): AshlarError {
  return new AshlarError(
    ErrorCode.TryAgain,
    "a writer with a write-only access key gives nothing back",
    {
      remedy: "start a writer with a full access key",
      details: { check: "write-only" },
    },
  );
}

function refuse(object: ObjectIdentity): never {
  throw refusedToWriters(`${nameOf(object)} was not opened`);
}

/** The agreed keys that were used last. A lookup costs less than a tenth of an agreement. */
class AgreedKeys {
  readonly #keys = new Map<string, KeyObject>();

  get(keyId: string, ephemeral: Uint8Array, agree: () => Buffer): KeyObject {
    const at = keyId + asBuffer(ephemeral).toString("latin1");
    let key = this.#keys.get(at);
    if (key === undefined) {
      const bytes = agree();
      key = createSecretKey(bytes);
      bytes.fill(0);
      const [oldest] = this.#keys.keys();
      if (this.#keys.size >= AGREED_KEYS_MAX && oldest !== undefined) this.#keys.delete(oldest);
    } else {
      this.#keys.delete(at);
    }
    // A map keeps the order in which entries came: the last used is the last.
    this.#keys.set(at, key);
    return key;
  }
}

function encryptKey(
  object: ObjectIdentity,
  keyId: string,
  key: KeyObject,
  dataKey: Uint8Array,
  parts: WrapParts,
): void {
  const cipher = createCipheriv(CIPHER, key, parts.wrapNonce);
  cipher.setAAD(wrapAad(object, keyId));
  parts.wrappedKey.set(cipher.update(dataKey));
  cipher.final();
  parts.wrapTag.set(cipher.getAuthTag());
}

function decryptKey(object: ObjectIdentity, key: KeyObject, sealed: SealedObject): Buffer {
  const decipher = createDecipheriv(CIPHER, key, sealed.wrapNonce);
  decipher.setAAD(wrapAad(object, sealed.header.keyId));
  decipher.setAuthTag(sealed.wrapTag);
  const dataKey = decipher.update(sealed.wrappedKey);
  try {
    decipher.final();
    return dataKey;
  } catch (cause) {
    dataKey.fill(0);
    throw wrongWrap(object, cause);
  }
}

function wrongWrap(object: ObjectIdentity, cause?: unknown): AshlarError {
  return damaged(
    nameOf(object),
    "wrap",
    "has a data key that was edited or belongs to another object",
    cause,
  );
}

function wrapAad(object: ObjectIdentity, keyId: string): Buffer {
  const aad = Buffer.allocUnsafe(WRAP_DOMAIN.length + 1 + ID_BYTES + KEY_ID_BYTES);
  WRAP_DOMAIN.copy(aad);
  aad[WRAP_DOMAIN.length] = ObjectKind[object.kind];
  aad.write(object.id, WRAP_DOMAIN.length + 1, ID_BYTES, "hex");
  aad.write(keyId, WRAP_DOMAIN.length + 1 + ID_BYTES, KEY_ID_BYTES, "hex");
  return aad;
}
