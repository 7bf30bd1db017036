// What coordinator jobs work with.
import type { Requester } from "#lib/actor/requester.ts";
import type { CompressionChoice } from "#lib/ports/compute.ts";
import type { Bus } from "#lib/ports/bus.ts";
import type { JobRun, SessionRecord } from "#lib/repository/records.ts";
import type { SessionEntry } from "#lib/repository/transactions/session.ts";
import type { Repository } from "#lib/repository/repository.ts";
import type { Upkeep } from "#lib/repository/upkeep.ts";

/** Settings of a coordinator; times in ms. */
export interface CoordinatorSettings {
  /** A session without a heartbeat for so long is dead. */
  readonly leaseMs: number;
  /** How long a dead session stays resumable. */
  readonly resumeWindowMs: number;
  /** How long another session's promise to bring a block is waited for. */
  readonly patienceMs: number;
  /** Share of the blocks that hints call unchanged which is checked. */
  readonly hintSample: number;
  /** Names of the storages of a version, unless a job names others. */
  readonly storages: readonly string[];
  readonly quorum: number;
  /** Names of storages that restores of a version read first, as far as it is there. */
  readonly prefer?: readonly string[] | undefined;
  /** How a version is compressed, unless a job says otherwise; without it as each writer's configuration says. */
  readonly compression?: CompressionChoice;
}

/** A coordinator's surroundings. */
export interface CoordinatorContext {
  readonly repo: Repository;
  readonly bus: Bus;
  readonly requester: Requester;
  readonly upkeep: Upkeep;
  readonly settings: CoordinatorSettings;
  /** This host, and the name of the OS lock that this process holds. */
  readonly host: string;
  readonly lock: string;
  /** The try of a job that this is; undefined for a command. */
  readonly run?: JobRun;
  /** Which try it is, from 1 on. */
  readonly attempt?: number;
  /** False when the process that runs the session is known to be gone. */
  readonly isOwnerAlive: (entry: SessionEntry) => boolean;
}

/** Who runs the sessions that this coordinator starts. */
export function ownerOf({
  host,
  lock,
  run,
}: CoordinatorContext): Pick<SessionRecord, "host" | "lock" | "run"> {
  return { host, lock, ...(run === undefined ? {} : { run }) };
}
