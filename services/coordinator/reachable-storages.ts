// Whether a version can be read from anywhere now, by its storages: asked before anything is overwritten with it.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { readBlock } from "#lib/repository/ledger.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import type { Repository } from "#lib/repository/repository.ts";

/**
 * Unavailable unless one of the storages that have the version, or the one of that name, is there and can be read.
 * What it has of the version, and whether that is intact, is for reading to show.
 */
export async function requireReachable(
  repo: Repository,
  version: VersionRecord,
  only: string | undefined,
): Promise<void> {
  const having = await storagesWith(repo, version);
  const storages = only === undefined ? having : [repo.storages.byName(only).id];
  const lacking = storages.filter((storage) => !having.includes(storage));
  if (only !== undefined && lacking.length > 0) {
    throw new AshlarError(
      ErrorCode.Unavailable,
      `storage ${only} does not have version ${version.uid} whole`,
      { remedy: "restore without --storage; `ashlar replicate` brings what is owed" },
    );
  }
  const reasons: string[] = [];
  for (const storage of storages) {
    const reason = await whyAway(repo, storage);
    if (reason === undefined) return;
    reasons.push(`${repo.storages.nameOf(storage)}: ${reason}`);
  }
  const remedy =
    only === undefined
      ? "make one of them reachable"
      : "make it reachable, or restore from another one with --storage";
  throw new AshlarError(
    ErrorCode.Unavailable,
    `version ${version.uid} cannot be read from any storage now: ${reasons.join("; ")}`,
    { remedy, details: { uid: version.uid } },
  );
}

/** Where its root was, or is; nowhere where a rebuild did not find it, and then the storages of its policy may have parts. */
async function storagesWith(repo: Repository, version: VersionRecord): Promise<StorageId[]> {
  const { root, policy } = version;
  const record =
    root === undefined ? undefined : await repo.kv.read((reader) => readBlock(reader, root));
  const having = (record?.copies ?? [])
    .filter(({ state }) => state === "placed" || state === "bad")
    .map(({ storage }) => storage);
  return [...new Set(having.length > 0 ? having : policy.storages)];
}

async function whyAway(repo: Repository, storage: StorageId): Promise<string | undefined> {
  try {
    await repo.storages.store(storage).check();
    return undefined;
  } catch (error) {
    if (!(error instanceof AshlarError)) throw error;
    return error.message;
  }
}
