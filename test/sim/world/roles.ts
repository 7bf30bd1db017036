// The production actors of one simulated process, over simulated ports: the same composition as services/cli/roles.ts.
import { Requester } from "#lib/actor/requester.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { MemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import type { BlockSource, BlockTarget } from "#lib/ports/block-device.ts";
import type { Log } from "#lib/ports/log.ts";
import type { ComputeTasks } from "#lib/ports/compute-tasks.ts";
import type { Hasher } from "#lib/repository/hashing.ts";
import type { RepositoryKeys } from "#lib/repository/keys.ts";
import type { RepositoryRecord } from "#lib/repository/records.ts";
import type { Repository } from "#lib/repository/repository.ts";
import type { SessionEntry } from "#lib/repository/transactions/session.ts";
import type { Sealer } from "#lib/repository/sealing.ts";
import { StorageSet } from "#lib/repository/storages.ts";
import { isOwnerAlive } from "#services/coordinator/owner-alive.ts";
import type { CoordinatorContext, CoordinatorSettings } from "#services/coordinator/context.ts";
import { startDedup } from "#services/dedup/dedup-actor.ts";
import { startReader, type OpenTargetRequest } from "#services/reader/reader-actor.ts";
import { createUpkeep } from "#services/writer/upkeep.ts";
import { serveVerify } from "#services/writer/verify-messages.ts";
import { startWriter, type Writer } from "#services/writer/writer-actor.ts";
import type { FaultPlan } from "../engine/faults.ts";
import { createSimCompute } from "../engine/sim-compute.ts";
import { openSimKv } from "../engine/sim-kv.ts";
import type { SimNetwork } from "../engine/sim-network.ts";
import type { SimProcess } from "../engine/sim-process.ts";
import type { SimStorage } from "../engine/sim-storage.ts";

/** What a process does. */
export type Role = "reader" | "dedup" | "writer" | "coordinator";

/** What the processes of a world share. */
export interface Surroundings {
  readonly kv: MemoryKv;
  readonly network: SimNetwork;
  readonly faults: FaultPlan;
  readonly storages: readonly SimStorage[];
  readonly keys: RepositoryKeys;
  /** Made once of the keys: deriving theirs takes longer than a process has to do. They keep nothing between two calls. */
  readonly hasher: Hasher;
  readonly sealer: Sealer;
  readonly tasks: ComputeTasks;
  readonly config: RepositoryRecord;
  readonly settings: CoordinatorSettings;
  /** Bytes of one slot, and how many. */
  readonly slots: { readonly slotBytes: number; readonly slotCount: number };
  readonly log: (process: SimProcess) => Log;
  readonly openSource: (process: SimProcess, url: string, frozen: boolean) => BlockSource;
  readonly openTarget: (process: SimProcess, request: OpenTargetRequest) => BlockTarget;
  readonly readHints: (path: string) => string;
  /** Whether a process still runs, by the name of its lock. */
  readonly isRunning: (lock: string) => boolean;
}

/** A process with its roles. */
export interface RunningProcess {
  readonly process: SimProcess;
  readonly roles: readonly Role[];
  readonly repo: Repository;
  /** Undefined where it runs no jobs. */
  readonly context: CoordinatorContext | undefined;
}

/** Starts the roles of a process. */
export function startProcess(
  around: Surroundings,
  process: SimProcess,
  roles: readonly Role[],
): RunningProcess {
  const repo = openRepository(around, process);
  const bus = around.network.client(process);
  if (roles.includes("dedup")) startDedup(repo, bus);
  const writer = roles.includes("writer") ? startWriter(repo, bus, around.slots) : undefined;
  if (roles.includes("reader")) {
    startReader({
      ports: repo,
      bus,
      compute: repo.compute,
      hasher: around.hasher,
      host: process.host,
      ...around.slots,
      openSource: async (url, { frozen }) => {
        await process.turn("open source");
        return around.openSource(process, url, frozen);
      },
      openTarget: async (request) => {
        await process.turn("open target");
        return around.openTarget(process, request);
      },
      readHints: async (path) => {
        await process.turn("read hints");
        return around.readHints(path);
      },
    });
  }
  const context = roles.includes("coordinator")
    ? openCoordinator(around, process, repo, bus, writer)
    : undefined;
  return { process, roles, repo, context };
}

function openRepository(around: Surroundings, process: SimProcess): Repository {
  const { keys, config, faults, kv, storages } = around;
  return {
    kv: openSimKv(kv, process, faults),
    clock: process.clock,
    random: process.random,
    telemetry: noTelemetry(),
    log: around.log(process),
    keys,
    sealer: around.sealer,
    compute: createSimCompute(around.tasks, process),
    storages: new StorageSet(
      storages.map((storage) => ({
        id: storage.id,
        name: storage.name,
        site: storage.name,
        // A process that is started while a storage is away may keep it listed with the reason, as the command line does.
        store:
          storage.away && process.random.below(4) === 0
            ? new AshlarError(ErrorCode.Unavailable, `${storage.name} was away at the start`)
            : storage.client(process),
        writesMax: 4,
        readsMax: 4,
        removalsMax: 2,
      })),
    ),
    config,
  };
}

function openCoordinator(
  around: Surroundings,
  process: SimProcess,
  repo: Repository,
  bus: CoordinatorContext["bus"],
  writer: Writer | undefined,
): CoordinatorContext {
  const { settings, isRunning } = around;
  const { host, name } = process;
  if (writer === undefined) serveVerify(repo, bus);
  const requester = new Requester(bus, repo.clock, repo.random);
  return {
    repo,
    bus,
    requester,
    // Puts that are late in another process are that process's.
    upkeep: createUpkeep(
      repo,
      { bus, requester },
      (...how) => writer?.drain(...how) ?? Promise.resolve([]),
    ),
    settings,
    host,
    lock: name,
    isOwnerAlive: (entry: SessionEntry) =>
      isOwnerAlive(entry, {
        host,
        leaseMs: settings.leaseMs,
        nowMs: repo.clock.now(),
        isLockHeld: isRunning,
      }),
  };
}
