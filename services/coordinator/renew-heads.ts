// After a rotation heads are put anew, so that they are under the active repository key: whatever killed the rotation, and whoever
// sealed one under the key of before because he had not heard of it yet. Blocks and nodes are wrapped anew by deep scrubs.
import type { Repository } from "#lib/repository/repository.ts";
import { listHeadsUnder, renewHeadsOf } from "#lib/repository/transactions/heads.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";

/**
 * Owes heads that are under retired repository keys anew, at storages that take them; whoever puts what is owed does the rest. Where
 * there is no retired key, as this process knows the keys, nothing is looked at.
 * @returns of how many versions
 */
export async function renewHeads(repo: Repository, signal?: AbortSignal): Promise<number> {
  const retired = repo.sealer.retiredKeys();
  if (retired.size === 0) return 0;
  let count = 0;
  for (const { storage, record } of await listStorages(repo.kv)) {
    if (record.state !== "in-use" && record.state !== "readonly") continue;
    let from: Buffer | undefined;
    do {
      signal?.throwIfAborted();
      const page = await listHeadsUnder(repo.kv, storage, retired, from);
      for (const uid of page.uids) if (await renewHeadsOf(repo.kv, uid, storage)) count += 1;
      from = page.next;
    } while (from !== undefined);
  }
  return count;
}
