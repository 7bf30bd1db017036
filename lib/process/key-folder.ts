// The folder keys/ of a storage follows the metadata, which are the truth of a repository's access keys (DESIGN §5). Whoever writes
// to a storage brings it in line before his first other put, and again before he puts anything sealed under a repository key that
// came later: so whatever lies on a storage, the key objects that open it lie there, too.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { lockOf, type BlobStore } from "#lib/ports/blob-store.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { Log } from "#lib/ports/log.ts";
import {
  readAccessKeys,
  readAccessKeysVersion,
  type AccessKeySet,
} from "#lib/repository/transactions/access-keys.ts";
import { FormatError, FormatFault } from "#proto/format-error.ts";
import { decodeKeyObject } from "#proto/key-object.ts";
import { keyObjectName, ObjectFolder, parseObjectName } from "#proto/object-names.ts";
import { lockProperties } from "#lib/drivers/decorators/lock-properties.ts";

/** What bringing a folder in line has done, by names of objects. */
export interface KeyFolderChanges {
  readonly put: readonly string[];
  readonly deleted: readonly string[];
  /** Key objects that the metadata do not know; they are left alone. */
  readonly unknown: readonly string[];
}

/** So often a folder is looked at again because the access keys were changed meanwhile. */
const ROUNDS_MAX = 5;

/**
 * Puts the key objects that a storage lacks or has otherwise, and deletes those of removed access keys. Refused, before
 * anything is changed, where the storage has newer ones than the metadata.
 * @param options.isRebuild the metadata have taken from the storages what is newer there
 * @param options.unlocked the storage may yet be taken back: nothing is put there that it locks
 */
export async function bringInLine(
  store: BlobStore,
  set: AccessKeySet,
  options: { readonly isRebuild?: boolean; readonly unlocked?: boolean } = {},
): Promise<KeyFolderChanges> {
  const there = await readKeyFolder(store);
  if (options.isRebuild !== true) refuseNewer(store, set, there);
  const put: string[] = [];
  const gone: string[] = [];
  for (const { accessId, record } of set.entries) {
    const name = keyObjectName(accessId);
    const found = there.get(name);
    there.delete(name);
    if (record.object === undefined) {
      if (found !== undefined) gone.push(name);
    } else if (found === undefined || !record.object.equals(found)) {
      const { unlocked = false } = options;
      await store.put(name, record.object, { mode: "replace", reserve: true, unlocked });
      put.push(name);
    }
  }
  if (gone.length > 0) {
    for (const [name, failure] of await store.delete(gone)) {
      // A storage with object lock keeps it until its lock runs out; whoever is here then deletes it.
      if (lockOf(failure) === undefined) throw failure;
      gone.splice(gone.indexOf(name), 1);
    }
  }
  return { put, deleted: gone, unknown: [...there.keys()] };
}

/** The key objects of a storage, by name. */
export async function readKeyFolder(store: BlobStore): Promise<Map<string, Uint8Array>> {
  const there = new Map<string, Uint8Array>();
  for await (const { name } of store.list(ObjectFolder.keys)) {
    if (parseObjectName(name)?.type !== "key") continue;
    try {
      there.set(name, await store.get(name));
    } catch (error) {
      // Somebody else is bringing it in line.
      if (!(error instanceof AshlarError) || error.code !== ErrorCode.NotFound) throw error;
    }
  }
  return there;
}

/** Older metadata must not take away the keys by which the newer part of what is stored opens. */
function refuseNewer(
  store: BlobStore,
  { entries }: AccessKeySet,
  there: ReadonlyMap<string, Uint8Array>,
): void {
  const known = new Map(entries.map(({ accessId, record }) => [keyObjectName(accessId), record]));
  const objects = entries.flatMap(({ record: { object } }) =>
    object === undefined ? [] : [object],
  );
  const revision = Math.max(0, ...objects.map(revisionOf));
  for (const [name, bytes] of there) {
    if (known.get(name)?.object?.equals(bytes) === true || revisionOf(bytes) <= revision) continue;
    throw new AshlarError(
      ErrorCode.Refused,
      `${store.location} has a key object that is newer than the metadata (${name}): the metadata were put back from an older copy, or a newer Ashlar wrote it`,
      {
        remedy: `stop every other process and copy of this repository, then run \`ashlar rebuild --from ${store.location}\`; or use the newer Ashlar`,
        details: { name },
      },
    );
  }
}

