// Which storages upkeep works on, by what their records say.
import type { StorageId } from "#lib/core/ids.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { StorageState } from "#lib/repository/records.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";

/** The storages that count: in use, or readonly. */
export async function countingStorages(kv: Kv): Promise<StorageId[]> {
  const storages = await listStorages(kv);
  return storages
    .filter(({ record }) => record.state === "in-use" || record.state === "readonly")
    .map(({ storage }) => storage);
}

/** The state of a storage; one without a record was never added here, or forgotten: retired. */
export async function storageState(kv: Kv, storage: StorageId): Promise<StorageState> {
  const storages = await listStorages(kv);
  return storages.find((entry) => entry.storage === storage)?.record.state ?? "retired";
}
