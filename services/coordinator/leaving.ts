// Copies leave the storages where no policy asks for them any more (DESIGN §4.5), in passes over bounded transactions.
import type { StorageId } from "#lib/core/ids.ts";
import { headPrefix } from "#lib/repository/head-names.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { lowestHorizon, raiseEpoch } from "#lib/repository/transactions/collect.ts";
import {
  leaveStep,
  queueLeaving,
  storagesToLeave,
  type LeaveOptions,
} from "#lib/repository/transactions/leave.ts";

/** What left one storage. */
export interface Left {
  readonly storage: StorageId;
  readonly copies: number;
  /** Sealed bytes whose objects went to trash. */
  readonly bytes: number;
}

/** Two for each level of the highest tree, and many to spare: backups that take marks back all the time must not keep anybody here. */
const PASSES_MAX = 64;

type Counts = { copies: number; bytes: number };

/** Lets copies leave until nothing more can, everywhere where something is queued to. */
export async function leaveStorages(repo: Repository, signal?: AbortSignal): Promise<Left[]> {
  const left: Left[] = [];
  for (const storage of await storagesToLeave(repo.kv)) {
    const counts = await leaveStorage(repo, storage, signal);
    if (counts.copies > 0) left.push({ storage, ...counts });
  }
  return left;
}

/** What a node named can leave only after it, so there is a pass for each level of a tree, and one in between for the marks. */
async function leaveStorage(
  repo: Repository,
  storage: StorageId,
  signal: AbortSignal | undefined,
): Promise<Counts> {
  const counts: Counts = { copies: 0, bytes: 0 };
  const prefixOf: LeaveOptions["headPrefix"] = (uid) => headPrefix(repo.keys, uid);
  for (let pass = 0; pass < PASSES_MAX; pass += 1) {
    // What was marked before this pass is past it now, but for those who are still at work.
    await raiseEpoch(repo.kv);
    const options = { storage, horizon: await lowestHorizon(repo.kv), headPrefix: prefixOf };
    let moved = 0;
    let from: Buffer | undefined;
    do {
      signal?.throwIfAborted();
      const step = await leaveStep(repo.kv, options, from);
      counts.copies += step.left;
      counts.bytes += step.bytesFreed;
      moved += step.left + step.marked + step.unfinished;
      from = step.next;
    } while (from !== undefined);
    if (moved === 0) break;
  }
  return counts;
}

/** Queues all copies that a storage has or is owed: those that no policy asks for leave at the next turn. */
export async function queueAllLeaving(
  { kv }: Repository,
  storage: StorageId,
  signal?: AbortSignal,
): Promise<void> {
  for (const which of ["placed", "owed"] as const) {
    let from: Buffer | undefined;
    do {
      signal?.throwIfAborted();
      from = await queueLeaving(kv, storage, which, from);
    } while (from !== undefined);
  }
}
