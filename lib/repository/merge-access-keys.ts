// Access keys out of what storages have, for metadata that are made anew or mended: of several objects of one access key the one
// that a full holder of the newest repository keys has vouched for.
import type { Kv } from "#lib/ports/kv.ts";
import { FormatError } from "#proto/format-error.ts";
import { decodeKeyObject } from "#proto/key-object.ts";
import { verifyFacts } from "./key-objects.ts";
import type { RepositoryKeys } from "./keys.ts";
import {
  ACCESS_KEYS_MAX,
  changeAccessKeys,
  readAccessKeys,
  type AccessKeyChange,
  type AccessKeyEntry,
  type AccessKeySet,
} from "./transactions/access-keys.ts";

/** The access keys after merging, and those objects that nobody vouches for and that were left out. */
export interface MergedAccessKeys {
  readonly set: AccessKeySet;
  readonly forged: readonly string[];
}

/**
 * Takes found access keys into the metadata where they are newer than what is there. What was removed stays so.
 * @param keys in full, the newest that were found
 * @param opener id of the access key that opened them: it is never left out
 */
export async function mergeAccessKeys(
  kv: Kv,
  keys: RepositoryKeys,
  found: readonly AccessKeyEntry[],
  opener: string,
): Promise<MergedAccessKeys> {
  const set = await readAccessKeys(kv);
  const present = new Map(set.entries.map(({ accessId, record }) => [accessId, record]));
  const best = new Map<string, AccessKeyEntry>();
  const forged = new Set<string>();
  for (const entry of found) {
    const { accessId } = entry;
    const before = best.get(accessId)?.record ?? present.get(accessId);
    if (before !== undefined && before.object === undefined) continue;
    const rank = rankOf(keys, entry.record.object);
    if (rank === 0) forged.add(accessId);
    if (rank <= rankOf(keys, before?.object)) continue;
    best.set(accessId, entry);
  }
  for (const accessId of best.keys()) forged.delete(accessId);
  // Whoever can write to a storage can put any number of objects there that nobody vouches for: they must not keep out the others,
  // nor the one that has just opened, as the first release made it.
  const worth = ({ accessId, record }: AccessKeyEntry): number =>
    accessId === opener ? Infinity : rankOf(keys, record.object);
  const inOrder = [...best].toSorted(([, a], [, b]) => compareDown(worth(a), worth(b)));
  for (const [accessId] of inOrder.slice(ACCESS_KEYS_MAX)) {
    best.delete(accessId);
    forged.add(accessId);
  }
  const changes = [...best.values()].map(({ accessId, record }): AccessKeyChange => ({
    accessId,
    before: present.get(accessId),
    after: record,
  }));
  const merged = changes.length === 0 ? set : await changeAccessKeys(kv, changes);
  return { set: merged, forged: [...forged] };
}

/** The larger one first; of two that are equal, also infinite ones, either. */
function compareDown(a: number, b: number): number {
  return a === b ? 0 : a > b ? -1 : 1;
}

/** What an object is worth: 0 nothing; 1 as the first release made it; then by whether its facts are vouched for, and how newly. */
function rankOf(keys: RepositoryKeys, bytes: Uint8Array | undefined): number {
  if (bytes === undefined) return 0;
  try {
    const object = decodeKeyObject(bytes);
    if (object.repository !== keys.repository) return 0;
    if (object.facts === undefined) return 1;
    const verdict = verifyFacts(keys, object);
    return verdict === "active" ? 3 : verdict === "retired" ? 2 : 0;
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return 0;
  }
}
