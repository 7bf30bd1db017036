// Gives copies other objects, wrapped under the repository's active key (DESIGN §5).
import { objectName } from "#lib/repository/keyspace.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { beginRenewal, finishRenewal } from "#lib/repository/transactions/renew.ts";
import type { ObjectCopy } from "./object-reader.ts";

/**
 * Puts another object in the place of a copy's. Whether it counts: not where the copy has gone meanwhile, or its storage takes
 * nothing new. Whatever dies, the old one counts until the new one does.
 * @param sealed of the new object; it opens to the same bytes
 * @param cycleMs of the scrub that found it: it was verified in that cycle
 */
export async function renewCopy(
  repo: Repository,
  copy: ObjectCopy,
  sealed: Uint8Array,
  cycleMs: number,
  signal?: AbortSignal,
): Promise<boolean> {
  const { kv, random, clock, storages } = repo;
  const to = await beginRenewal(kv, random, copy);
  if (to === undefined) return false;
  const { kind, id, storage, generation } = copy;
  await storages.put(storage, objectName(kind, id, to), sealed, signal ? { signal } : {});
  const renewed = { kind, id, storage, generation, to, storedBytes: sealed.length };
  return finishRenewal(kv, Math.max(cycleMs, clock.now()), renewed);
}
