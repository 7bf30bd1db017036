// The metadata folder: the LMDB store, the locks of the processes that work with it, and copies of the key objects, so that
// keys open while a storage is away.
import { randomBytes } from "node:crypto";
import { open, readdir, readFile, rename, stat } from "node:fs/promises";
import path from "node:path";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { openLmdbKv } from "#lib/drivers/lmdb/lmdb-kv.ts";
import { makeFolders } from "#lib/drivers/system/make-folders.ts";
import { isLockHeld, takeProcessLock, type ProcessLock } from "#lib/drivers/system/process-lock.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { key } from "#lib/repository/keyspace.ts";
import type { StoredKeyObject } from "#lib/repository/keys.ts";
import { decodeRecord, METADATA_SCHEMA, type RepositoryRecord } from "#lib/repository/records.ts";

/** Only the owner may read it: names of volumes and what they contain are in it. */
const FOLDER_MODE = 0o700;
const FILE_MODE = 0o600;
const KEY_NAME = /^[0-9a-f]{16}$/;
const LOCK_NAME = /^[0-9a-z-]{1,64}$/;

/** Where the parts of a metadata folder are. */
export function metadataPaths(folder: string): {
  readonly kv: string;
  readonly locks: string;
  readonly keys: string;
} {
  return {
    kv: path.join(folder, "kv"),
    locks: path.join(folder, "locks"),
    keys: path.join(folder, "keys"),
  };
}

/** Makes the folders of new metadata. */
export async function makeMetadataFolder(folder: string): Promise<void> {
  const { kv, locks, keys } = metadataPaths(folder);
  try {
    for (const each of [folder, kv, locks, keys]) {
      makeFolders(each, FOLDER_MODE);
    }
  } catch (error) {
    throw fromSystemError(error, `making the metadata folder ${folder}`);
  }
}

/** Opens the store of a metadata folder that exists; the remedy for one that does not is a rebuild. */
export async function openMetadata(
  folder: string,
  ports: { readonly clock: Clock; readonly random: Random },
): Promise<{ readonly kv: Kv; readonly record: RepositoryRecord }> {
  const { kv: store } = metadataPaths(folder);
  try {
    await stat(path.join(store, "data.mdb"));
  } catch (error) {
    throw missingMetadata(folder, error);
  }
  const kv = await openLmdbKv({ path: store, ...ports });
  try {
    return { kv, record: await readRepositoryRecord(kv, folder) };
  } catch (error) {
    await kv.close();
    throw error;
  }
}

function missingMetadata(folder: string, cause: unknown): AshlarError {
  const error = fromSystemError(cause, `opening the metadata in ${folder}`);
  if (error.code !== ErrorCode.NotFound) return error;
  return new AshlarError(ErrorCode.Unavailable, `there are no metadata in ${folder}`, {
    cause,
    remedy:
      "mount it if it is not mounted; if it is lost, `ashlar rebuild DIR --from URL` makes it again from a storage",
  });
}

/** What the metadata say of the repository. */
export async function readRepositoryRecord(kv: Kv, folder: string): Promise<RepositoryRecord> {
  const value = await kv.read((reader) => reader.get(key.config));
  if (value === undefined) {
    throw new AshlarError(ErrorCode.Unavailable, `the metadata in ${folder} are empty`, {
      remedy: "an `init` or `rebuild` did not come to its end: remove the folder and run it again",
    });
  }
  const record = decodeRecord<RepositoryRecord>(value);
  if (record.schema > METADATA_SCHEMA) {
    throw new AshlarError(
      ErrorCode.Refused,
      `the metadata in ${folder} are of schema ${record.schema}; this Ashlar knows ${METADATA_SCHEMA}`,
      { remedy: "use the newer Ashlar" },
    );
  }
  return record;
}

/** The copies of key objects that the folder has; none where there is no such folder. */
export async function readKeyCopies(folder: string): Promise<StoredKeyObject[]> {
  const { keys } = metadataPaths(folder);
  let names: string[];
  try {
    names = (await readdir(keys)).filter((name) => KEY_NAME.test(name));
  } catch {
    return [];
  }
  return Promise.all(
    names.map(async (name) => ({
      name: `keys/${name}`,
      bytes: await readFile(path.join(keys, name)),
    })),
  );
}

/** Keeps a copy of a key object, replacing an earlier one whole. */
export async function writeKeyCopy(folder: string, object: StoredKeyObject): Promise<void> {
  const { keys } = metadataPaths(folder);
  const file = path.join(keys, path.basename(object.name));
  try {
    makeFolders(keys, FOLDER_MODE);
    const temporary = `${file}.${randomBytes(4).toString("hex")}.tmp`;
    const handle = await open(temporary, "wx", FILE_MODE);
    try {
      await handle.writeFile(object.bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    throw fromSystemError(error, `writing the copy of a key object ${file}`);
  }
}

/** Takes a lock that tells other processes that this one lives; its name goes into session records. */
export function takeOwnLock(folder: string): { readonly name: string; readonly lock: ProcessLock } {
  const name = `${process.pid}-${randomBytes(6).toString("hex")}`;
  return { name, lock: takeProcessLock(lockPath(folder, name)) };
}

/** Whether the process that took the lock of that name is still there. */
export function isOwnLockHeld(folder: string, name: string): boolean {
  // The name comes out of a record; anything else than a file in this folder is nobody's lock.
  return LOCK_NAME.test(name) && isLockHeld(lockPath(folder, name));
}

/** How many other processes work with the metadata now, as far as they took a lock. */
export async function countOtherProcesses(folder: string, own?: string): Promise<number> {
  const names = await readdir(metadataPaths(folder).locks).catch(() => []);
  return names.filter((file) => {
    const name = path.basename(file, ".lock");
    return name !== own && isOwnLockHeld(folder, name);
  }).length;
}

function lockPath(folder: string, name: string): string {
  return path.join(metadataPaths(folder).locks, `${name}.lock`);
}
