// Sealing: plaintext to a self-contained encrypted object and back (docs/format.md, "Sealed objects"). Opening verifies
// everything there is to verify: an object that was swapped, cut or edited never opens.
import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  randomFillSync,
  type CipherGCM,
  type DecipherGCM,
  type KeyObject,
} from "node:crypto";
import { Blake3Hasher } from "@napi-rs/blake-hash";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { FormatError, FormatFault } from "#proto/format-error.ts";
import {
  CHECKSUM_BYTES,
  checkFrame,
  checksummed,
  checksumOf,
  DATA_KEY_BYTES,
  decodeSealed,
  ID_BYTES,
  KEY_ID_BYTES,
  NONCE_BYTES,
  ObjectKind,
  PAYLOAD_AT,
  PLAIN_BYTES_MAX,
  SEAL_OVERHEAD_BYTES,
  sealedBytes,
  sealedParts,
  TAIL_BYTES,
  writeHeader,
  type Compression,
  type SealedObject,
} from "#proto/sealed-object.ts";
import { createCompressor, decompressInto } from "./compression.ts";
import { freeMemory } from "./free-memory.ts";
import { asBuffer, createHasher, type Hasher } from "./hashing.ts";
import type { RepositoryKeys } from "./keys.ts";

/** Which check an object failed. `details.check` of the Damaged error. */
export type SealCheck =
  | "magic"
  | "truncated"
  | "checksum"
  | "header"
  | "kind"
  | "id"
  | "key"
  | "wrap"
  | "tag"
  | "compression"
  | "content";

/** What names an object: its kind and its id (32 bytes, as hex). */
export interface ObjectIdentity {
  readonly kind: ObjectKind;
  readonly id: string;
}

/** Seals and opens objects of one repository. Synchronous; one per thread. */
export interface Sealer {
  /** Writes the sealed object into `out` at `offset` and returns its length; Internal when it does not fit. */
  sealInto(
    object: ObjectIdentity & { readonly plain: Uint8Array },
    out: Uint8Array,
    offset?: number,
  ): number;
  /** The sealed object in memory of its own. */
  seal(object: ObjectIdentity & { readonly plain: Uint8Array }): Buffer;
  /**
   * Writes the plaintext into `out` at `offset` and returns its length; Internal when it does not fit. Damaged, with
   * `details.check`, when it is not the object asked for or not whole; Refused when a newer Ashlar wrote it. After an
   * error the memory that `out` has room in may hold anything.
   */
  openInto(
    object: ObjectIdentity & { readonly sealed: Uint8Array },
    out: Uint8Array,
    offset?: number,
  ): number;
  /** The plaintext in memory of its own. */
  open(object: ObjectIdentity & { readonly sealed: Uint8Array }): Buffer;
}

/** How objects are sealed. */
export interface SealOptions {
  readonly compression: Compression;
  /** zstd's level. */
  readonly level?: number;
}

// The cipher gives out its output in new memory. Slices keep it small enough for the processor's cache.
const SLICE_BYTES = 256 * 1024;
const CIPHER = "aes-256-gcm";
const WRAP_DOMAIN = Buffer.from("ashlar data key 1\0", "latin1");

/** The longest a sealed object of that plaintext can be. */
export function sealedBytesMax(plainBytes: number): number {
  return SEAL_OVERHEAD_BYTES + plainBytes;
}

/** Makes a sealer. */
export function createSealer(keys: RepositoryKeys, options: SealOptions): Sealer {
  const compressor = createCompressor(options.compression, options.level);
  const hasher = createHasher(keys);
  // Key objects, for the cipher takes five times as long to set up with raw bytes.
  const wrapKeys = new Map([...keys.repositoryKeys].map(([id, key]) => [id, createSecretKey(key)]));
  const activeKey = wrapKeys.get(keys.activeKeyId);
  assert(activeKey !== undefined, "the active repository key is among the repository's keys");
  const wrap = { keyId: keys.activeKeyId, key: activeKey };
  const randomness = createRandomness();

  const sealInto: Sealer["sealInto"] = (object, out, offset = 0) => {
    assert(
      object.plain.length > 0 && object.plain.length <= PLAIN_BYTES_MAX,
      "an object has 1 byte to 64 MiB",
    );
    const plain = asBuffer(object.plain);
    const room = asBuffer(out).subarray(offset);
    // Compressed into its place and encrypted there: no memory but the object's own.
    const area = room.subarray(PAYLOAD_AT, Math.max(PAYLOAD_AT, room.length - TAIL_BYTES));
    const compressedBytes = compressor.compressInto(plain, area);
    const storedBytes = compressedBytes ?? plain.length;
    const length = sealedBytes(storedBytes);
    checkRoom(out, offset, length, object);
    const target = room.subarray(0, length);
    writeHeader(target, {
      kind: object.kind,
      id: object.id,
      compression: compressedBytes === undefined ? "none" : options.compression,
      plainBytes: plain.length,
      storedBytes,
      keyId: wrap.keyId,
    });
    encryptContent(
      object,
      wrap,
      randomness(),
      compressedBytes === undefined ? plain : area.subarray(0, storedBytes),
      target,
    );
    return length;
  };
  const openParts = (object: ObjectIdentity, parts: SealedObject, target: Buffer): void => {
    openContent(object, parts, unwrapKey(object, parts, wrapKeys), target);
    checkContent(object, hasher, target);
  };
  return {
    sealInto,
    seal(object) {
      const out = Buffer.allocUnsafeSlow(sealedBytesMax(object.plain.length));
      const length = sealInto(object, out);
      // A copy where much was saved, so that a small object does not keep a large buffer alive.
      return length < out.length ? Buffer.from(out.subarray(0, length)) : out;
    },
    openInto(object, out, offset = 0) {
      const parts = verifyObject(object, asBuffer(object.sealed));
      const { plainBytes } = parts.header;
      checkRoom(out, offset, plainBytes, object);
      openParts(object, parts, asBuffer(out).subarray(offset, offset + plainBytes));
      return plainBytes;
    },
    open(object) {
      const parts = verifyObject(object, asBuffer(object.sealed));
      const out = Buffer.allocUnsafeSlow(parts.header.plainBytes);
      openParts(object, parts, out);
      return out;
    },
  };
}

