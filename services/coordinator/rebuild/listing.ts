// First, a rebuild lists the given storages into its own records: objects by id, heads by version. Stamps are few.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import { range } from "#lib/repository/keyspace.ts";
import { BATCH_MAX } from "#lib/repository/ledger.ts";
import { ObjectFolder, parseObjectName } from "#proto/object-names.ts";
import { encodeSize, rebuildKey } from "./keyspace.ts";
import type { RebuildRun } from "./run.ts";

/** The stamps that the storages show, by storage. */
export type ListedStamps = ReadonlyMap<StorageId, ReadonlySet<string>>;

interface Entry {
  readonly key: Buffer;
  readonly value: Buffer;
}

const EMPTY = Buffer.alloc(0);

/**
 * Lists everything at all given storages. Stamps come first: one that is put later, by a process that still runs, stays
 * unknown, and so it is noticed.
 */
export async function listStorages(run: RebuildRun): Promise<ListedStamps> {
  const stamps = new Map<StorageId, Set<string>>();
  for (const { identity, store } of run.request.stores) {
    const names = new Set<string>();
    for await (const { name } of listing(run, store, ObjectFolder.stamps)) {
      if (parseObjectName(name)?.type === "stamp") names.add(name);
    }
    stamps.set(identity, names);
    await listInto(run, identity, store, ObjectFolder.heads);
    await listInto(run, identity, store, ObjectFolder.nodes);
    await listInto(run, identity, store, ObjectFolder.blocks);
  }
  await nameVersions(run);
  return stamps;
}

function listing(run: RebuildRun, store: BlobStore, folder: string): ReturnType<BlobStore["list"]> {
  const { signal } = run.request;
  return store.list(folder, signal === undefined ? {} : { signal });
}

async function listInto(
  run: RebuildRun,
  storage: StorageId,
  store: BlobStore,
  folder: string,
): Promise<void> {
  let batch: Entry[] = [];
  let done = 0;
  const flush = async (): Promise<void> => {
    await putAll(run, batch);
    done += batch.length;
    batch = [];
    run.progress(`listing ${run.nameOf(storage)}`, done);
  };
  for await (const { name, sizeBytes } of listing(run, store, folder)) {
    const entry = entryOf(run, storage, name, sizeBytes);
    if (entry === undefined) continue;
    batch.push(entry);
    if (batch.length === BATCH_MAX) await flush();
  }
  await flush();
}

/** The record of a listed name; undefined for a name that Ashlar does not give. */
function entryOf(
  run: RebuildRun,
  storage: StorageId,
  name: string,
  sizeBytes: number,
): Entry | undefined {
  const parsed = parseObjectName(name);
  switch (parsed?.type) {
    case "block":
    case "node": {
      run.tally(storage, "objects");
      const [id, generation] = [parsed.id as BlockId, parsed.generation as Generation];
      return {
        key: rebuildKey.object(parsed.type, id, storage, generation),
        value: encodeSize(sizeBytes),
      };
    }
    case "head":
      run.tally(storage, "heads");
      return {
        key: rebuildKey.head(parsed.hash, parsed.revision, storage, parsed.random),
        value: EMPTY,
      };
    case "stamp":
    case "key":
    case undefined:
      return undefined;
  }
}

async function putAll(run: RebuildRun, batch: readonly Entry[]): Promise<void> {
  if (batch.length === 0) return;
  await run.transact(async (tx) => {
    for (const { key, value } of batch) tx.set(key, value);
    await Promise.resolve();
  });
}

/** Notes which version the metadata know a head's hash of: a head that cannot be read does not tell. */
async function nameVersions(run: RebuildRun): Promise<void> {
  await run.eachPage("listing versions", range.versions(), BATCH_MAX, (entries) =>
    putAll(
      run,
      entries.map(({ key: at }) => {
        // Of the key: the record itself may be unreadable.
        const value = at.subarray(range.versions().start.length);
        return { key: rebuildKey.uid(run.hasher.headName(value.toString("utf8"))), value };
      }),
    ),
  );
}

/** Whether an object of more than so many bytes is at a storage, whatever its listing says. */
export async function isAtStorage(store: BlobStore, name: string, bytesMin = 0): Promise<boolean> {
  try {
    return (await store.stat(name)).sizeBytes > bytesMin;
  } catch (error) {
    if (error instanceof AshlarError && error.code === ErrorCode.NotFound) return false;
    throw error;
  }
}
