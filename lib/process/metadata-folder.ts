// The metadata folder: the LMDB store where there is no cluster, the locks of this host's processes, and copies of the key objects,
// so that keys open while a storage is away.
import { randomBytes } from "node:crypto";
import { open, readdir, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";
import { AshlarError, fromSystemError } from "#lib/core/errors.ts";
import { makeFolders } from "#lib/drivers/system/make-folders.ts";
import { isLockHeld, takeProcessLock, type ProcessLock } from "#lib/drivers/system/process-lock.ts";
import type { Log } from "#lib/ports/log.ts";
import type { StoredKeyObject } from "#lib/repository/key-objects.ts";
import type { AccessKeySet } from "#lib/repository/transactions/access-keys.ts";
import { keyObjectName } from "#proto/object-names.ts";

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

/**
 * Makes the copies those of the access keys that the metadata have. The folder is this host's own, and its copies only serve
 * processes of the first release: so a failure is told, and stops nobody.
 */
export async function followKeyCopies(
  folder: string,
  { entries }: AccessKeySet,
  log: Log,
): Promise<void> {
  try {
    const copies = await readKeyCopies(folder);
    const bytesOf = new Map(copies.map(({ name, bytes }) => [name, bytes]));
    for (const { accessId, record } of entries) {
      const name = keyObjectName(accessId);
      const copy = bytesOf.get(name);
      if (record.object === undefined) {
        if (copy !== undefined) await rm(path.join(metadataPaths(folder).keys, accessId));
      } else if (copy === undefined || !record.object.equals(copy)) {
        await writeKeyCopy(folder, { name, bytes: record.object });
      }
    }
  } catch (error) {
    const reason = fromSystemError(error, `renewing the copies of key objects in ${folder}`);
    if (!(reason instanceof AshlarError)) throw reason;
    log.warn(reason.message);
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
