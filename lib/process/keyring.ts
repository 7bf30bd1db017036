// The keys that a process works with: opened with its secret from the metadata's key objects, and opened again when those change.
// The secret is kept in memory for that, and nowhere else.
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { Compute } from "#lib/ports/compute.ts";
import { keyFileAccessId, type AccessSecret } from "#lib/repository/access-key.ts";
import {
  openKeyObject,
  type OpenedKeys,
  type StoredKeyObject,
} from "#lib/repository/key-objects.ts";
import type { RepositoryKeys } from "#lib/repository/keys.ts";
import type { Sealer } from "#lib/repository/sealing.ts";
import {
  readAccessKeys,
  readAccessKeysVersion,
  type AccessKeySet,
} from "#lib/repository/transactions/access-keys.ts";
import { keyObjectName } from "#proto/object-names.ts";
import { followKeyCopies } from "./metadata-folder.ts";
import type { OpenRepository } from "./open-repository.ts";
import { createSwitchingCompute, type SwitchingCompute } from "./switching-compute.ts";

/** The metadata are asked so often whether the access keys have changed, in ms. */
export const LOOK_FOR_KEYS_EVERY_MS = 30_000;

/** What seals and opens under certain keys. */
export interface Sealing {
  readonly sealer: Sealer;
  readonly compute: Compute;
}

/** How a {@link Keyring} is made. */
export interface KeyringStart {
  readonly secret: AccessSecret;
  readonly opened: OpenedKeys;
  /** Of the access keys that `opened` is from. */
  readonly version: number;
  readonly sealing: (keys: RepositoryKeys) => Sealing;
}

/** The key objects of a set. */
export function keyObjectsOf({ entries }: AccessKeySet): StoredKeyObject[] {
  return entries.flatMap(({ accessId, record: { object } }) =>
    object === undefined ? [] : [{ name: keyObjectName(accessId), bytes: object }],
  );
}

/** Opens the keys of a set; Refused for an access key that was removed, or never was one. */
export async function openSet(set: AccessKeySet, secret: AccessSecret): Promise<OpenedKeys> {
  try {
    return await openKeyObject(keyObjectsOf(set), secret);
  } catch (error) {
    if (!isErrorCode(error, ErrorCode.Refused) || secret.type !== "keyfile") throw error;
    const own = keyFileAccessId(secret.key);
    const removedMs = set.entries.find(({ accessId }) => accessId === own)?.record.removedMs;
    if (removedMs === undefined) throw error;
    throw new AshlarError(
      ErrorCode.Refused,
      `this key was removed from the repository on ${new Date(removedMs).toISOString().slice(0, 10)}`,
      {
        cause: error,
        remedy: "use another one; `ashlar key ls` lists them",
        details: { key: own },
      },
    );
  }
}

/** Keys that follow the metadata. */
export class Keyring {
  readonly #repository: OpenRepository;
  readonly #secret: AccessSecret;
  readonly #sealing: KeyringStart["sealing"];
  readonly #compute: SwitchingCompute;
  #opened: OpenedKeys;
  #version: number;
  #sealer: Sealer;
  #refreshing: Promise<boolean> | undefined;
  /** Objects are sealed and opened here; with the keys of the moment. */
  readonly sealer: Sealer;

  constructor(repository: OpenRepository, start: KeyringStart) {
    this.#repository = repository;
    this.#secret = start.secret;
    this.#sealing = start.sealing;
    this.#opened = start.opened;
    this.#version = start.version;
    repository.keyFolders.require(start.version);
    const { sealer, compute } = start.sealing(start.opened.keys);
    this.#sealer = sealer;
    this.sealer = {
      sealInto: (object, out, offset) => this.#sealer.sealInto(object, out, offset),
      seal: (object) => this.#sealer.seal(object),
      openInto: (object, out, offset) => this.#sealer.openInto(object, out, offset),
      verify: (object) => this.#sealer.verify(object),
      open: (object) => this.#sealer.open(object),
      renew: (sealed) => this.#sealer.renew(sealed),
      retiredKeys: () => this.#sealer.retiredKeys(),
    };
    const { log } = repository.ports;
    this.#compute = createSwitchingCompute(compute, () => this.refresh(), log);
  }

  get compute(): Compute {
    return this.#compute;
  }

  /** The keys as they were opened last, and the key object that opened them. */
  get opened(): OpenedKeys {
    return this.#opened;
  }

  /** The access keys that the keys are from. */
  get version(): number {
    return this.#version;
  }

  /**
   * Opens the keys again if the access keys have changed since; true when there are other repository keys now. Refused when
   * this access key is none any more: what is open stays open.
   */
  refresh(): Promise<boolean> {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #refresh(): Promise<boolean> {
    const { kv, ports, config, keyFolders } = this.#repository;
    if ((await readAccessKeysVersion(kv)) === this.#version) return false;
    const set = await readAccessKeys(kv);
    const opened = await openSet(set, this.#secret);
    const hasOthers = opened.keys.revision !== this.#opened.keys.revision;
    // First: nothing is sealed under the new key before whoever puts it knows that the storage must have the key objects.
    keyFolders.require(set.version);
    this.#version = set.version;
    this.#opened = opened;
    if (hasOthers) {
      const { sealer, compute } = this.#sealing(opened.keys);
      this.#sealer = sealer;
      this.#compute.switchTo(compute);
      ports.log.info("the repository has a new repository key", { key: opened.keys.activeKeyId });
    }
    await followKeyCopies(config.metadata, set, ports.log);
    return hasOthers;
  }

  /** Looks from time to time, until the signal aborts. */
  async watch(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#repository.ports;
    for (;;) {
      await clock.sleep(LOOK_FOR_KEYS_EVERY_MS, signal).catch(() => undefined);
      if (signal.aborted) return;
      try {
        await this.refresh();
      } catch (error) {
        log.warn("the access keys could not be looked at; the ones before are used on", { error });
      }
    }
  }
}
