// Making a storage known to a repository, and the repository to it: keys, then the first stamp, then the record by which it
// counts (DESIGN §4.10, §5).
import type { StorageId } from "#lib/core/ids.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { bringInLine } from "#lib/process/key-folder.ts";
import type { Ports } from "#lib/repository/repository.ts";
import type { Sealer } from "#lib/repository/sealing.ts";
import { readAccessKeys, type AccessKeySet } from "#lib/repository/transactions/access-keys.ts";
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
  readonly sealer: Sealer;
}

/** Introduces a storage; afterwards it counts. */
export async function introduceStorage(to: Introduction, storage: NewStorage): Promise<void> {
  const { kv, clock, random } = to;
  const { id, name, site, store } = storage;
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
  // After sealing: whatever repository key that was under, its key objects are there before it.
  // What a storage locks could not be taken back with it: the first run that extends locks makes up for that.
  await bringInLine(store, await requireAccessKeys(kv), { unlocked: true });
  await store.put(stampName, sealed, { mode: "create", reserve: true, unlocked: true });
  await confirmStamp(kv, id, stampName);
  const lock =
    store.locking === undefined
      ? {}
      : { lockMs: store.locking.periodMs, lockMode: store.locking.mode };
  await addStorage(kv, id, { name, site, state: "in-use", addedMs: clock.now(), ...lock });
}

async function requireAccessKeys(kv: Kv): Promise<AccessKeySet> {
  const set = await readAccessKeys(kv);
  if (set.version > 0) return set;
  throw new AshlarError(ErrorCode.TryAgain, "the metadata do not have the access keys yet", {
    remedy: "make room on the disk of the metadata, and run it again",
  });
}