/**
 * Checks that an object is whole, which needs no key. Damaged (with `details.check`) when it is not. That it is the right
 * object, and was not edited by someone who can compute a checksum, only opening tells.
 */
export function verifyChecksum(sealed: Uint8Array, what = "the object"): void {
  const bytes = asBuffer(sealed);
  try {
    checkFrame(bytes);
  } catch (error) {
    throw formatDamage(what, error);
  }
  if (checksum(bytes).equals(checksumOf(bytes))) return;
  throw damaged(what, ...lengthDamage(bytes));
}

/** A checksum never fits an object that was cut; a cut is worth telling apart from rot. */
function lengthDamage(bytes: Buffer): [SealCheck, string] {
  try {
    decodeSealed(bytes);
  } catch (error) {
    if (error instanceof FormatError && error.fault === FormatFault.Truncated)
      return ["truncated", error.message];
  }
  return ["checksum", "does not fit its checksum: it was damaged after it was written"];
}

const checksumHasher = new Blake3Hasher();

/** BLAKE3, unkeyed, the first 16 bytes. */
function checksum(bytes: Buffer): Buffer {
  checksumHasher.reset();
  return checksumHasher.update(checksummed(bytes)).digestBuffer().subarray(0, CHECKSUM_BYTES);
}

/** Fresh random bytes for one object: data key, wrap nonce, payload nonce. Whoever takes them overwrites them after use. */
type Randomness = () => Buffer;

const RANDOM_BYTES = DATA_KEY_BYTES + NONCE_BYTES * 2;
// A call of the generator costs as much as hashing 64 KiB, whatever it gives: so it gives for many objects.
const RANDOM_BATCH = 64;

function createRandomness(): Randomness {
  const batch = Buffer.allocUnsafeSlow(RANDOM_BYTES * RANDOM_BATCH);
  let used = batch.length;
  return () => {
    if (used === batch.length) {
      randomFillSync(batch);
      used = 0;
    }
    used += RANDOM_BYTES;
    return batch.subarray(used - RANDOM_BYTES, used);
  };
}

/** Wraps a fresh data key and encrypts under it; `target` has its header already. */
function encryptContent(
  object: ObjectIdentity,
  wrap: { readonly keyId: string; readonly key: KeyObject },
  secrets: Buffer,
  content: Buffer,
  target: Buffer,
): void {
  const parts = sealedParts(target, content.length);
  const dataKey = secrets.subarray(0, DATA_KEY_BYTES);
  secrets.copy(parts.wrapNonce, 0, DATA_KEY_BYTES, DATA_KEY_BYTES + NONCE_BYTES);
  secrets.copy(parts.nonce, 0, DATA_KEY_BYTES + NONCE_BYTES);

  const wrapper = createCipheriv(CIPHER, wrap.key, parts.wrapNonce);
  wrapper.setAAD(wrapAad(object, wrap.keyId));
  parts.wrappedKey.set(wrapper.update(dataKey));
  wrapper.final();
  parts.wrapTag.set(wrapper.getAuthTag());

  const cipher = createCipheriv(CIPHER, createSecretKey(dataKey), parts.nonce);
  secrets.fill(0);
  cipher.setAAD(parts.immutable);
  runCipher(cipher, content, parts.ciphertext);
  parts.tag.set(cipher.getAuthTag());
  checksumOf(target).set(checksum(target));
}

function wrapAad(object: ObjectIdentity, keyId: string): Buffer {
  const aad = Buffer.allocUnsafe(WRAP_DOMAIN.length + 1 + ID_BYTES + KEY_ID_BYTES);
  WRAP_DOMAIN.copy(aad);
  aad[WRAP_DOMAIN.length] = ObjectKind[object.kind];
  aad.write(object.id, WRAP_DOMAIN.length + 1, ID_BYTES, "hex");
  aad.write(keyId, WRAP_DOMAIN.length + 1 + ID_BYTES, KEY_ID_BYTES, "hex");
  return aad;
}

