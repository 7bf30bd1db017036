// The byte layout of a sealed object (docs/format.md, "Sealed objects"). Layout only: keys and ciphers are elsewhere.
import { FormatError, FormatFault, malformed, writtenByNewer } from "./format-error.ts";

/** What an object holds. */
export const ObjectKind = { block: 1, node: 2, head: 3, stamp: 4 } as const;
export type ObjectKind = keyof typeof ObjectKind;

/** How the plaintext was compressed before it was encrypted. */
export const Compression = { none: 0, zstd: 1, lz4: 2 } as const;
export type Compression = keyof typeof Compression;

/** 1: AES-256-GCM. The only one so far. */
export const CIPHER_AES_256_GCM = 1;
/**
 * How the data key is wrapped: by AES-256-GCM under a symmetric repository key, or under a key that is agreed with the public
 * half of an X25519 repository key. They differ in length, so the length stands beside it.
 */
export const WrapScheme = { aes: 1, x25519: 2 } as const;
export type WrapScheme = keyof typeof WrapScheme;

export const ID_BYTES = 32;
export const KEY_ID_BYTES = 8;
export const DATA_KEY_BYTES = 32;
export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;
export const CHECKSUM_BYTES = 16;
/** An X25519 public key. */
export const EPHEMERAL_BYTES = 32;
/** Wrap nonce, wrapped data key, wrap tag; with X25519 the ephemeral public key before them. */
const WRAP_BYTES: Readonly<Record<WrapScheme, number>> = {
  aes: NONCE_BYTES + DATA_KEY_BYTES + TAG_BYTES,
  x25519: EPHEMERAL_BYTES + NONCE_BYTES + DATA_KEY_BYTES + TAG_BYTES,
};

/** A block has at most 16 MiB; the rest is room for heads. What claims more is refused before anything is allocated. */
export const PLAIN_BYTES_MAX = 64 * 1024 * 1024;

// Offsets. Everything before KEY_ID never changes in an object's life and is the payload's associated data; what follows
// up to the payload nonce is replaced when the object is wrapped under another repository key.
const MAGIC = Buffer.from("ASHLAR\0\u0001", "latin1");
const KIND_AT = 8;
const COMPRESSION_AT = 9;
const CIPHER_AT = 10;
const RESERVED_AT = 11;
const FEATURES_AT = 12;
const ID_AT = 16;
const PLAIN_BYTES_AT = 48;
const STORED_BYTES_AT = 52;
/** Length of the immutable header: the associated data of the payload. */
export const IMMUTABLE_BYTES = 56;
const KEY_ID_AT = IMMUTABLE_BYTES;
const WRAP_SCHEME_AT = 64;
const WRAP_RESERVED_AT = 65;
const WRAP_LENGTH_AT = 66;
const WRAP_AT = 68;
/** What follows the ciphertext: tag and checksum. */
export const TAIL_BYTES = TAG_BYTES + CHECKSUM_BYTES;

/** Where the payload's nonce is: behind the wrap. What follows stays as it is when an object is wrapped anew. */
export function payloadNonceAt(scheme: WrapScheme): number {
  return WRAP_AT + WRAP_BYTES[scheme];
}

/** Where the ciphertext begins. */
export function payloadAt(scheme: WrapScheme): number {
  return payloadNonceAt(scheme) + NONCE_BYTES;
}

/** By how much a sealed object is longer than its (compressed) content. */
export function sealOverheadBytes(scheme: WrapScheme): number {
  return payloadAt(scheme) + TAIL_BYTES;
}

/** The shortest and the longest that {@link sealOverheadBytes} can be. */
export const SEAL_OVERHEAD_BYTES_MIN = sealOverheadBytes("aes");
export const SEAL_OVERHEAD_BYTES_MAX = sealOverheadBytes("x25519");

const MAGIC_NAME_BYTES = 7;
const KINDS: readonly (ObjectKind | undefined)[] = [undefined, "block", "node", "head", "stamp"];
const COMPRESSIONS: readonly Compression[] = ["none", "zstd", "lz4"];
const WRAP_SCHEMES: readonly (WrapScheme | undefined)[] = [undefined, "aes", "x25519"];

