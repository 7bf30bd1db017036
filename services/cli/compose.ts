// All roles in one process, over the embedded drivers. What a command does not ask for is not opened: `ls` needs the
// metadata only, `rm` the keys and storages as well, `backup` the workers and roles. Modules are loaded likewise.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { ProcessLock } from "#lib/drivers/system/process-lock.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { RepositoryRecord, StorageRecord } from "#lib/repository/records.ts";
import type { Ports, Repository } from "#lib/repository/repository.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";
import type { SessionEntry } from "#lib/repository/transactions/session.ts";
import type { CoordinatorContext } from "#services/coordinator/context.ts";
import { isOwnerAlive } from "#services/coordinator/owner-alive.ts";
import type { Attachment } from "./attach-storages.ts";
import type { Config } from "./config-file.ts";
import type { CommandContext } from "./context.ts";
import { isOwnLockHeld, openMetadata, takeOwnLock } from "./metadata-folder.ts";

/** The ports of a real process. */
export function systemPorts(context: Pick<CommandContext, "log">): Ports {
  return {
    clock: systemClock(),
    random: systemRandom(),
    telemetry: noTelemetry(),
    log: context.log,
  };
}

/** Opens the configured repository's metadata. Everything else is opened when it is asked for. */
export async function openEngine(config: Config, context: CommandContext): Promise<Engine> {
  const ports = systemPorts(context);
  const { kv, record } = await openMetadata(config.metadata, ports);
  try {
    return new Engine(config, context, ports, kv, record, await listStorages(kv));
  } catch (error) {
    await kv.close();
    throw error;
  }
}

/** A storage as the metadata know it. */
export interface KnownStorage {
  readonly storage: StorageId;
  readonly record: StorageRecord;
}

/** An open repository. Closing it closes all that was opened through it, the last first. */
export class Engine {
  readonly config: Config;
  readonly context: CommandContext;
  readonly ports: Ports;
  readonly kv: Kv;
  readonly record: RepositoryRecord;
  readonly knownStorages: readonly KnownStorage[];
  readonly #closers: (() => Promise<void> | void)[] = [];
  #attachment: Promise<Attachment> | undefined;
  #repository: Promise<Repository> | undefined;
  #coordinator: Promise<CoordinatorContext> | undefined;
  #lock: { readonly name: string; readonly lock: ProcessLock } | undefined;

  constructor(
    config: Config,
    context: CommandContext,
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
    this.#closers.push(() => kv.close());
  }

  /** A storage's name, as the metadata know it. */
  readonly nameOf = (storage: StorageId): string =>
    this.knownStorages.find((known) => known.storage === storage)?.record.name ?? storage;

  /** Whether the process that runs a session is there: it holds its lock where we can see it, and its lease has not run out. */
  readonly isOwnerAlive = (entry: SessionEntry): boolean => {
    const { host, sessions, metadata } = this.config;
    return isOwnerAlive(entry, {
      host,
      leaseMs: sessions.leaseMs,
      nowMs: this.ports.clock.now(),
      isLockHeld: (lock) => isOwnLockHeld(metadata, lock),
    });
  };

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
    const { attachStorages } = await import("./attach-storages.ts");
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
    const attachment = await this.storages();
    const { openRepositoryKeys } = await import("./repository-keys.ts");
    const { keys, sealer, compute } = await openRepositoryKeys(this, attachment);
    this.#closers.push(() => compute.close());
    return {
      ...this.ports,
      kv: this.kv,
      config: this.record,
      keys,
      sealer,
      compute,
      storages: attachment.set,
    };
  }

  /**
   * All roles, running.
   * @param blockBytes the largest block that they will see, where it is larger than the repository's
   */
  coordinator(blockBytes = 0): Promise<CoordinatorContext> {
    this.#coordinator ??= this.#startRoles(Math.max(blockBytes, this.record.blockBytes));
    return this.#coordinator;
  }

  async #startRoles(blockBytes: number): Promise<CoordinatorContext> {
    const repo = await this.repository();
    const { startRoles } = await import("./roles.ts");
    const roles = startRoles(this, repo, blockBytes);
    this.#closers.push(() => roles.stop());
    return roles.context;
  }

  /** Refuses to go on without a storage that the configuration names but the repository does not have. */
  async requireStorages(names: readonly string[]): Promise<void> {
    const { unknown } = await this.storages();
    const missing = unknown.find(({ name }) => names.includes(name));
    if (missing === undefined) return;
    throw new AshlarError(
      ErrorCode.Config,
      `storage ${missing.name} is in the configuration, but it was not added to the repository`,
      { remedy: `\`ashlar storage add ${missing.name}\` adds it` },
    );
  }

  /** Closes everything, the last opened first; the first failure is thrown once all were tried. */
  async close(): Promise<void> {
    // What is still being opened would otherwise be left open.
    await Promise.allSettled([this.#attachment, this.#repository, this.#coordinator]);
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
