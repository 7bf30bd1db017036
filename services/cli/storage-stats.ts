// What is on storages: objects and bytes by folder, since when all were verified, and, where that is asked for, what lies under which
// repository key. Counted by looking: metadata know none of it of what they do not know.
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { formatSize } from "#lib/core/size.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { AttachedStorage } from "#lib/repository/storages.ts";
import { listVerify } from "#lib/repository/transactions/verify.ts";
import { FormatError } from "#proto/format-error.ts";
import { ObjectFolder } from "#proto/object-names.ts";
import { keyIdAtStart, KEY_ID_END } from "#proto/sealed-object.ts";
import { forEachBounded } from "#services/writer/bounded.ts";
import type { Engine } from "./compose.ts";
import { formatTable } from "./output.ts";

interface FolderStats {
  objects: number;
  bytes: number;
}

/** Objects under one repository key. */
export interface KeyStats {
  /** Id of the repository key. */
  readonly id: string;
  /** `unknown`: the access key in use does not open it. */
  readonly state: "active" | "retired" | "unknown";
  readonly objects: number;
}

/** What is on a storage. */
export interface StorageStats {
  readonly name: string;
  /** All that is placed there was verified since, as ISO 8601; null where nothing is. */
  readonly verifiedSince: string | null;
  readonly objects: number;
  readonly bytes: number;
  readonly folders: Readonly<Record<string, FolderStats>>;
  /** Objects by the repository key that they are under; only where that was asked for. */
  readonly keys?: readonly KeyStats[];
  /** Objects of which that cannot be told: damaged, or of a newer Ashlar. */
  readonly unreadable?: number;
}

/**
 * Counts what is on the storages, or on one.
 * @param countsKeys by repository key as well, which reads the start of every object
 * @throws Unavailable where none is there, NotFound for a name that none has
 */
export async function measureStorages(
  engine: Engine,
  name: string | undefined,
  countsKeys: boolean,
): Promise<StorageStats[]> {
  const { set } = await engine.storages();
  const storages = name === undefined ? set.list() : [set.byName(name)];
  const out: StorageStats[] = [];
  for (const storage of storages) {
    if (storage.store instanceof AshlarError) {
      if (name !== undefined) throw storage.store;
      engine.context.log.warn(`storage ${storage.name} is away: ${storage.store.message}`);
      continue;
    }
    const counted = await measureFolders(storage.store, engine.context.signal);
    const keys = countsKeys ? await measureKeys(engine, storage, storage.store) : {};
    const [oldest] = (await listVerify(engine.kv, storage.id, undefined, 1)).copies;
    const verifiedSince = oldest === undefined ? null : new Date(oldest.lastMs).toISOString();
    out.push({ name: storage.name, verifiedSince, ...counted, ...keys });
  }
  if (out.length === 0) {
    throw new AshlarError(ErrorCode.Unavailable, "no storage is there", {
      remedy: "`ashlar storage ls` tells why",
    });
  }
  return out;
}

async function measureFolders(
  store: BlobStore,
  signal: AbortSignal,
): Promise<Pick<StorageStats, "objects" | "bytes" | "folders">> {
  const folders: Record<string, FolderStats> = {};
  for (const [folder, prefix] of Object.entries(ObjectFolder)) {
    const stats: FolderStats = { objects: 0, bytes: 0 };
    folders[folder] = stats;
    for await (const { sizeBytes } of store.list(prefix, { signal })) {
      stats.objects += 1;
      stats.bytes += sizeBytes;
    }
  }
  const all = Object.values(folders);
  return {
    objects: all.reduce((sum, { objects }) => sum + objects, 0),
    bytes: all.reduce((sum, { bytes }) => sum + bytes, 0),
    folders,
  };
}

/** What is worth wrapping anew. Stamps stay as they were made: they hold random numbers. Key objects hold the keys. */
const KEPT_FOLDERS = [ObjectFolder.blocks, ObjectFolder.nodes, ObjectFolder.heads];

async function measureKeys(
  engine: Engine,
  { readsMax }: AttachedStorage,
  store: BlobStore,
): Promise<Required<Pick<StorageStats, "keys" | "unreadable">>> {
  const { signal } = engine.context;
  const { keys } = (await engine.keyring()).opened;
  const counts = new Map<string, number>([...keys.repositoryKeys.keys()].map((id) => [id, 0]));
  let unreadable = 0;
  const look = async (name: string): Promise<void> => {
    try {
      const start = await store.get(name, { range: { offset: 0, length: KEY_ID_END }, signal });
      const id = keyIdAtStart(start);
      counts.set(id, (counts.get(id) ?? 0) + 1);
    } catch (error) {
      if (isErrorCode(error, ErrorCode.NotFound)) return;
      const isUnreadable = error instanceof FormatError || isErrorCode(error, ErrorCode.Damaged);
      if (!isUnreadable) throw error;
      unreadable += 1;
    }
  };
  for (const folder of KEPT_FOLDERS) {
    const listing = store.list(folder, { signal });
    await forEachBounded(listing, readsMax, ({ name }) => look(name), signal);
  }
  const stateOf = (id: string): KeyStats["state"] => {
    if (id === keys.activeKeyId) return "active";
    return keys.repositoryKeys.has(id) ? "retired" : "unknown";
  };
  return {
    keys: [...counts].map(([id, objects]) => ({ id, state: stateOf(id), objects })),
    unreadable,
  };
}

/** For people. */
export function statsTable(stats: readonly StorageStats[]): string[] {
  const right = "right" as const;
  const table = formatTable(
    [
      { head: "storage" },
      { head: "objects", align: right },
      { head: "bytes", align: right },
      ...Object.keys(ObjectFolder).map((head) => ({ head, align: right })),
      { head: "all verified since" },
    ],
    stats.map(({ name, objects, bytes, folders, verifiedSince }) => [
      name,
      String(objects),
      formatSize(bytes),
      ...Object.values(folders).map((each) => `${each.objects} (${formatSize(each.bytes)})`),
      verifiedSince?.slice(0, 16).replace("T", " ") ?? "",
    ]),
  );
  const keys = stats.flatMap(({ name, keys: each = [], unreadable = 0 }) => [
    ...each.map(({ id, state, objects }) => [name, id, state, String(objects)]),
    ...(unreadable > 0 ? [[name, "", "unreadable", String(unreadable)]] : []),
  ]);
  if (keys.length === 0) return table;
  const heads = [{ head: "storage" }, { head: "repository key" }, { head: "state" }];
  return [...table, "", ...formatTable([...heads, { head: "objects", align: right }], keys)];
}
