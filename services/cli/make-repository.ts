// Making a repository: key, metadata, storages, configuration. Nothing half-made stays behind when a step fails; the
// configuration comes last, so that what a killed process leaves is no repository yet.
import { open, readdir, rm, rmdir, unlink } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { createStorage, discardStorage, openStorage } from "#lib/drivers/storages.ts";
import { makeFolders } from "#lib/drivers/system/make-folders.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { KEY_FILE_MODE } from "#lib/repository/key-file.ts";
import { key } from "#lib/repository/keyspace.ts";
import type { AccessSecret } from "#lib/repository/access-key.ts";
import { sealKeys } from "#lib/repository/key-objects.ts";
import { createRepositoryKeys, type HashKeys } from "#lib/repository/keys.ts";
import { encodeRecord, METADATA_SCHEMA, type RepositoryRecord } from "#lib/repository/records.ts";
import { adoptAccessKeys } from "#lib/repository/transactions/access-keys.ts";
import { recordsOf } from "#lib/process/repository-keys.ts";
import { newStorageId, type Ports } from "#lib/repository/repository.ts";
import { createSealer } from "#lib/repository/sealing.ts";
import type { Config, StorageConfig } from "#lib/process/config-file.ts";
import type { WrapScheme } from "#proto/sealed-object.ts";
import { introduceStorage } from "./introduce-storage.ts";
import { makeMetadataFolder, writeKeyCopy } from "#lib/process/metadata-folder.ts";
import { openMetadataStore } from "#lib/process/metadata-store.ts";
import { Undo } from "./undo.ts";

const CONFIG_MODE = 0o644;

/** What a new repository is to be. */
export interface RepositoryPlan {
  readonly folder: string;
  /** The text of the configuration, and what it says. */
  readonly configText: string;
  readonly config: Config;
  readonly secret: AccessSecret;
  /** Where the key file goes, and its text; undefined with a passphrase. */
  readonly keyFile: { readonly path: string; readonly text: string } | undefined;
  readonly hash: HashKeys["hash"];
  readonly repositoryKey: WrapScheme;
}

/** Makes the repository; answers its identity. */
export function makeRepository(
  plan: RepositoryPlan,
  ports: Ports,
  signal: AbortSignal,
): Promise<{ readonly repository: string }> {
  return Undo.during(async (undo) => {
    await makeEmptyFolder(plan.folder, undo);
    if (plan.keyFile !== undefined) {
      await writeNewFile(plan.keyFile.path, plan.keyFile.text, KEY_FILE_MODE, undo);
    }
    const { compression, blockBytes } = plan.config.defaults;
    const keys = createRepositoryKeys({
      hash: plan.hash,
      compression,
      scheme: plan.repositoryKey,
    });
    const keyObject = await sealKeys(keys, plan.secret, {
      label: "",
      createdMs: ports.clock.now(),
    });
    const { metadata } = plan.config;
    undo.add(() => rm(metadata, { recursive: true, force: true }));
    await makeMetadataFolder(metadata);
    await writeKeyCopy(metadata, keyObject);
    const kv = await openMetadataStore(plan.config, ports);
    try {
      await writeRepositoryRecord(kv, {
        schema: METADATA_SCHEMA,
        repository: keys.repository,
        createdMs: ports.clock.now(),
        blockBytes,
        hash: plan.hash,
      });
      await adoptAccessKeys(kv, recordsOf([keyObject], keys.repository));
      const introduction = {
        ...ports,
        kv,
        repository: keys.repository,
        sealer: createSealer(keys, { compression }),
      };
      for (const storage of plan.config.storages) {
        signal.throwIfAborted();
        await makeStorage(storage, keys.repository, ports, undo, async (made) => {
          await introduceStorage(introduction, made);
        });
      }
    } finally {
      await kv.close();
    }
    signal.throwIfAborted();
    await writeNewFile(plan.config.file, plan.configText, CONFIG_MODE, undo);
    return { repository: keys.repository };
  });
}

/** Writes what holds for the whole repository. */
export function writeRepositoryRecord(kv: Kv, record: RepositoryRecord): Promise<void> {
  return kv.transact(async (tx) => {
    tx.set(key.config, encodeRecord(record));
    await Promise.resolve();
  });
}

/**
 * Makes a storage at its URL and hands it to `use`; closes it afterwards.
 * @param isKept whether it is to stay though something has failed
 */
export async function makeStorage(
  config: StorageConfig,
  repository: string,
  ports: Ports,
  undo: Undo,
  use: (made: Parameters<typeof introduceStorage>[1]) => Promise<void>,
  isKept: (id: StorageId) => Promise<boolean> = () => Promise.resolve(false),
): Promise<void> {
  const id = newStorageId(ports.random);
  await noteFolderOf(config.url, undo);
  const created = new Date(ports.clock.now()).toISOString();
  // Before: an answer may be lost. Nothing is taken back that counts already, whatever failed afterwards.
  undo.add(async () => {
    if (await isKept(id)) return;
    await discardStorage(config.url, id);
  });
  await createStorage(config.url, { format: 1, identity: id, repository, created });
  const { clock, random } = ports;
  const store = await openStorage(config.url, { identity: id, clock, random });
  try {
    await use({ id, name: config.name, site: config.site, store });
  } finally {
    await store.close();
  }
}

/** What is made in a file storage's folder goes again: the folder itself, or what comes into an empty one. */
async function noteFolderOf(url: string, undo: Undo): Promise<void> {
  if (!url.startsWith("file:")) return;
  const folder = fileURLToPath(url);
  const before = await entriesOf(folder);
  if (before === undefined) {
    undo.add(() => rm(folder, { recursive: true, force: true }));
    return;
  }
  // Somebody else's files: the driver refuses them, and they are left alone.
  if (before.length > 0) return;
  undo.add(async () => {
    for (const name of (await entriesOf(folder)) ?? []) {
      await rm(path.join(folder, name), { recursive: true, force: true });
    }
  });
}

/** The names in a folder; undefined where there is no such folder. */
async function entriesOf(folder: string): Promise<string[] | undefined> {
  try {
    return await readdir(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    if (code === "ENOTDIR") {
      throw new AshlarError(ErrorCode.AlreadyExists, `${folder} is there, and is no folder`);
    }
    throw fromSystemError(error, `looking into ${folder}`);
  }
}

/** Makes the folder with those above it, or takes one that is empty; AlreadyExists where something is in it. */
export async function makeEmptyFolder(folder: string, undo: Undo): Promise<void> {
  const entries = await entriesOf(folder);
  if (entries !== undefined && entries.length > 0) {
    throw new AshlarError(ErrorCode.AlreadyExists, `${folder} is not empty`, {
      remedy: "name a new folder, or an empty one",
    });
  }
  if (entries !== undefined) return;
  let first: string | undefined;
  try {
    first = makeFolders(folder, 0o777);
  } catch (error) {
    throw fromSystemError(error, `making the folder ${folder}`);
  }
  if (first === undefined) return;
  const topmost = path.resolve(first);
  undo.add(async () => {
    // Only empty ones go, from the inside out.
    for (let at = folder; at.startsWith(topmost); at = path.dirname(at)) await rmdir(at);
  });
}

/** Writes a file that must not exist, durably. */
export async function writeNewFile(
  file: string,
  text: string,
  mode: number,
  undo: Undo,
): Promise<void> {
  try {
    const handle = await open(file, "wx", mode);
    undo.add(() => unlink(file));
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    const folder = await open(path.dirname(file), "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch (error) {
    throw fromSystemError(error, `writing ${file}`);
  }
}
