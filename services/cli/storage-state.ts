// Putting storages in use, making them readonly, disabling them; and versions that are to be at more storages than they are.
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import { setStorageState } from "#lib/repository/transactions/storage.ts";
import { widenPolicy } from "#lib/repository/transactions/policy.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { listPlacedVersions } from "#services/coordinator/listing.ts";
import type { Engine } from "./compose.ts";
import { confirm } from "./prompt.ts";

/** What an operator can make of a storage. */
export type OperatorState = "in-use" | "readonly" | "disabled";

/** A storage whose state was changed. */
export interface ChangedState {
  readonly name: string;
  readonly id: StorageId;
  readonly state: OperatorState;
  readonly before: string;
  /** Versions that have too few storages without it. */
  readonly versionsBelowQuorum: number;
}

/** The storage that the repository, or the configuration, calls so; NotFound names those that there are. */
export function knownStorage(engine: Engine, name: string): StorageId {
  const known = engine.knownStorages.filter(({ record }) => record.state !== "retired");
  const found = known.find(({ record }) => record.name === name);
  if (found !== undefined) return found.storage;
  throw new AshlarError(ErrorCode.NotFound, `there is no storage ${name}`, {
    remedy: `the repository has: ${known.map(({ record }) => record.name).join(", ")}`,
  });
}

/** Changes a storage's state; asks first where versions would have too few storages without it. */
export async function changeState(
  engine: Engine,
  name: string,
  state: OperatorState,
): Promise<ChangedState> {
  const id = knownStorage(engine, name);
  const below = state === "disabled" ? await countBelowQuorum(engine, id) : 0;
  if (below > 0) {
    await confirm(
      engine.context,
      `${below} versions have too few storages without ${name}. Disable it?`,
    );
    engine.context.log.warn(
      `${below} versions have too few storages while ${name} is disabled: nothing of them is lost, but they count as not restorable`,
    );
  }
  const before = await setStorageState(engine.kv, id, state);
  return { name, id, state, before: before.state, versionsBelowQuorum: below };
}

async function countBelowQuorum(engine: Engine, id: StorageId): Promise<number> {
  let count = 0;
  for (const { version, restorable, completeAt } of await listPlacedVersions(engine.kv)) {
    const others = completeAt.filter(
      (storage) => storage !== id && version.policy.storages.includes(storage),
    );
    if (restorable && others.length < version.policy.quorum) count += 1;
  }
  return count;
}

/**
 * Makes versions go to a storage, too; gives how many did not yet. What they need is copied by filling.
 * @param skipsGone leaves out those that were removed meanwhile
 */
export async function addToPolicies(
  engine: Engine,
  uids: readonly VersionUid[],
  id: StorageId,
  skipsGone: boolean,
): Promise<number> {
  const repo = await engine.repository();
  let count = 0;
  for (const uid of uids) {
    engine.context.signal.throwIfAborted();
    const before = await repo.kv.read((reader) => readVersion(reader, uid));
    try {
      const widened = await widenPolicy(repo.kv, repo.random, uid, [id]);
      if (widened.revision !== before?.revision) count += 1;
    } catch (error) {
      if (!skipsGone || !isErrorCode(error, ErrorCode.NotFound)) throw error;
    }
  }
  return count;
}
