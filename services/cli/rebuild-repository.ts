// Making metadata again from storages: in a new folder, or in the place of those that are there.
import { hostname } from "node:os";
import path from "node:path";
import { existsSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { openStorage, readStorageMarker } from "#lib/drivers/storages.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { AccessSecret } from "#lib/repository/access-key.ts";
import {
  openKeyObject,
  type OpenedKeys,
  type StoredKeyObject,
} from "#lib/repository/key-objects.ts";
import { refusedToWriters } from "#lib/repository/key-wrap.ts";
import { canOpen } from "#lib/repository/keys.ts";
import { mergeAccessKeys } from "#lib/repository/merge-access-keys.ts";
import { readAccessKeys, type AccessKeySet } from "#lib/repository/transactions/access-keys.ts";
import { decorateStorage } from "#lib/process/decorate-storage.ts";
import { bringInLine } from "#lib/process/key-folder.ts";
import { keyObjectsOf } from "#lib/process/keyring.ts";
import type { Ports } from "#lib/repository/repository.ts";
import { rebuild } from "#services/coordinator/rebuild/rebuild.ts";
import type {
  RebuildProgress,
  RebuildResult,
  RebuildStore,
} from "#services/coordinator/rebuild/run.ts";
import { systemPorts } from "#lib/process/open-repository.ts";
import {
  absoluteUrl,
  CONFIG_FILE_NAME,
  parseConfig,
  type Config,
  type StorageConfig,
} from "#lib/process/config-file.ts";
import { BLOCK_BYTES_DEFAULT } from "#lib/process/config-schema.ts";
import type { CommandContext } from "./context.ts";
import { makeEmptyFolder, writeNewFile } from "./make-repository.ts";
import {
  countOtherProcesses,
  followKeyCopies,
  makeMetadataFolder,
  readKeyCopies,
  takeOwnLock,
  writeKeyCopy,
} from "#lib/process/metadata-folder.ts";
import {
  metadataUrl,
  openMetadata,
  openMetadataStore,
  readRepositoryRecord,
} from "#lib/process/metadata-store.ts";
import { urlWithin, within } from "./paths.ts";
import { renderConfig } from "./render-config.ts";
import { configuredSecret, readKeyObjects, recordsOf } from "#lib/process/repository-keys.ts";
import { Undo } from "./undo.ts";

/** Lies in the folder until the rebuild has come to its end: so that it can be run again after it was killed. */
const UNFINISHED_NAME = ".ashlar-rebuild";
const CONFIG_MODE = 0o644;

/** What a rebuild in a new folder is given. */
export interface NewRebuild {
  readonly folder: string;
  /** `URL` or `NAME=URL`. */
  readonly from: readonly string[];
  readonly keyFile: string | undefined;
  readonly passphraseFile: string | undefined;
  readonly blockBytes: number | undefined;
  readonly quorum: number;
  readonly onProgress: (progress: RebuildProgress) => void;
}

interface NamedUrl {
  readonly name: string;
  readonly url: string;
}

/** Makes metadata and a configuration in a new folder. */
export async function rebuildNew(
  context: CommandContext,
  request: NewRebuild,
): Promise<RebuildResult> {
  const { folder } = request;
  const ports = systemPorts(context);
  const storages = nameStorages(request.from, context.cwd);
  const { config } = planConfig(context, request, storages);
  const stores = await openStores(config.storages, ports);
  try {
    const repository = await sameRepository(storages);
    const keyObjects = await readKeyObjects(stores.map(({ store }) => store));
    const opened = await openFullKeys(keyObjects, await configuredSecret(request, context));
    const { keys } = opened;
    if (keys.repository !== repository) throw foreignKeys(repository);
    await Undo.during(async (undo) => {
      // A folder of a rebuild that was stopped is gone on with.
      if (!isUnfinished(folder)) await makeEmptyFolder(folder, undo);
      await writeFile(path.join(folder, UNFINISHED_NAME), "");
      undo.add(() => rm(path.join(folder, UNFINISHED_NAME)));
      await makeMetadataFolder(config.metadata);
      undo.add(() => rm(config.metadata, { recursive: true }));
      for (const object of keyObjects) await writeKeyCopy(config.metadata, object);
    });
    const kv = await openMetadataStore(config, ports);
    let result: RebuildResult;
    let text: string;
    try {
      await takeAccessKeys(context, kv, opened, keyObjects, stores);
      result = await rebuild({
        ...ports,
        kv,
        keys,
        stores,
        fresh: true,
        blockBytes: config.defaults.blockBytes,
        signal: context.signal,
        onProgress: request.onProgress,
      });
      // New backups find the blocks of the old ones only if they cut them to the same size.
      const { blockBytes } = await readRepositoryRecord(kv, metadataUrl(config));
      const cut = { ...request, blockBytes: request.blockBytes ?? blockBytes };
      text = planConfig(context, cut, storages).text;
    } finally {
      await kv.close();
    }
    await Undo.during((undo) => writeNewFile(config.file, text, CONFIG_MODE, undo));
    await rm(path.join(folder, UNFINISHED_NAME), { force: true });
    return result;
  } finally {
    for (const { store } of stores) await store.close();
  }
}

function isUnfinished(folder: string): boolean {
  return (
    existsSync(path.join(folder, UNFINISHED_NAME)) &&
    !existsSync(path.join(folder, CONFIG_FILE_NAME))
  );
}

/** Reconciles the configured repository with storages of its configuration: by name or URL; all unless given. */
export async function rebuildConfigured(
  context: CommandContext,
  config: Config,
  from: readonly string[],
  onProgress: (progress: RebuildProgress) => void,
): Promise<RebuildResult> {
  const ports = systemPorts(context);
  const storages = chooseStorages(config, from, context.cwd);
  const { kv } = await openMetadata(config, ports);
  const { name: own, lock } = takeOwnLock(config.metadata);
  let stores: RebuildStore[] = [];
  try {
    await refuseOthers(config.metadata, own);
    stores = await openStores(storages, ports);
    await sameRepository(storages);
    const copies = await readKeyCopies(config.metadata);
    const objects = await readKeyObjects(stores.map(({ store }) => store));
    const all: StoredKeyObject[] = [...copies, ...objects];
    const known = await readAccessKeys(kv);
    all.push(...keyObjectsOf(known));
    const opened = await openFullKeys(all, await configuredSecret(config, context));
    const { keys } = opened;
    const set = await takeAccessKeys(context, kv, opened, all, stores);
    await followKeyCopies(config.metadata, set, context.log);
    return await rebuild({
      ...ports,
      kv,
      keys,
      stores,
      fresh: false,
      signal: context.signal,
      onProgress,
    });
  } finally {
    for (const { store } of stores) await store.close();
    lock.release();
    await kv.close();
  }
}

/** The newest keys that the objects and the secret give. */
async function openFullKeys(
  objects: readonly StoredKeyObject[],
  secret: AccessSecret,
): Promise<OpenedKeys> {
  const opened = await openKeyObject(objects, secret);
  if (!canOpen(opened.keys)) throw refusedToWriters("the metadata cannot be made");
  return opened;
}

/** Takes the access keys that the storages have, and has all of the storages have them before anything else is put there. */
async function takeAccessKeys(
  context: CommandContext,
  kv: Kv,
  { keys, object: { accessId: opener } }: OpenedKeys,
  found: readonly StoredKeyObject[],
  stores: readonly RebuildStore[],
): Promise<AccessKeySet> {
  const entries = found.flatMap((object) => recordsOf([object], keys.repository));
  const { set, forged } = await mergeAccessKeys(kv, keys, entries, opener);
  for (const accessId of forged) {
    context.log.warn(
      `key object keys/${accessId} was left out: nobody with all keys vouches for it`,
    );
  }
  for (const { store } of stores) await bringInLine(store, set, { isRebuild: true });
  return set;
}

async function refuseOthers(metadata: string, own: string): Promise<void> {
  const others = await countOtherProcesses(metadata, own);
  if (others === 0) return;
  throw new AshlarError(
    ErrorCode.TryAgain,
    `${others} other ${others === 1 ? "process works" : "processes work"} with this repository`,
    { remedy: "stop them first: a rebuild must be alone" },
  );
}

function nameStorages(from: readonly string[], cwd: string): NamedUrl[] {
  return from.map((text, index) => {
    const [, given, rest] = /^([a-zA-Z0-9][-a-zA-Z0-9_.]{0,62})=(.+)$/.exec(text) ?? [];
    const url = absoluteUrl(
      rest ?? text,
      cwd,
      (message) => new AshlarError(ErrorCode.Usage, message),
    );
    return { name: given ?? (index === 0 ? "main" : `storage${index + 1}`), url };
  });
}

function chooseStorages(
  config: Config,
  from: readonly string[],
  cwd: string,
): readonly StorageConfig[] {
  if (from.length === 0) return config.storages;
  return from.map((text) => {
    const fail = (message: string): AshlarError => new AshlarError(ErrorCode.Usage, message);
    const found =
      config.storages.find(({ name }) => name === text) ??
      config.storages.find(({ url }) => url === absoluteUrl(text, cwd, fail));
    if (found !== undefined) return found;
    throw new AshlarError(ErrorCode.NotFound, `the configuration has no storage ${text}`, {
      remedy: `add it to \`storages\` in ${config.file} first`,
    });
  });
}

function planConfig(
  context: CommandContext,
  request: NewRebuild,
  storages: readonly NamedUrl[],
): { readonly text: string; readonly config: Config } {
  const { folder } = request;
  const short = (file: string | undefined): string | undefined =>
    file === undefined ? undefined : within(file, folder);
  const text = renderConfig({
    metadata: "metadata",
    keyFile: short(request.keyFile),
    passphraseFile: short(request.passphraseFile),
    blockBytes: request.blockBytes ?? BLOCK_BYTES_DEFAULT,
    compression: "zstd",
    quorum: request.quorum,
    storages: storages.map(({ name, url }) => ({ name, url: urlWithin(url, folder) })),
  });
  const { env, cwd } = context;
  const file = path.join(folder, CONFIG_FILE_NAME);
  return { text, config: parseConfig(text, file, { env, cwd, hostname: hostname() }) };
}

/** Opens them, with the limits that the configuration sets. */
async function openStores(
  storages: readonly StorageConfig[],
  ports: Ports,
): Promise<RebuildStore[]> {
  const stores: RebuildStore[] = [];
  try {
    for (const config of storages) {
      const { name, url, site } = config;
      const { identity } = await readStorageMarker(url);
      const { clock, random } = ports;
      const opened = await openStorage(url, { identity, clock, random });
      stores.push({
        identity,
        name,
        site,
        store: decorateStorage(opened, config, identity, ports),
      });
    }
    return stores;
  } catch (error) {
    for (const { store } of stores) await store.close();
    throw error;
  }
}

/** All storages are of one repository; answers its identity. */
async function sameRepository(storages: readonly NamedUrl[]): Promise<string> {
  const markers = await Promise.all(storages.map(({ url }) => readStorageMarker(url)));
  const repositories = new Set(markers.map(({ repository }) => repository));
  const [only, another] = repositories;
  if (only !== undefined && another === undefined) return only;
  throw new AshlarError(ErrorCode.Refused, "the storages are of different repositories", {
    remedy: "rebuild each repository for itself",
  });
}

function foreignKeys(repository: string): AshlarError {
  return new AshlarError(
    ErrorCode.Refused,
    `the key opens another repository than ${repository}, which the storages say they belong to`,
  );
}
