// One object in a cache folder: a file with a checksum, and behind it the object as the storage gave it. The checksum covers the
// name too, so that a file that was moved is as good as damaged. The format is nobody's but the cache's: what is not understood
// is thrown away and read again.
import { Blake3Hasher } from "@napi-rs/blake-hash";

const MAGIC = Buffer.from("ashlar cache 1\n\0", "latin1");
const CHECKSUM_BYTES = 32;
/** What stands before the object. */
export const ENTRY_HEADER_BYTES = MAGIC.length + CHECKSUM_BYTES;

/** The folders of objects that may be cached: those whose names are used once, and which are verified by whoever opens them. */
const CACHED = /^(?:blocks|nodes)\//;
const ENTRY_FILE = /^(?:blocks|nodes),/;

/** Whether objects of this name may be cached. Heads, stamps and keys say what is on the storage now. */
export function isCacheable(name: string): boolean {
  return CACHED.test(name);
}

/** The name of the file; a comma is in no object's name. */
export function entryFileName(name: string): string {
  return name.replaceAll("/", ",");
}

/** Whether a file of that name is an object, and not something that somebody else has put there. */
export function isEntryFileName(file: string): boolean {
  return ENTRY_FILE.test(file);
}

/** What is written before the object. */
export function entryHeader(name: string, bytes: Uint8Array): Buffer {
  return Buffer.concat([MAGIC, checksum(name, bytes)]);
}

/** Whether header and object are whole, and belong to that name. */
export function isWhole(header: Uint8Array, name: string, bytes: Uint8Array): boolean {
  return entryHeader(name, bytes).equals(header);
}

function checksum(name: string, bytes: Uint8Array): Buffer {
  const hasher = new Blake3Hasher();
  hasher.update(Buffer.from(`${name}\0`, "latin1"));
  // A view, and no copy: the memory may be shared with worker threads.
  hasher.update(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  return hasher.digestBuffer();
}
