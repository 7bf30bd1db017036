// Opening the repository's keys with what the user has. A wrong key is refused here, before anything is read or written.
import { availableParallelism } from "node:os";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { createWorkerCompute } from "#lib/drivers/compute/worker-compute.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { Compute } from "#lib/ports/compute.ts";
import { blockTaskSource } from "#lib/repository/block-tasks.ts";
import type { AccessSecret } from "#lib/repository/access-key.ts";
import { openKeys, type StoredKeyObject } from "#lib/repository/key-objects.ts";
import type { RepositoryKeys } from "#lib/repository/keys.ts";
import { createSealer, type Sealer } from "#lib/repository/sealing.ts";
import { ObjectFolder, parseObjectName } from "#proto/object-names.ts";
import type { Attachment } from "./attach-storages.ts";
import type { OpenRepository, ProcessContext } from "./open-repository.ts";
import type { Config } from "./config-file.ts";
import { readKeyCopies, writeKeyCopy } from "./metadata-folder.ts";
import { loadSecret } from "./secrets.ts";

/** Keys, and what is made of them. */
export interface OpenKeys {
  readonly keys: RepositoryKeys;
  readonly sealer: Sealer;
  readonly compute: Compute;
}

/** Opens the keys of an repository's repository. */
export async function openRepositoryKeys(
  repository: OpenRepository,
  attachment: Attachment,
): Promise<OpenKeys> {
  const { config, context, record } = repository;
  const secret = await configuredSecret(config, context);
  const keys = await tryKeys(config.metadata, attachment, secret);
  if (keys.repository !== record.repository || keys.hash !== record.hash) {
    throw new AshlarError(
      ErrorCode.Refused,
      `the key opens repository ${keys.repository}, but the metadata are of ${record.repository}`,
      { remedy: "the configuration mixes two repositories: check metadata, storages and key" },
    );
  }
  return { keys, ...sealing(keys, config) };
}

/** What seals and opens under these keys; worker threads start when they are first used. */
export function sealing(
  keys: RepositoryKeys,
  config: Pick<Config, "defaults" | "agent">,
): { readonly sealer: Sealer; readonly compute: Compute } {
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
async function tryKeys(
  metadata: string,
  attachment: Attachment,
  secret: AccessSecret,
): Promise<RepositoryKeys> {
  const copies = await readKeyCopies(metadata);
  if (copies.length > 0) {
    try {
      return await openKeys(copies, secret);
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
  const keys = await openKeys(objects.length > 0 ? objects : copies, secret);
  for (const object of objects) await writeKeyCopy(metadata, object);
  return keys;
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
