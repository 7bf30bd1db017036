// What of a sealed object can be verified without any key: that it is whole, and that it says it is the object asked for.
import { Blake3Hasher } from "@napi-rs/blake-hash";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { FormatError, FormatFault } from "#proto/format-error.ts";
import {
  CHECKSUM_BYTES,
  checkFrame,
  checksummed,
  checksumOf,
  decodeSealed,
  type ObjectKind,
  type SealedObject,
} from "#proto/sealed-object.ts";
import { asBuffer } from "./hashing.ts";

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
export function checksum(bytes: Buffer): Buffer {
  checksumHasher.reset();
  return checksumHasher.update(checksummed(bytes)).digestBuffer().subarray(0, CHECKSUM_BYTES);
}

/** Checks checksum and header, and that it is the object that was asked for. */
export function verifyObject(object: ObjectIdentity, sealed: Buffer): SealedObject {
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

/** An object in messages. */
export function nameOf(object: ObjectIdentity): string {
  return `${object.kind} ${object.id}`;
}

/** The error of bytes that the format does not allow. */
export function formatDamage(what: string, error: unknown): AshlarError {
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

/** The error of an object that failed a check. */
export function damaged(
  what: string,
  check: SealCheck,
  message: string,
  cause?: unknown,
): AshlarError {
  return new AshlarError(ErrorCode.Damaged, `${what} ${message}`, { cause, details: { check } });
}
