// Opening the repository's keys with what the user has. A wrong key is refused here, before anything is read or written.
import { availableParallelism } from "node:os";
import { AshlarError, ErrorCode, isErrorCode, isNoSpace } from "#lib/core/errors.ts";
import { createWorkerCompute } from "#lib/drivers/compute/worker-compute.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { AccessSecret } from "#lib/repository/access-key.ts";
import { blockTaskSource } from "#lib/repository/block-tasks.ts";
import {
  openKeyObject,
  type OpenedKeys,
  type StoredKeyObject,
} from "#lib/repository/key-objects.ts";
import type { RepositoryKeys } from "#lib/repository/keys.ts";
import type { AccessKeyRecord } from "#lib/repository/records.ts";
import { createSealer } from "#lib/repository/sealing.ts";
import {
  adoptAccessKeys,
  readAccessKeys,
  type AccessKeyEntry,
  type AccessKeySet,
} from "#lib/repository/transactions/access-keys.ts";
import { FormatError } from "#proto/format-error.ts";
import { decodeKeyObject } from "#proto/key-object.ts";
import { ObjectFolder, parseObjectName } from "#proto/object-names.ts";
import type { Attachment } from "./attach-storages.ts";
import type { Config } from "./config-file.ts";
import { Keyring, openSet, type Sealing } from "./keyring.ts";
import { followKeyCopies, readKeyCopies } from "./metadata-folder.ts";
import type { OpenRepository, ProcessContext } from "./open-repository.ts";
import { loadSecret } from "./secrets.ts";

/** Opens the keys of an open repository. */
export async function openKeyring(
  repository: OpenRepository,
  attachment: Attachment,
): Promise<Keyring> {
  const { config, context, record, kv, ports } = repository;
  const secret = await configuredSecret(config, context);
  let set = await readAccessKeys(kv);
  const opened =
    set.version === 0
      ? await openFound(config.metadata, attachment, secret)
      : await openSet(set, secret);
  const { keys } = opened;
  if (keys.repository !== record.repository || keys.hash !== record.hash) {
    throw new AshlarError(
      ErrorCode.Refused,
      `the key opens repository ${keys.repository}, but the metadata are of ${record.repository}`,
      { remedy: "the configuration mixes two repositories: check metadata, storages and key" },
    );
  }
  if (set.version === 0) set = await adoptFound(repository, attachment, opened.object.accessId);
  await followKeyCopies(config.metadata, set, ports.log);
  return new Keyring(repository, {
    secret,
    opened,
    version: set.version,
    sealing: (each) => sealing(each, config),
  });
}

/** The metadata of the first release have no access keys: those that storages and the metadata folder have are taken in. */
async function adoptFound(
  { config, kv, record, ports }: OpenRepository,
  attachment: Attachment,
  opener: string,
): Promise<AccessKeySet> {
  const copies = await readKeyCopies(config.metadata);
  const found = [...copies, ...(await readKeyObjects(openStores(attachment)))];
  // First: so many are taken, and whoever can write to a storage can put more there.
  const isOpener = (entry: AccessKeyEntry): boolean => entry.accessId === opener;
  const entries = recordsOf(found, record.repository);
  const inOrder = [...entries.filter(isOpener), ...entries.filter((entry) => !isOpener(entry))];
  try {
    return await adoptAccessKeys(kv, inOrder);
  } catch (error) {
    if (!isNoSpace(error)) throw error;
    // The next one does it; until then all is as it was in the first release.
    ports.log.warn("the access keys could not be taken into the metadata", { error });
    return { version: 0, entries: [] };
  }
}

/** The access keys of key objects that were found; the first of several objects of one. Foreign and unreadable ones are left out. */
export function recordsOf(
  objects: readonly StoredKeyObject[],
  repository: string,
): AccessKeyEntry[] {
  const entries = new Map<string, AccessKeyEntry>();
  for (const { name, bytes } of objects) {
    const record = recordOf(bytes, repository);
    const named = parseObjectName(name);
    if (record === undefined || named?.type !== "key" || entries.has(named.accessId)) continue;
    entries.set(named.accessId, { accessId: named.accessId, record });
  }
  return [...entries.values()];
}

/** The record of a key object; undefined for one that is none of the repository's. */
function recordOf(bytes: Uint8Array, repository: string): AccessKeyRecord | undefined {
  try {
    const object = decodeKeyObject(bytes);
    if (object.repository !== repository) return undefined;
    const { label = "", capability = "full", createdMs = 0 } = object.facts ?? {};
    return { object: Buffer.from(bytes), label, capability, createdMs };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return undefined;
  }
}

/** What seals and opens under these keys; worker threads start when they are first used. */
function sealing(keys: RepositoryKeys, config: Pick<Config, "defaults" | "agent">): Sealing {
  const { compression, compressionLevel } = config.defaults;
  const options = { compression, level: compressionLevel };
  return {
    sealer: createSealer(keys, options),
    compute: createWorkerCompute({
      tasks: blockTaskSource({ hash: keys, seal: { ...options, keys } }),
      concurrency: config.agent.threads ?? availableParallelism(),
    }),
  };
}

/** The secret that the configuration, the environment or the terminal gives. */
export function configuredSecret(
  config: Pick<Config, "keyFile" | "passphraseFile">,
  context: ProcessContext,
): Promise<AccessSecret> {
  return loadSecret({
    keyFile: config.keyFile,
    passphraseFile: config.passphraseFile,
    env: context.env,
    terminal: { input: context.stdin, output: context.stderr, signal: context.signal },
    warn: (message) => context.log.warn(message),
  });
}

/** The copies in the metadata folder first; then, for a key that was added elsewhere, what the storages have. */
async function openFound(
  metadata: string,
  attachment: Attachment,
  secret: AccessSecret,
): Promise<OpenedKeys> {
  const copies = await readKeyCopies(metadata);
  if (copies.length > 0) {
    try {
      return await openKeyObject(copies, secret);
    } catch (error) {
      if (!isErrorCode(error, ErrorCode.Refused) && !isErrorCode(error, ErrorCode.Damaged))
        throw error;
    }
  }
  const known = new Set(copies.map((copy) => Buffer.from(copy.bytes).toString("latin1")));
  const objects = (await readKeyObjects(openStores(attachment))).filter(
    (object) => !known.has(Buffer.from(object.bytes).toString("latin1")),
  );
  // The error of a wrong key is the same; with nothing new to try, the copies give it again.
  return openKeyObject(objects.length > 0 ? objects : copies, secret);
}

function openStores(attachment: Attachment): BlobStore[] {
  return attachment.set
    .list()
    .flatMap(({ store }) => (store instanceof AshlarError ? [] : [store]));
}

/** The key objects of all storages that can be read. */
export async function readKeyObjects(stores: readonly BlobStore[]): Promise<StoredKeyObject[]> {
  const objects: StoredKeyObject[] = [];
  for (const store of stores) {
    try {
      for await (const { name } of store.list(ObjectFolder.keys)) {
        if (parseObjectName(name)?.type !== "key") continue;
        objects.push({ name, bytes: await store.get(name) });
      }
    } catch (error) {
      // A storage that fails here may still have its twin; what is missing shows as a key that opens nothing.
      if (!(error instanceof AshlarError)) throw error;
    }
  }
  return objects;
}