/** How often the repository keys had been changed when the object was made; what cannot be read is worth nothing. */
function revisionOf(bytes: Uint8Array): number {
  try {
    return decodeKeyObject(bytes).facts?.revision ?? 0;
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return error.fault === FormatFault.Newer ? Number.POSITIVE_INFINITY : 0;
  }
}

function metadataWentBack(): AshlarError {
  return new AshlarError(
    ErrorCode.Refused,
    "the metadata have older access keys than a moment ago: they were put back while this process ran",
    { remedy: "stop every process of this repository, then run `ashlar rebuild`" },
  );
}

/** Whose keys/ folder follows the metadata. */
interface Followed {
  /** The access keys that it has; undefined before it was looked at. */
  version: number | undefined;
  running: Promise<unknown> | undefined;
}

/** The keys/ folders of all storages of a process. */
export class KeyFolders {
  readonly #kv: Kv;
  readonly #log: Log;
  #required = 0;

  constructor(kv: Kv, log: Log) {
    this.#kv = kv;
    this.#log = log;
  }

  /** From now on nothing is put at a storage before it has the access keys of that version. */
  require(version: number): void {
    this.#required = Math.max(this.#required, version);
  }

  /** The store; its keys/ folder is in line before anything else is put. */
  guard(store: BlobStore, name: string): BlobStore {
    const followed: Followed = { version: undefined, running: undefined };
    const isBehind = (): boolean => (followed.version ?? -1) < this.#required;
    const keepUp = async (): Promise<void> => {
      for (let tries = 1; isBehind(); tries += 1) {
        if (tries > ROUNDS_MAX) throw metadataWentBack();
        followed.running ??= this.#follow(store, name, followed).finally(() => {
          followed.running = undefined;
        });
        await followed.running;
      }
    };
    return {
      capabilities: store.capabilities,
      location: store.location,
      ...lockProperties(store),
      put: async (object, bytes, options) => {
        if (isBehind() && !object.startsWith(ObjectFolder.keys)) await keepUp();
        await store.put(object, bytes, options);
      },
      get: (object, options) => store.get(object, options),
      stat: (object) => store.stat(object),
      delete: (names) => store.delete(names),
      list: (prefix, options) => store.list(prefix, options),
      check: () => store.check(),
      close: () => store.close(),
    };
  }

  async #follow(store: BlobStore, name: string, followed: Followed): Promise<void> {
    followed.version = await this.bringInLine(store, name);
  }

  /**
   * Brings a storage's folder in line, and looks whether it still is: else one that was slow would leave what somebody else
   * has replaced or removed meanwhile. Gives the version of the access keys that the storage has.
   */
  async bringInLine(store: BlobStore, name: string): Promise<number> {
    for (let round = 1; ; round += 1) {
      const set = await readAccessKeys(this.#kv);
      if (set.version === 0) return 0;
      const { put, deleted, unknown } = await bringInLine(store, set);
      if (put.length + deleted.length > 0) {
        this.#log.debug("the key objects of a storage were brought in line", {
          storage: name,
          put: put.length,
          deleted: deleted.length,
        });
      }
      if (unknown.length > 0) {
        this.#log.warn(
          `storage ${name} has key objects that are not of an access key of this repository: ${unknown.join(", ")}`,
        );
      }
      if (put.length + deleted.length === 0 || round === ROUNDS_MAX) return set.version;
      if ((await readAccessKeysVersion(this.#kv)) === set.version) return set.version;
    }
  }
}
