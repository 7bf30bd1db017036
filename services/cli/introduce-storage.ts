// Making a storage known to a repository, and the repository to it: keys, then the first stamp, then the record by which it
// counts (DESIGN §4.10, §5).
import type { StorageId } from "#lib/core/ids.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { StoredKeyObject } from "#lib/repository/key-objects.ts";
import type { Ports } from "#lib/repository/repository.ts";
import type { Sealer } from "#lib/repository/sealing.ts";
import { addStorage, beginRun, confirmStamp } from "#lib/repository/transactions/storage.ts";
import { stampObjectId, stampObjectName } from "#proto/object-names.ts";
import { encodeStamp } from "#proto/stamp.ts";

/** A storage that was just made. */
export interface NewStorage {
  readonly id: StorageId;
  readonly name: string;
  readonly site: string;
  readonly store: BlobStore;
}

/** What a storage is given. */
export interface Introduction extends Pick<Ports, "clock" | "random"> {
  readonly kv: Kv;
  readonly repository: string;
  readonly keyObjects: readonly StoredKeyObject[];
  readonly sealer: Sealer;
}

/** Introduces a storage; afterwards it counts. */
export async function introduceStorage(to: Introduction, storage: NewStorage): Promise<void> {
  const { kv, clock, random } = to;
  const { id, name, site, store } = storage;
  for (const object of to.keyObjects) {
    await store.put(object.name, object.bytes, { mode: "replace", reserve: true });
  }
  const stampRandom = random.bytes(8).toString("hex");
  const stampName = stampObjectName(stampRandom);
  const run = await beginRun(kv, id, stampName);
  const plain = encodeStamp({
    repository: to.repository,
    storage: id,
    run,
    random: stampRandom,
    createdMs: clock.now(),
  });
  const sealed = to.sealer.seal({ kind: "stamp", id: stampObjectId(stampRandom), plain });
  await store.put(stampName, sealed, { mode: "create", reserve: true });
  await confirmStamp(kv, id, stampName);
  await addStorage(kv, id, { name, site, state: "in-use", addedMs: clock.now() });
}
