// Identifiers. In memory they are lower-case hex strings (usable as map keys, readable in logs); in keys and messages
// they are raw bytes.
import { assert } from "./assert.ts";

declare const brand: unique symbol;
type Brand<Name extends string> = string & { readonly [brand]: Name };

/** Keyed hash of a block's or a node's plaintext: 32 bytes, 64 hex digits. */
export type BlockId = Brand<"BlockId">;
/** 64 random bits that tell apart the objects of one block id; 16 hex digits. A generation is never used twice. */
export type Generation = Brand<"Generation">;
/** Identity of a storage, written into its marker when it is made; 16 hex digits. */
export type StorageId = Brand<"StorageId">;
/** Identity of a session; 16 hex digits. */
export type SessionId = Brand<"SessionId">;
/** Fencing token of a session; 16 hex digits. Resuming replaces it. */
export type Token = Brand<"Token">;
/** Identity of a job: 12 hex digits of its time in ms, 8 random ones; so jobs sort by when they were submitted. */
export type JobId = Brand<"JobId">;
/** Name of a version: `<volume>-<6 random>`. */
export type VersionUid = Brand<"VersionUid">;

/** Bytes of a {@link BlockId}. */
export const BLOCK_ID_BYTES = 32;
/** Bytes of generations, storage ids, session ids and tokens. */
export const SHORT_ID_BYTES = 8;

const HEX_64 = /^[0-9a-f]{64}$/;
const HEX_16 = /^[0-9a-f]{16}$/;

/** Reads a block id out of raw bytes at `offset`. */
export function blockIdFrom(bytes: Buffer, offset = 0): BlockId {
  // A plain Uint8Array has a toString, too, of another kind.
  assert(Buffer.isBuffer(bytes), "ids are read out of a Buffer");
  assert(bytes.length >= offset + BLOCK_ID_BYTES, "a block id has 32 bytes");
  return bytes.toString("hex", offset, offset + BLOCK_ID_BYTES) as BlockId;
}

/** A new job's id. */
export function newJobId(nowMs: number, random: Buffer): JobId {
  assert(random.length === 4, "a job's id has four random bytes");
  return `${nowMs.toString(16).padStart(12, "0")}${random.toString("hex")}` as JobId;
}

/** A job's id, or undefined where the text is none. */
export function parseJobId(text: string): JobId | undefined {
  return /^[0-9a-f]{20}$/.test(text) ? (text as JobId) : undefined;
}

/** Checks a hex string and brands it. */
export function asBlockId(hex: string): BlockId {
  assert(HEX_64.test(hex), `not a block id: ${hex}`);
  return hex as BlockId;
}

/** Reads any of the 8-byte ids out of raw bytes at `offset`. */
export function shortIdFrom<T extends Generation | StorageId | SessionId | Token>(
  bytes: Buffer,
  offset = 0,
): T {
  assert(bytes.length >= offset + SHORT_ID_BYTES, "a short id has 8 bytes");
  return bytes.toString("hex", offset, offset + SHORT_ID_BYTES) as T;
}

/** Checks a hex string of an 8-byte id and brands it. */
export function asShortId<T extends Generation | StorageId | SessionId | Token>(hex: string): T {
  assert(HEX_16.test(hex), `not an 8-byte id: ${hex}`);
  return hex as T;
}

/** Packs block ids into one flat buffer, 32 bytes each. */
export function packBlockIds(ids: readonly BlockId[]): Buffer {
  const out = Buffer.allocUnsafe(ids.length * BLOCK_ID_BYTES);
  for (const [index, id] of ids.entries()) out.write(id, index * BLOCK_ID_BYTES, "hex");
  return out;
}

/** The inverse of {@link packBlockIds}. */
export function unpackBlockIds(bytes: Buffer): BlockId[] {
  assert(bytes.length % BLOCK_ID_BYTES === 0, "a list of block ids is a multiple of 32 bytes");
  const out: BlockId[] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_ID_BYTES) out.push(blockIdFrom(bytes, at));
  return out;
}

/** Packs 8-byte ids into one flat buffer. */
export function packShortIds(ids: readonly (Generation | StorageId | SessionId | Token)[]): Buffer {
  return Buffer.from(ids.join(""), "hex");
}

/** The inverse of {@link packShortIds}. */
export function unpackShortIds<T extends Generation | StorageId | SessionId | Token>(
  bytes: Buffer,
): T[] {
  assert(bytes.length % SHORT_ID_BYTES === 0, "a list of short ids is a multiple of 8 bytes");
  const out: T[] = [];
  for (let at = 0; at < bytes.length; at += SHORT_ID_BYTES) out.push(shortIdFrom(bytes, at));
  return out;
}
