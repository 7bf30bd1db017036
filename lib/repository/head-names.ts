// How the heads of a version are named, with the keys of a repository at hand.
import type { VersionUid } from "#lib/core/ids.ts";
import { ObjectFolder } from "#proto/object-names.ts";
import { createHasher, type Hasher } from "./hashing.ts";
import type { HashKeys } from "./keys.ts";

/** Heads are named often, and deriving the keys of a hasher takes longer than that. */
const hashers = new WeakMap<HashKeys, Hasher>();

/** The keyed hash of a version's uid that stands in the names of its heads. */
export function headHash(keys: HashKeys, uid: VersionUid): string {
  const hasher = hashers.get(keys) ?? createHasher(keys);
  hashers.set(keys, hasher);
  return hasher.headName(uid);
}

/** The start of all names of a version's heads. */
export function headPrefix(keys: HashKeys, uid: VersionUid): string {
  return `${ObjectFolder.heads}${headHash(keys, uid)}.`;
}
