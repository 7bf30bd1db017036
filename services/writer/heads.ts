// Heads (DESIGN §3, §4.3, §4.10): what makes a version restorable from a storage alone. A head's name is recorded before the
// head is put, so that the storage never shows one that its KV does not know.
import { assert } from "#lib/core/assert.ts";
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import { headHash, headPrefix } from "#lib/repository/head-names.ts";
import { key } from "#lib/repository/keyspace.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { repositoryKeyOf } from "#lib/repository/sealing.ts";
import type { HeadsOutcome } from "#lib/repository/upkeep.ts";
import {
  confirmHead,
  hasHead,
  listOwedHeads,
  planHead,
} from "#lib/repository/transactions/heads.ts";
import { countOwed } from "#lib/repository/transactions/storage.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { encodeHead, type Head } from "#proto/head.ts";
import { headObjectName } from "#proto/object-names.ts";
import { asAway } from "./away.ts";
import { forEachBounded } from "./bounded.ts";
import { countingStorages } from "./counting-storages.ts";
import { ensureGuarded } from "./guard.ts";

/** Which owed heads are to be put. */
export interface OwedHeads {
  /** Of this version; default: of all. */
  readonly uid?: VersionUid;
  /** At this storage; default: at all that count. */
  readonly storage?: StorageId;
  readonly signal?: AbortSignal;
}

const DISABLED = "the storage is disabled, so it gets nothing";

/** Heads of one storage that are put at once: each is small, and waits for the storage and a flush. */
const PARALLEL = 8;
const STEP = 256;

/** Counting what stays owed stops here. */
const COUNT_MAX = 10_000;

/**
 * Puts owed heads where their root is placed (a last revision everywhere). A storage that is away, or disabled, stays
 * owed, with the reason. Refused when a storage and the metadata do not know each other.
 */
export async function putOwedHeads(
  repo: Repository,
  which: OwedHeads = {},
): Promise<HeadsOutcome[]> {
  const { ids, counting } = await storagesOf(repo, which);
  const owing: StorageId[] = [];
  for (const id of counting) if ((await countHeads(repo, id, which.uid)) > 0) owing.push(id);
  const { away } = await ensureGuarded(repo, owing, which.signal);
  return Promise.all(
    ids.map(async (storage): Promise<HeadsOutcome> => {
      const error = away.find((entry) => entry.storage === storage)?.error;
      const whyNot = counting.includes(storage) ? error?.message : DISABLED;
      const { put, reason } =
        whyNot === undefined ? await putAt(repo, storage, which) : { put: 0, reason: whyNot };
      const owed = await countHeads(repo, storage, which.uid);
      return {
        storage,
        put,
        owed,
        hasHead:
          which.uid !== undefined &&
          (await hasHead(repo.kv, storage, headPrefix(repo.keys, which.uid))),
        failed: reason !== undefined,
        reason: reason ?? (owed > 0 ? "what the head names is not there yet" : undefined),
      };
    }),
  );
}

/** One storage; or the version's, or all, as far as they count; and those of them that do. */
async function storagesOf(
  repo: Repository,
  { uid, storage }: OwedHeads,
): Promise<{ readonly ids: readonly StorageId[]; readonly counting: readonly StorageId[] }> {
  const version =
    uid === undefined ? undefined : await repo.kv.read((reader) => readVersion(reader, uid));
  const all = await countingStorages(repo.kv);
  if (storage !== undefined) {
    return { ids: [storage], counting: all.filter((id) => id === storage) };
  }
  const ids =
    version === undefined ? all : all.filter((id) => version.policy.storages.includes(id));
  return { ids, counting: ids };
}

function countHeads(
  repo: Repository,
  storage: StorageId,
  uid: VersionUid | undefined,
): Promise<number> {
  if (uid !== undefined) {
    return repo.kv.read(async (reader) =>
      (await reader.get(key.owedHead(storage, uid))) === undefined ? 0 : 1,
    );
  }
  return countOwed(repo.kv, storage, COUNT_MAX).then(({ heads }) => heads);
}

async function putAt(
  repo: Repository,
  storage: StorageId,
  { uid, signal }: OwedHeads,
): Promise<{ readonly put: number; readonly reason: string | undefined }> {
  let put = 0;
  const uids = uid === undefined ? owedUids(repo, storage) : [uid];
  try {
    await forEachBounded(
      uids,
      PARALLEL,
      async (each) => {
        if (await putOne(repo, storage, each, signal)) put += 1;
      },
      signal,
    );
    return { put, reason: undefined };
  } catch (error) {
    signal?.throwIfAborted();
    return { put, reason: asAway(error).message };
  }
}

async function* owedUids(repo: Repository, storage: StorageId): AsyncGenerator<VersionUid> {
  let from: Buffer | undefined;
  do {
    const page = await listOwedHeads(repo.kv, storage, from, STEP);
    yield* page.uids;
    from = page.next;
  } while (from !== undefined);
}

async function putOne(
  repo: Repository,
  storage: StorageId,
  uid: VersionUid,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const hash = headHash(repo.keys, uid);
  // Outside the transaction: one that is run again after an unknown result records the same name.
  const random = repo.random.bytes(8).toString("hex");
  const planned = await planHead(repo.kv, storage, uid, (version) =>
    headObjectName(hash, version.revision, random),
  );
  if (planned === undefined) return false;
  const plain = encodeHead(headOf(planned.version));
  const sealed = repo.sealer.seal({ kind: "head", id: hash, plain });
  const putMs = repo.clock.now();
  await repo.storages.put(storage, planned.name, sealed, {
    reserve: true,
    ...(signal === undefined ? {} : { signal }),
  });
  await confirmHead(repo.kv, storage, {
    name: planned.name,
    prefix: headPrefix(repo.keys, uid),
    putMs,
    keyId: repositoryKeyOf(sealed),
  });
  return true;
}

/** The head of a version as it is now. */
export function headOf(version: VersionRecord): Head {
  assert(version.state !== "incomplete", "only a finished version has a head");
  const removed = version.state === "removed";
  return {
    uid: version.uid,
    revision: version.revision,
    removed,
    volume: version.volume,
    snapshot: version.snapshot,
    createdMs: version.createdMs,
    sizeBytes: version.sizeBytes,
    blockBytes: version.blockBytes,
    levels: version.levels,
    // A last revision names no root, so it can go where the tree never was.
    root: removed ? undefined : version.root,
    labels: version.labels,
    protected: version.protected,
    statistics: { ...version.statistics },
    policy: version.policy,
    source: version.source,
    warnings: version.warnings,
  };
}