/** Everything in a sealed object but the ciphertext and what is computed over it. */
export interface SealedHeader {
  readonly kind: ObjectKind;
  readonly compression: Compression;
  /** 32 bytes, as hex. */
  readonly id: string;
  /** Length of the plaintext. */
  readonly plainBytes: number;
  /** Length of the ciphertext: the compressed plaintext. */
  readonly storedBytes: number;
  /** Of the repository key under which the data key is wrapped: 8 bytes, as hex. */
  readonly keyId: string;
  readonly wrapScheme: WrapScheme;
}

/** The parts of a sealed object, as views of it. */
export interface SealedObject {
  readonly header: SealedHeader;
  /** Associated data of the payload. */
  readonly immutable: Uint8Array;
  /** The public key that the wrap's key was agreed with; empty where that is symmetric. */
  readonly ephemeral: Uint8Array;
  readonly wrapNonce: Uint8Array;
  readonly wrappedKey: Uint8Array;
  readonly wrapTag: Uint8Array;
  readonly nonce: Uint8Array;
  readonly ciphertext: Uint8Array;
  readonly tag: Uint8Array;
}

/** Length of a whole sealed object whose content has `storedBytes` after compression. */
export function sealedBytes(scheme: WrapScheme, storedBytes: number): number {
  return sealOverheadBytes(scheme) + storedBytes;
}

/** Writes the header at the start of `out`; the caller fills in wrap, nonce, ciphertext, tag and checksum. */
export function writeHeader(out: Buffer, header: SealedHeader): void {
  MAGIC.copy(out, 0);
  out[KIND_AT] = ObjectKind[header.kind];
  out[COMPRESSION_AT] = Compression[header.compression];
  out[CIPHER_AT] = CIPHER_AES_256_GCM;
  out[RESERVED_AT] = 0;
  out.writeUInt32LE(0, FEATURES_AT);
  if (out.write(header.id, ID_AT, ID_BYTES, "hex") !== ID_BYTES)
    throw malformed("has no id of 32 bytes in hex");
  out.writeUInt32LE(header.plainBytes, PLAIN_BYTES_AT);
  out.writeUInt32LE(header.storedBytes, STORED_BYTES_AT);
  out.write(header.keyId, KEY_ID_AT, KEY_ID_BYTES, "hex");
  out[WRAP_SCHEME_AT] = WrapScheme[header.wrapScheme];
  out[WRAP_RESERVED_AT] = 0;
  out.writeUInt16LE(WRAP_BYTES[header.wrapScheme], WRAP_LENGTH_AT);
}

/** The parts of a sealed object of that content length, as views of `bytes`; for writing and for reading. */
export function sealedParts(
  bytes: Buffer,
  scheme: WrapScheme,
  storedBytes: number,
): Omit<SealedObject, "header"> {
  const nonceAt = payloadNonceAt(scheme);
  const wrapNonceAt = nonceAt - WRAP_BYTES.aes;
  const from = nonceAt + NONCE_BYTES;
  const end = from + storedBytes;
  return {
    immutable: bytes.subarray(0, IMMUTABLE_BYTES),
    ephemeral: bytes.subarray(WRAP_AT, wrapNonceAt),
    wrapNonce: bytes.subarray(wrapNonceAt, wrapNonceAt + NONCE_BYTES),
    wrappedKey: bytes.subarray(wrapNonceAt + NONCE_BYTES, nonceAt - TAG_BYTES),
    wrapTag: bytes.subarray(nonceAt - TAG_BYTES, nonceAt),
    nonce: bytes.subarray(nonceAt, from),
    ciphertext: bytes.subarray(from, end),
    tag: bytes.subarray(end, end + TAG_BYTES),
  };
}

/** So many bytes of an object are enough for {@link keyIdAtStart}. */
export const KEY_ID_END = KEY_ID_AT + KEY_ID_BYTES;

/**
 * The id of the repository key that an object is under, as its start says, 16 hex digits. Nothing is verified: rot may have changed it.
 * FormatError for what is no object, or too short.
 */
export function keyIdAtStart(start: Uint8Array): string {
  const bytes = Buffer.from(start.buffer, start.byteOffset, start.byteLength);
  if (bytes.length < KEY_ID_END) {
    throw new FormatError(FormatFault.Truncated, `is truncated: ${bytes.length} bytes`);
  }
  if (bytes.compare(MAGIC, 0, MAGIC.length, 0, MAGIC.length) !== 0) {
    throw new FormatError(FormatFault.Foreign, "is not an object of this format (wrong magic)");
  }
  return bytes.subarray(KEY_ID_AT, KEY_ID_END).toString("hex");
}

