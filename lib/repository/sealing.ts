// Sealing: plaintext to a self-contained encrypted object and back (docs/format.md, "Sealed objects"). Opening verifies
// everything there is to verify: an object that was swapped, cut or edited never opens.
import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  randomFillSync,
  type CipherGCM,
  type DecipherGCM,
} from "node:crypto";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { CompressionChoice } from "#lib/ports/compute.ts";
import {
  checksumOf,
  DATA_KEY_BYTES,
  decodeSealed,
  NONCE_BYTES,
  payloadAt,
  payloadNonceAt,
  PLAIN_BYTES_MAX,
  SEAL_OVERHEAD_BYTES_MAX,
  sealedBytes,
  sealedParts,
  TAIL_BYTES,
  writeHeader,
  type Compression,
  type SealedObject,
} from "#proto/sealed-object.ts";
import { requireCompression } from "./compression-choice.ts";
import { createCompressor, decompressInto, type Compressor } from "./compression.ts";
import { freeMemory } from "./free-memory.ts";
import { asBuffer, createHasher, type Hasher } from "./hashing.ts";
import { createKeyUnwrapper, createKeyWrapper, type KeyWrapper } from "./key-wrap.ts";
import { secretOf, type RepositoryKeys } from "./keys.ts";
import {
  checksum,
  damaged,
  formatDamage,
  nameOf,
  verifyChecksum,
  verifyObject,
  type ObjectIdentity,
} from "./sealed-check.ts";

