// The reader of an agent: alone, with the dedup key and nothing else of the repository, or beside other roles.
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { routeBus, type Route } from "#lib/actor/routed-bus.ts";
import { traceBus } from "#lib/actor/traced-bus.ts";
import { isAllowed } from "#lib/core/allow-list.ts";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { RateLimiter } from "#lib/core/rate-limiter.ts";
import { createWorkerCompute } from "#lib/drivers/compute/worker-compute.ts";
import { limitedSource } from "#lib/drivers/limited-source.ts";
import { openSource } from "#lib/drivers/sources.ts";
import { openTarget } from "#lib/drivers/targets.ts";
import { joinCluster } from "#lib/process/cluster.ts";
import type { AgentConfig } from "#lib/process/cluster-schema.ts";
import type { Config, ReaderConfig } from "#lib/process/config-file.ts";
import { blockTaskSource } from "#lib/repository/block-tasks.ts";
import { parseDedupKeyFile } from "#lib/repository/dedup-key-file.ts";
import { createHasher } from "#lib/repository/hashing.ts";
import type { HashKeys } from "#lib/repository/keys.ts";
import type { Ports } from "#lib/repository/repository.ts";
import { announceAgent, claimHost } from "#services/reader/announce.ts";
import { startReader, type ReaderOptions } from "#services/reader/reader-actor.ts";
import { slotsOf, type Slots } from "./roles.ts";
import type { AgentRole, RunningAgent } from "./agent.ts";

/** Starts an agent that has nothing of the repository but the dedup key. */
export async function startMereReader(
  ports: Ports,
  config: ReaderConfig,
  roles: ReadonlySet<AgentRole>,
): Promise<RunningAgent> {
  const more = [...roles].filter((role) => role !== "reader");
  if (more.length > 0) {
    throw new AshlarError(
      ErrorCode.Config,
      `${config.file} is the configuration of a reader, which cannot be ${more.join(", ")} as well`,
      { remedy: "start it with --roles reader, or name the configuration of the repository" },
    );
  }
  const keys = await readDedupKey(config.dedupKeyFile);
  const slots = slotsOf(config.memory.budgetBytes, 0);
  const { bus, lost, isConnected } = await joinCluster({
    nats: config.nats,
    host: config.host,
    ports,
    payloadBytes: slots.slotBytes,
    managesStreams: false,
  });
  const compute = createWorkerCompute({
    tasks: blockTaskSource({ hash: keys }),
    concurrency: config.agent.threads ?? availableParallelism(),
  });
  const routed = routeBus(traceBus(bus, ports.telemetry), poolRoute(config.agent));
  const claimed = await claimHost(routed, ports, config.host).catch(async (error: unknown) => {
    await routed.close();
    throw error;
  });
  const reader = startReader({
    ...readerOptions({ config, ports, keys, slots, forbid: [config.file, config.dedupKeyFile] }),
    bus: routed,
    compute,
  });
  const announced = announceAgent(routed, ports.clock, announcementOf(config));
  return {
    isConnected,
    lost,
    stop: async () => {
      await announced.stop();
      await claimed.stop();
      await reader.stop();
      await routed.close();
      await compute.close();
    },
  };
}

async function readDedupKey(file: string): Promise<HashKeys> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw fromSystemError(error, `reading the dedup key ${file}`);
  }
  try {
    return parseDedupKeyFile(text);
  } catch (error) {
    if (!(error instanceof AshlarError)) throw error;
    throw new AshlarError(error.code, `${file}: ${error.message}`, {
      cause: error,
      ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    });
  }
}

interface ReaderSetup {
  readonly config: Pick<Config, "host" | "agent">;
  readonly ports: Ports;
  readonly keys: HashKeys;
  readonly slots: Slots;
  /** Nothing is restored onto or into these. */
  readonly forbid: readonly string[];
}

/** A reader touches what its host's configuration allows, whoever asks. */
export function readerOptions(setup: ReaderSetup): Omit<ReaderOptions, "bus" | "compute"> {
  const { config, ports, keys, slots, forbid } = setup;
  const { sources, targets, readRate } = config.agent;
  const limiter = readRate === undefined ? undefined : new RateLimiter(ports.clock, readRate);
  const check = (patterns: readonly string[], url: string, setting: string): void => {
    if (isAllowed(patterns, url)) return;
    throw new AshlarError(ErrorCode.Refused, `host ${config.host} does not give ${url} to jobs`, {
      remedy: `add it to ${setting} in the configuration of that host's agent`,
      details: { host: config.host, url },
    });
  };
  return {
    ports,
    hasher: createHasher(keys),
    host: config.host,
    ...slots,
    openSource: async (url, how) => {
      check(sources, url, "agent.sources");
      const source = await openSource(url, how);
      return limiter === undefined ? source : limitedSource(source, limiter);
    },
    openTarget: async (request) => {
      check(targets, request.url, "agent.targets");
      return openTarget({ ...request, forbid });
    },
    readHints: async (file) => {
      check(sources, file, "agent.sources");
      try {
        return await readFile(file, "utf8");
      } catch (error) {
        throw fromSystemError(error, `reading the hints ${file}`);
      }
    },
  };
}

export function announcementOf({ host, agent }: Pick<Config, "host" | "agent">) {
  return { host, sources: agent.sources, targets: agent.targets };
}

/** Blocks go to the writers of a pool. */
export function poolRoute({ pool }: AgentConfig): Record<string, Route> {
  return pool === "default" ? {} : { writer: { queue: `writer.${pool}` } };
}