/** What the checksum covers. */
export function checksummed(bytes: Buffer): Buffer {
  return bytes.subarray(0, bytes.length - CHECKSUM_BYTES);
}

/** Where the checksum is: the last bytes. */
export function checksumOf(bytes: Buffer): Buffer {
  return bytes.subarray(bytes.length - CHECKSUM_BYTES);
}

/** Checks magic and length, without which no checksum says anything. */
export function checkFrame(bytes: Buffer): void {
  if (
    bytes.length >= MAGIC_NAME_BYTES &&
    bytes.compare(MAGIC, 0, MAGIC_NAME_BYTES, 0, MAGIC_NAME_BYTES) !== 0
  ) {
    throw new FormatError(FormatFault.Foreign, "is not an object of Ashlar (wrong magic)");
  }
  if (bytes.length < SEAL_OVERHEAD_BYTES_MIN) {
    throw new FormatError(
      FormatFault.Truncated,
      `is truncated: ${bytes.length} bytes are less than an empty object has`,
    );
  }
}

/**
 * Reads a sealed object's header and finds its parts. Nothing is allocated in proportion to what the header claims.
 * Verify the checksum first: then what is not understood here comes from a newer Ashlar, not from rot.
 */
export function decodeSealed(bytes: Buffer): SealedObject {
  checkFrame(bytes);
  const kind = KINDS[bytes[KIND_AT] as number];
  const compression = COMPRESSIONS[bytes[COMPRESSION_AT] as number];
  const features = bytes.readUInt32LE(FEATURES_AT);
  const wrapScheme = WRAP_SCHEMES[bytes[WRAP_SCHEME_AT] as number];
  if (bytes[MAGIC_NAME_BYTES] !== MAGIC[MAGIC_NAME_BYTES])
    throw writtenByNewer(`format ${bytes[MAGIC_NAME_BYTES]}`);
  if (features !== 0) throw writtenByNewer(`required features 0x${features.toString(16)}`);
  if (kind === undefined) throw writtenByNewer(`object kind ${bytes[KIND_AT]}`);
  if (compression === undefined) throw writtenByNewer(`compression ${bytes[COMPRESSION_AT]}`);
  if (bytes[CIPHER_AT] !== CIPHER_AES_256_GCM) throw writtenByNewer(`cipher ${bytes[CIPHER_AT]}`);
  if (wrapScheme === undefined) throw writtenByNewer(`key wrap ${bytes[WRAP_SCHEME_AT]}`);
  if (bytes[RESERVED_AT] !== 0 || bytes[WRAP_RESERVED_AT] !== 0)
    throw malformed("has reserved bytes that are not zero");
  if (bytes.readUInt16LE(WRAP_LENGTH_AT) !== WRAP_BYTES[wrapScheme])
    throw malformed("has a key wrap of a wrong length");
  const plainBytes = bytes.readUInt32LE(PLAIN_BYTES_AT);
  const storedBytes = bytes.readUInt32LE(STORED_BYTES_AT);
  checkSizes(compression, plainBytes, storedBytes);
  const length = sealedBytes(wrapScheme, storedBytes);
  if (bytes.length < length) {
    throw new FormatError(
      FormatFault.Truncated,
      `is truncated: ${bytes.length} of ${length} bytes are there`,
    );
  }
  if (bytes.length > length) throw malformed(`has ${bytes.length - length} bytes behind its end`);
  const header = {
    kind,
    compression,
    id: bytes.toString("hex", ID_AT, ID_AT + ID_BYTES),
    plainBytes,
    storedBytes,
    keyId: bytes.toString("hex", KEY_ID_AT, KEY_ID_AT + KEY_ID_BYTES),
    wrapScheme,
  };
  return { header, ...sealedParts(bytes, wrapScheme, storedBytes) };
}

/** Compression is kept only where it helps, so a header that says otherwise was not written by Ashlar. */
function checkSizes(compression: Compression, plainBytes: number, storedBytes: number): void {
  if (plainBytes === 0 || plainBytes > PLAIN_BYTES_MAX) {
    throw malformed(`has a plaintext size out of range (${plainBytes})`);
  }
  const plausible =
    compression === "none"
      ? storedBytes === plainBytes
      : storedBytes > 0 && storedBytes < plainBytes;
  if (!plausible)
    throw malformed(`has a stored size out of range (${storedBytes} of ${plainBytes})`);
}