/** Runs all of `from` through the cipher into `to`, of the same length (or the same memory), and finishes it. */
function runCipher(cipher: CipherGCM | DecipherGCM, from: Uint8Array, to: Uint8Array): void {
  for (let at = 0; at < from.length; at += SLICE_BYTES) {
    const slice = cipher.update(from.subarray(at, at + SLICE_BYTES));
    to.set(slice, at);
    freeMemory(slice);
  }
  cipher.final();
}

/** Checksum, header, and that it is the object that was asked for. */
function verifyObject(object: ObjectIdentity, sealed: Buffer): SealedObject {
  const what = nameOf(object);
  verifyChecksum(sealed, what);
  let parts: SealedObject;
  try {
    parts = decodeSealed(sealed);
  } catch (error) {
    throw formatDamage(what, error);
  }
  const { kind, id } = parts.header;
  if (kind !== object.kind) throw damaged(what, "kind", `is a ${kind} in its place`);
  if (id !== object.id) throw damaged(what, "id", `is another object in its place (${id})`);
  return parts;
}

function unwrapKey(
  object: ObjectIdentity,
  parts: SealedObject,
  keys: ReadonlyMap<string, KeyObject>,
): KeyObject {
  const { keyId } = parts.header;
  const key = keys.get(keyId);
  if (key === undefined) {
    throw damaged(
      nameOf(object),
      "key",
      `is sealed under a key that this repository does not have (${keyId})`,
    );
  }
  const decipher = createDecipheriv(CIPHER, key, parts.wrapNonce);
  decipher.setAAD(wrapAad(object, keyId));
  decipher.setAuthTag(parts.wrapTag);
  const dataKey = decipher.update(parts.wrappedKey);
  try {
    decipher.final();
    return createSecretKey(dataKey);
  } catch (cause) {
    throw damaged(
      nameOf(object),
      "wrap",
      "has a data key that was edited or belongs to another object",
      cause,
    );
  } finally {
    dataKey.fill(0);
  }
}

function openContent(
  object: ObjectIdentity,
  parts: SealedObject,
  dataKey: KeyObject,
  target: Buffer,
): void {
  const { compression } = parts.header;
  const decipher = createDecipheriv(CIPHER, dataKey, parts.nonce);
  decipher.setAAD(parts.immutable);
  decipher.setAuthTag(parts.tag);
  const content = compression === "none" ? target : Buffer.allocUnsafeSlow(parts.ciphertext.length);
  try {
    runCipher(decipher, parts.ciphertext, content);
  } catch (cause) {
    throw damaged(nameOf(object), "tag", "was edited: its authentication tag does not fit", cause);
  }
  if (compression === "none") return;
  try {
    decompressInto(compression, content, target);
  } catch (cause) {
    throw damaged(nameOf(object), "compression", `cannot be decompressed (${compression})`, cause);
  } finally {
    freeMemory(content);
  }
}

/** Blocks and nodes are named by what they contain; heads and stamps are checked by who reads them. */
function checkContent(object: ObjectIdentity, hasher: Hasher, plain: Buffer): void {
  if (object.kind !== "block" && object.kind !== "node") return;
  const id = object.kind === "block" ? hasher.hashBlock(plain) : hasher.hashNode(plain);
  if (id.toString("hex") === object.id) return;
  throw damaged(nameOf(object), "content", "was sealed with a content that does not fit its id");
}

/** Whoever gives the memory knows the sizes, so this is a defect of Ashlar and never the object's fault. */
function checkRoom(out: Uint8Array, offset: number, length: number, object: ObjectIdentity): void {
  if (offset + length <= out.length) return;
  throw new AshlarError(
    ErrorCode.Internal,
    `${nameOf(object)} needs ${length} bytes, but only ${out.length - offset} are free`,
  );
}

function nameOf(object: ObjectIdentity): string {
  return `${object.kind} ${object.id}`;
}

function formatDamage(what: string, error: unknown): AshlarError {
  if (!(error instanceof FormatError)) throw error;
  switch (error.fault) {
    case FormatFault.Newer:
      return new AshlarError(ErrorCode.Refused, `${what} ${error.message}`, {
        cause: error,
        remedy: "Use the newer Ashlar.",
      });
    case FormatFault.Truncated:
      return damaged(what, "truncated", error.message, error);
    case FormatFault.Foreign:
      return damaged(what, "magic", error.message, error);
    case FormatFault.Malformed:
      return damaged(what, "header", error.message, error);
  }
}

function damaged(what: string, check: SealCheck, message: string, cause?: unknown): AshlarError {
  return new AshlarError(ErrorCode.Damaged, `${what} ${message}`, { cause, details: { check } });
}
