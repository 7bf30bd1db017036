// What the metadata still know of storages that are retired goes (DESIGN §4.10). It may be stopped anywhere and run again.
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { headPrefix } from "#lib/repository/head-names.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { narrowPolicy } from "#lib/repository/transactions/policy.ts";
import { forgetStep } from "#lib/repository/transactions/retire.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";
import { listVersions } from "#lib/repository/transactions/version.ts";

/** Forgets all retired storages: versions make do with their others, and what only a retired one had is marked as damaged. */
export async function forgetRetired(repo: Repository, signal?: AbortSignal): Promise<void> {
  const retired = (await listStorages(repo.kv))
    .filter(({ record }) => record.state === "retired")
    .map(({ storage }) => storage);
  if (retired.length === 0) return;
  await leavePolicies(repo, retired, signal);
  for (const storage of retired) {
    while (await forgetStep(repo.kv, storage, (uid) => headPrefix(repo.keys, uid))) {
      signal?.throwIfAborted();
    }
  }
  await drainRechecks(repo.kv, signal);
}

async function leavePolicies(
  repo: Repository,
  retired: readonly StorageId[],
  signal: AbortSignal | undefined,
): Promise<void> {
  for await (const { uid, state, policy } of listVersions(repo.kv)) {
    signal?.throwIfAborted();
    // One that is being made leaves them out at its end.
    if (state !== "valid" && state !== "invalid") continue;
    const left = policy.storages.filter((storage) => !retired.includes(storage));
    if (left.length === 0) continue;
    for (const storage of retired) {
      if (!policy.storages.includes(storage)) continue;
      const prefix = headPrefix(repo.keys, uid);
      try {
        await narrowPolicy(repo.kv, { uid, storage, headPrefix: prefix, isLost: true });
      } catch (error) {
        // It was removed meanwhile.
        if (!isErrorCode(error, ErrorCode.NotFound)) throw error;
      }
    }
  }
}
