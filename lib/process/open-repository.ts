// An open repository as a process has it: metadata, storages, keys. What is not asked for is not opened: `ls` needs the metadata
// only, `rm` the keys and storages as well. Modules are loaded likewise.
import type { Readable } from "node:stream";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import type { ProcessLock } from "#lib/drivers/system/process-lock.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { Log } from "#lib/ports/log.ts";
import type { RepositoryRecord, StorageRecord } from "#lib/repository/records.ts";
import type { Ports, Repository } from "#lib/repository/repository.ts";
import type { Attachment } from "./attach-storages.ts";
import type { Config } from "./config-file.ts";
import { KeyFolders } from "./key-folder.ts";
import type { Keyring } from "./keyring.ts";
import { takeOwnLock } from "./metadata-folder.ts";
import { metadataUrl, readRepositoryRecord } from "./metadata-store.ts";

/** What the world around a process gives it. */
export interface ProcessContext {
  readonly env: NodeJS.ProcessEnv;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stderr: NodeJS.WriteStream;
  /** Aborted by the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
  readonly log: Log;
}

/** The ports of a real process. */
export function systemPorts({ log }: Pick<ProcessContext, "log">): Ports {
  return { clock: systemClock(), random: systemRandom(), telemetry: noTelemetry(), log };
}

/** A storage as the metadata know it. */
export interface KnownStorage {
  readonly storage: StorageId;
  readonly record: StorageRecord;
}

/** An open repository. Closing it closes all that was opened through it, the last first. */
export class OpenRepository {
  readonly config: Config;
  readonly context: ProcessContext;
  readonly ports: Ports;
  readonly kv: Kv;
  readonly record: RepositoryRecord;
  readonly knownStorages: readonly KnownStorage[];
  /** What has each storage get the key objects before anything else. */
  readonly keyFolders: KeyFolders;
  readonly #closers: (() => Promise<void> | void)[] = [];
  #attachment: Promise<Attachment> | undefined;
  #repository: Promise<Repository> | undefined;
  #defaultStorages: Promise<readonly string[]> | undefined;
  #keyring: Promise<Keyring> | undefined;
  #lock: { readonly name: string; readonly lock: ProcessLock } | undefined;

  constructor(
    config: Config,
    context: ProcessContext,
    ports: Ports,
    kv: Kv,
    record: RepositoryRecord,
    knownStorages: readonly KnownStorage[],
  ) {
    this.config = config;
    this.context = context;
    this.ports = ports;
    this.kv = kv;
    this.record = record;
    this.knownStorages = knownStorages;
    this.keyFolders = new KeyFolders(kv, ports.log);
    this.#closers.push(() => kv.close());
  }

  /** A storage's name, as the metadata know it. */
  readonly nameOf = (storage: StorageId): string =>
    this.knownStorages.find((known) => known.storage === storage)?.record.name ?? storage;

  /** The name of the lock that tells others that this process lives. */
  get lockName(): string {
    if (this.#lock === undefined) {
      const taken = takeOwnLock(this.config.metadata);
      this.#lock = taken;
      // Given back after the roles have ended, and before the metadata are closed.
      this.#closers.splice(1, 0, () => taken.lock.release());
    }
    return this.#lock.name;
  }

  /** The configured storages, opened; those that are away are told, and stay listed with the reason. */
  storages(): Promise<Attachment> {
    this.#attachment ??= this.#attachStorages();
    return this.#attachment;
  }

  async #attachStorages(): Promise<Attachment> {
    const { attachStorages } = await import("#lib/process/attach-storages.ts");
    const attachment = await attachStorages(this);
    this.#closers.push(() => attachment.set.close());
    return attachment;
  }

  /** The repository with its keys and storages. */
  repository(): Promise<Repository> {
    this.#repository ??= this.#openRepository();
    return this.#repository;
  }

  async #openRepository(): Promise<Repository> {
    // Whoever may change something shows that it lives.
    void this.lockName;
    // Before the lock was there nobody could see us: the metadata may have been marked as moved since they were opened.
    await readRepositoryRecord(this.kv, metadataUrl(this.config));
    const attachment = await this.storages();
    const { opened, sealer, compute } = await this.keyring();
    return {
      ...this.ports,
      kv: this.kv,
      config: this.record,
      // What of them is used here never changes: the identity, and what hashes.
      keys: opened.keys,
      sealer,
      compute,
      storages: attachment.set,
    };
  }

  /** The repository's keys, opened with the secret that the configuration, the environment or the terminal gives. */
  keyring(): Promise<Keyring> {
    this.#keyring ??= this.#openKeyring();
    return this.#keyring;
  }

  async #openKeyring(): Promise<Keyring> {
    const attachment = await this.storages();
    const { openKeyring } = await import("#lib/process/repository-keys.ts");
    const keyring = await openKeyring(this, attachment);
    const ended = new AbortController();
    const watching = keyring.watch(ended.signal);
    this.#closers.push(async () => {
      ended.abort();
      await watching;
      await keyring.compute.close();
    });
    return keyring;
  }

  /** Has something closed with the repository: after what is opened later, and before what was opened already. */
  onClose(close: () => Promise<void> | void): void {
    this.#closers.push(close);
  }

  /** Refuses to go on without a storage that the configuration names but the repository does not have. */
  async requireStorages(names: readonly string[]): Promise<void> {
    const { unknown } = await this.storages();
    const missing = unknown.find(({ name }) => names.includes(name));
    if (missing === undefined) return;
    // One that was removed from the repository, for example.
    if (isErrorCode(missing.reason, ErrorCode.Refused)) throw missing.reason;
    throw new AshlarError(
      ErrorCode.Config,
      `storage ${missing.name} is in the configuration, but it was not added to the repository`,
      { remedy: `\`ashlar storage add ${missing.name}\` adds it` },
    );
  }

  /**
   * Names of the storages that a version goes to unless it is said otherwise: those of the configuration, without what was removed
   * from the repository since, which is told. If nothing is left, all of them, so that whoever goes there is refused.
   */
  defaultStorages(): Promise<readonly string[]> {
    this.#defaultStorages ??= this.#findDefaultStorages();
    return this.#defaultStorages;
  }

  async #findDefaultStorages(): Promise<readonly string[]> {
    const { unknown } = await this.storages();
    const { storages } = this.config.defaults;
    const removed = unknown.filter(({ name, wasRemoved }) => wasRemoved && storages.includes(name));
    const left = storages.filter((name) => removed.every((each) => each.name !== name));
    if (left.length === 0) return storages;
    for (const { reason } of removed) {
      this.ports.log.warn(`${reason?.message}: backups go without it`, { remedy: reason?.remedy });
    }
    return left;
  }

  /** Closes everything, the last opened first; the first failure is thrown once all were tried. */
  async close(): Promise<void> {
    // What is still being opened would otherwise be left open.
    await Promise.allSettled([this.#attachment, this.#keyring, this.#repository]);
    const failures: unknown[] = [];
    for (const close of this.#closers.splice(0).toReversed()) {
      try {
        await close();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}
