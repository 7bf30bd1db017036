// What a backup does for the storages that its quorum did not need: they get what they are owed, for as long as nobody stops it.
import { untilAborted } from "#lib/core/until-aborted.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { Policy } from "#lib/repository/records.ts";
import type { CoordinatorContext } from "./context.ts";

/** Locks that a backup extends at a storage, at most: the rest is for `gc`, or for the next backup. */
const EXTENDED_MAX = 1000;

/**
 * Storages that are there again, or were slower than the others, get what they are owed. One at which puts are still under way
 * is left alone: it hangs. A failure is only reported, an abort ends it: what is owed stays recorded.
 */
export async function catchUp(
  context: CoordinatorContext,
  policy: Policy,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { repo, upkeep } = context;
  const behind = await upkeep.drain(0, signal);
  for (const storage of policy.storages) {
    if (!repo.storages.isAvailable(storage)) continue;
    const name = repo.storages.nameOf(storage);
    try {
      signal?.throwIfAborted();
      if (behind.includes(storage)) {
        repo.log.warn(`storage ${name} stays owed: it is much slower than the others`);
        continue;
      }
      await untilAborted(fillAt(context, storage, signal), signal);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      repo.log.warn(`storage ${name} stays owed: ${reason}`);
    }
  }
}

async function fillAt(
  { repo, upkeep }: CoordinatorContext,
  storage: StorageId,
  signal: AbortSignal | undefined,
): Promise<void> {
  const options = signal === undefined ? {} : { signal };
  const filled = await upkeep.fill(storage, options);
  if (filled.filled > 0) {
    repo.log.info(
      `storage ${repo.storages.nameOf(storage)} got ${filled.filled} objects that it was owed`,
    );
  }
  await upkeep.putHeads({ storage }, options);
  const { reason } = await upkeep.extendLocks(storage, { ...options, most: EXTENDED_MAX });
  if (reason !== undefined) {
    repo.log.warn(`locks at storage ${repo.storages.nameOf(storage)} stay due: ${reason}`);
  }
}
