// All roles in one process, over the embedded drivers. What a command does not ask for is not started.
import { traceKv } from "#lib/drivers/traced-kv.ts";
import type { Config } from "#lib/process/config-file.ts";
import { isOwnLockHeld } from "#lib/process/metadata-folder.ts";
import { openMetadata } from "#lib/process/metadata-store.ts";
import { OpenRepository, systemPorts } from "#lib/process/open-repository.ts";
import type { Ports } from "#lib/repository/repository.ts";
import type { SessionEntry } from "#lib/repository/transactions/session.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";
import type { CoordinatorContext } from "#services/coordinator/context.ts";
import { isOwnerAlive } from "#services/coordinator/owner-alive.ts";
import type { CommandContext } from "./context.ts";

/** Opens the configured repository's metadata. Everything else is opened when it is asked for. */
export async function openEngine(
  config: Config,
  context: CommandContext,
  ports: Ports = systemPorts(context),
): Promise<Engine> {
  const opened = await openMetadata(config, ports);
  const { record } = opened;
  const kv = traceKv(opened.kv, ports.telemetry);
  try {
    return new Engine(config, context, ports, kv, record, await listStorages(kv));
  } catch (error) {
    await kv.close();
    throw error;
  }
}

/** An open repository with what a command needs beside it. */
export class Engine extends OpenRepository {
  declare readonly context: CommandContext;
  #coordinator: Promise<CoordinatorContext> | undefined;

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
    const roles = await startRoles(this, repo, blockBytes);
    this.onClose(() => roles.stop());
    return roles.context;
  }

  override async close(): Promise<void> {
    await this.#coordinator?.catch(() => undefined);
    await super.close();
  }
}
