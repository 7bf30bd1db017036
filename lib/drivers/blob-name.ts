// The names of objects, as the BlobStore port allows them: checked in every driver, so that what one accepts all accept.
import { assert } from "#lib/core/assert.ts";

/** The longest name in bytes. */
export const BLOB_NAME_BYTES_MAX = 200;

// A part does not begin with a dot: those are `.`, `..` and what file systems and tools hide (`.nfs0001`).
const BLOB_NAME = /^(?!\.)[a-z0-9._-]+(?:\/(?!\.)[a-z0-9._-]+)*$/;

/** Whether this may be the name of an object. */
export function isBlobName(name: string): boolean {
  return name.length <= BLOB_NAME_BYTES_MAX && BLOB_NAME.test(name);
}

/** Throws unless this may be the name of an object: names are made by Ashlar alone. */
export function checkBlobName(name: string): void {
  assert(isBlobName(name), `not the name of an object: ${JSON.stringify(name)}`);
}

/** Throws unless this may be the prefix of a listing: empty, or ending at a `/`. */
export function checkBlobPrefix(prefix: string): void {
  assert(
    prefix === "" || (prefix.endsWith("/") && isBlobName(prefix.slice(0, -1))),
    `not a prefix of names: ${JSON.stringify(prefix)}`,
  );
}