/** Seals and opens objects of one repository. Synchronous; one per thread. */
export interface Sealer {
  /**
   * Writes the sealed object into `out` at `offset` and returns its length; Internal when it does not fit, Usage for a compression
   * that there is not.
   */
  sealInto(
    object: ObjectIdentity & {
      readonly plain: Uint8Array;
      readonly compression?: CompressionChoice;
    },
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
  /**
   * Verifies what can be verified without a private key: that the object is whole, says that it is the one asked for, and is
   * sealed under a repository key that there is. Damaged or Refused as opening is.
   */
  verify(object: ObjectIdentity & { readonly sealed: Uint8Array }): void;
  /** The plaintext in memory of its own. */
  open(object: ObjectIdentity & { readonly sealed: Uint8Array }): Buffer;
  /**
   * A whole object, with the same content, wrapped under the active repository key. Undefined for one that is so already, or whose
   * repository key is not at hand.
   */
  renew(sealed: Uint8Array): Buffer | undefined;
  /** Ids of the repository keys that new objects are not sealed under any more, as far as they are known here. */
  retiredKeys(): ReadonlySet<string>;
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

/** The longest a sealed object of that plaintext can be. */
export function sealedBytesMax(plainBytes: number): number {
  return SEAL_OVERHEAD_BYTES_MAX + plainBytes;
}

/** Makes a sealer. */
export function createSealer(keys: RepositoryKeys, options: SealOptions): Sealer {
  const compressors = createCompressors(options);
  const hasher = createHasher(keys);
  const wrapper = createKeyWrapper(keys);
  const unwrapper = createKeyUnwrapper(keys);
  const contentAt = payloadAt(wrapper.scheme);
  const randomness = createRandomness();

  const sealInto: Sealer["sealInto"] = (object, out, offset = 0) => {
    assert(
      object.plain.length > 0 && object.plain.length <= PLAIN_BYTES_MAX,
      "an object has 1 byte to 64 MiB",
    );
    const plain = asBuffer(object.plain);
    const room = asBuffer(out).subarray(offset);
    // Compressed into its place and encrypted there: no memory but the object's own.
    const area = room.subarray(contentAt, Math.max(contentAt, room.length - TAIL_BYTES));
    const compressor = compressors(object.compression);
    const compressedBytes = compressor.compressInto(plain, area);
    const storedBytes = compressedBytes ?? plain.length;
    const length = sealedBytes(wrapper.scheme, storedBytes);
    checkRoom(out, offset, length, object);
    const target = room.subarray(0, length);
    writeHeader(target, {
      kind: object.kind,
      id: object.id,
      compression: compressedBytes === undefined ? "none" : compressor.name,
      plainBytes: plain.length,
      storedBytes,
      keyId: wrapper.keyId,
      wrapScheme: wrapper.scheme,
    });
    encryptContent(
      object,
      wrapper,
      randomness(),
      compressedBytes === undefined ? plain : area.subarray(0, storedBytes),
      target,
    );
    return length;
  };
  const openParts = (object: ObjectIdentity, parts: SealedObject, target: Buffer): void => {
    openContent(object, parts, unwrapper.unwrap(object, parts), target);
    checkContent(object, hasher, target);
  };
  return {
    sealInto,
    seal(object) {
      const out = Buffer.allocUnsafeSlow(sealedBytes(wrapper.scheme, object.plain.length));
      return shortened(out, sealInto(object, out));
    },
    openInto(object, out, offset = 0) {
      const parts = verifyObject(object, asBuffer(object.sealed));
      const { plainBytes } = parts.header;
      checkRoom(out, offset, plainBytes, object);
      openParts(object, parts, asBuffer(out).subarray(offset, offset + plainBytes));
      return plainBytes;
    },
    verify(object) {
      unwrapper.requireKnown(object, verifyObject(object, asBuffer(object.sealed)));
    },
    open(object) {
      const parts = verifyObject(object, asBuffer(object.sealed));
      const out = Buffer.allocUnsafeSlow(parts.header.plainBytes);
      openParts(object, parts, out);
      return out;
    },
    ...afterRotations(keys),
  };
}

interface NamedCompressor extends Compressor {
  readonly name: Compression;
}

/** What compresses by a choice, or by none; each is made when it is first wanted, and kept, for it keeps state. */
function createCompressors({
  compression,
  level,
}: SealOptions): (choice?: CompressionChoice) => NamedCompressor {
  const usual = { name: compression, ...createCompressor(compression, level) };
  const chosen = new Map<string, NamedCompressor>();
  return (choice) => {
    if (choice === undefined) return usual;
    const wanted = `${choice.name}:${choice.level}`;
    let found = chosen.get(wanted);
    if (found === undefined) {
      const name = requireCompression(choice);
      found = { name, ...createCompressor(name, choice.level) };
      chosen.set(wanted, found);
    }
    return found;
  };
}

function afterRotations(keys: RepositoryKeys): Pick<Sealer, "renew" | "retiredKeys"> {
  const ids = [...keys.repositoryKeys.keys()];
  const retired = new Set(ids.filter((id) => id !== keys.activeKeyId));
  return { renew: createRenew(keys), retiredKeys: () => retired };
}

/** A copy where much was saved, so that a small object does not keep a large buffer alive. */
function shortened(out: Buffer, length: number): Buffer {
  return length < out.length ? Buffer.from(out.subarray(0, length)) : out;
}

/** See {@link Sealer.renew}; what it takes is made when it is wanted, which is after a rotation. */
function createRenew(keys: RepositoryKeys): Sealer["renew"] {
  let rewrapNow: ReturnType<typeof createRewrap> | undefined;
  return (sealed) => {
    const keyId = repositoryKeyOf(sealed);
    const key = keys.repositoryKeys.get(keyId);
    if (keyId === keys.activeKeyId || key === undefined) return undefined;
    if (secretOf(key) === undefined) return undefined;
    rewrapNow ??= createRewrap(keys);
    return rewrapNow(sealed);
  };
}

/** The id of the repository key that an object is sealed under. Damaged or Refused where its header cannot be read. */
export function repositoryKeyOf(sealed: Uint8Array): string {
  return decodeOrFail(asBuffer(sealed)).header.keyId;
}

/**
 * Gives objects a new wrap, under the active repository key, before the same payload, which is neither decrypted nor looked at.
 * Damaged for an object that is not whole, or whose wrap does not open; its content only {@link Sealer.open} verifies.
 */
export function createRewrap(keys: RepositoryKeys): (sealed: Uint8Array) => Buffer {
  const wrapper = createKeyWrapper(keys);
  const unwrapper = createKeyUnwrapper(keys);
  return (sealed) => {
    const from = asBuffer(sealed);
    // First: what is not understood then comes from a newer Ashlar, not from rot.
    verifyChecksum(from);
    const parts = decodeOrFail(from);
    const { header } = parts;
    const out = Buffer.allocUnsafeSlow(sealedBytes(wrapper.scheme, header.storedBytes));
    writeHeader(out, { ...header, keyId: wrapper.keyId, wrapScheme: wrapper.scheme });
    const target = sealedParts(out, wrapper.scheme, header.storedBytes);
    const dataKey = unwrapper.unwrap(header, parts);
    randomFillSync(target.wrapNonce);
    wrapper.wrap(header, dataKey, target);
    dataKey.fill(0);
    from.copy(out, payloadNonceAt(wrapper.scheme), payloadNonceAt(header.wrapScheme));
    checksumOf(out).set(checksum(out));
    return out;
  };
}

/** {@link createRewrap} for a single object. */
export function rewrap(sealed: Uint8Array, keys: RepositoryKeys): Buffer {
  return createRewrap(keys)(sealed);
}

function decodeOrFail(sealed: Buffer): SealedObject {
  try {
    return decodeSealed(sealed);
  } catch (error) {
    throw formatDamage("the object", error);
  }
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
  wrapper: KeyWrapper,
  secrets: Buffer,
  content: Buffer,
  target: Buffer,
): void {
  const parts = sealedParts(target, wrapper.scheme, content.length);
  const dataKey = secrets.subarray(0, DATA_KEY_BYTES);
  secrets.copy(parts.wrapNonce, 0, DATA_KEY_BYTES, DATA_KEY_BYTES + NONCE_BYTES);
  secrets.copy(parts.nonce, 0, DATA_KEY_BYTES + NONCE_BYTES);

  wrapper.wrap(object, dataKey, parts);
  const cipher = createCipheriv(CIPHER, createSecretKey(dataKey), parts.nonce);
  secrets.fill(0);
  cipher.setAAD(parts.immutable);
  runCipher(cipher, content, parts.ciphertext);
  parts.tag.set(cipher.getAuthTag());
  checksumOf(target).set(checksum(target));
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

function openContent(
  object: ObjectIdentity,
  parts: SealedObject,
  dataKey: Buffer,
  target: Buffer,
): void {
  const { compression } = parts.header;
  const decipher = createDecipheriv(CIPHER, createSecretKey(dataKey), parts.nonce);
  dataKey.fill(0);
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
