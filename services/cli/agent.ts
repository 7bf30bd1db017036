// An agent: some roles of a cluster in one process, until it is told to stop. A mere reader has the dedup key and nothing else of
// the repository; dedup, writers and coordinators open its metadata, keys and storages.
import { hostname } from "node:os";
import { routeBus } from "#lib/actor/routed-bus.ts";
import { Requester } from "#lib/actor/requester.ts";
import { traceBus } from "#lib/actor/traced-bus.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { openInprocBus } from "#lib/drivers/inproc/inproc-bus.ts";
import { sendDatagram } from "#lib/drivers/linux/notify-socket.ts";
import type { OtelTelemetry } from "#lib/drivers/opentelemetry/otel-telemetry.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import type { Bus } from "#lib/ports/bus.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";
import { joinCluster, type Cluster } from "#lib/process/cluster.ts";
import type { NatsConfig } from "#lib/process/cluster-schema.ts";
import { loadClusterConfig, type Config, type ReaderConfig } from "#lib/process/config-file.ts";
import { serveHealth } from "#lib/process/health-server.ts";
import { metadataUrl } from "#lib/process/metadata-store.ts";
import { watchMetadata } from "#lib/process/watch-metadata.ts";
import { systemPorts } from "#lib/process/open-repository.ts";
import { runHook } from "#lib/process/run-hook.ts";
import { canOpen } from "#lib/repository/keys.ts";
import type { Ports, Repository } from "#lib/repository/repository.ts";
import type { FailureHook } from "#services/coordinator/jobs/failure-hooks.ts";
import { startGauges } from "#services/coordinator/jobs/gauges.ts";
import { JobRunner } from "#services/coordinator/jobs/job-runner.ts";
import { consumeJobs, describeJob, jobEndpoints } from "#services/coordinator/jobs/job-service.ts";
import { startDedup } from "#services/dedup/dedup-actor.ts";
import { announceAgent, claimHost } from "#services/reader/announce.ts";
import { startReader } from "#services/reader/reader-actor.ts";
import { createUpkeep } from "#services/writer/upkeep.ts";
import { serveVerify } from "#services/writer/verify-messages.ts";
import { startWriter } from "#services/writer/writer-actor.ts";
import { announcementOf, poolRoute, readerOptions, startMereReader } from "./agent-reader.ts";
import { openEngine, type Engine } from "./compose.ts";
import type { CommandContext } from "./context.ts";
import { coordinatorSettings, ownPaths, slotsOf } from "./roles.ts";

/** A role that an agent can have. */
export type AgentRole = "reader" | "dedup" | "writer" | "coordinator";

/** A name of this process for the writers of the cluster, where its own writer is the one called so. */
const POOL_READS = "writer, of the cluster";
/** A late put of a writer is recorded this often, in ms. */
const LATE_EVERY_MS = 2000;

/** A running agent. */
export interface RunningAgent {
  readonly isConnected: () => boolean;
  /** Resolves when it cannot go on. */
  readonly lost: Promise<AshlarError>;
  stop(): Promise<void>;
}

/** Runs an agent until the context's signal aborts. */
export async function runAgent(
  context: CommandContext,
  roles: ReadonlySet<AgentRole>,
): Promise<void> {
  const { env, cwd, options } = context;
  const surroundings = { env, cwd, hostname: hostname() };
  const { kind, config } = await loadClusterConfig(options.config, surroundings);
  context.configureLog(config.log);
  if (kind === "client") {
    throw new AshlarError(ErrorCode.Config, `${config.file} is the configuration of a client`, {
      remedy: "name that of an agent, as `ashlar enroll` makes it, or of the repository",
    });
  }
  const telemetry = await openTelemetry(config);
  const ports = { ...systemPorts(context), telemetry };
  try {
    const agent =
      kind === "reader"
        ? await startMereReader(ports, config, roles)
        : await startAgent(context, config, roles, ports);
    await runStarted(context, config, roles, { ...agent, telemetry });
  } finally {
    await telemetry.close();
  }
}

/** Where nobody asks for it nothing of it is loaded. */
async function openTelemetry({
  host,
  telemetry,
  agent,
}: Pick<Config, "host" | "telemetry" | "agent">): Promise<ExportedTelemetry> {
  const { otlp, sampling } = telemetry;
  if (otlp === undefined && agent.health === undefined) {
    return { ...noTelemetry(), metrics: undefined, close: () => Promise.resolve() };
  }
  const { openOtelTelemetry } = await import("#lib/drivers/opentelemetry/otel-telemetry.ts");
  return openOtelTelemetry({ service: "ashlar", host, otlp, sampling });
}

/** Telemetry with what an agent needs beside it; `metrics` answers Prometheus. */
type ExportedTelemetry = Telemetry & {
  readonly metrics: OtelTelemetry["metrics"] | undefined;
  close(): Promise<void>;
};

async function runStarted(
  { env, log, signal }: CommandContext,
  config: Config | ReaderConfig,
  roles: ReadonlySet<AgentRole>,
  agent: RunningAgent & { readonly telemetry: ExportedTelemetry },
): Promise<void> {
  const health = await startHealth(config, roles, agent).catch(async (error: unknown) => {
    await agent.stop();
    throw error;
  });
  log.info(`the agent of ${config.host} is ready`, { roles: [...roles] });
  tellSystemd(env, "READY=1");
  try {
    const lost = await Promise.race([untilStopped(signal), agent.lost]);
    if (lost !== undefined) throw lost;
  } finally {
    tellSystemd(env, "STOPPING=1");
    await agent.stop();
    await health?.stop();
    log.info("the agent has stopped");
  }
}

function startHealth(
  { host, agent }: Pick<Config, "host" | "agent">,
  roles: ReadonlySet<AgentRole>,
  { isConnected, telemetry }: RunningAgent & { readonly telemetry: ExportedTelemetry },
): Promise<{ stop(): Promise<void> } | undefined> {
  if (agent.health === undefined) return Promise.resolve(undefined);
  return serveHealth(agent.health, () => ({
    ready: isConnected(),
    facts: { host, roles: [...roles], nats: isConnected() ? "connected" : "away" },
    metrics: (request, response) => telemetry.metrics?.(request, response),
  }));
}

/** Where the service manager wants to know (sd_notify(3)). */
function tellSystemd(env: NodeJS.ProcessEnv, message: string): void {
  const socket = env["NOTIFY_SOCKET"];
  if (socket !== undefined && socket !== "") sendDatagram(socket, message);
}

function untilStopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

async function startAgent(
  context: CommandContext,
  config: Config,
  roles: ReadonlySet<AgentRole>,
  ports: Ports,
): Promise<RunningAgent> {
  const { nats } = config;
  if (nats === undefined) {
    throw new AshlarError(ErrorCode.Config, `${config.file}: an agent needs the section nats`, {
      remedy: "add nats: { servers: [nats://HOST:4222] }",
    });
  }
  const engine = await openEngine(config, context, ports);
  try {
    const { lost, isConnected } = await startRolesOf(engine, nats, roles);
    const watched = watchMetadata(engine.kv, metadataUrl(config), engine.ports);
    engine.onClose(() => watched.stop());
    return { isConnected, lost: Promise.race([lost, watched.lost]), stop: () => engine.close() };
  } catch (error) {
    await engine.close().catch(() => undefined);
    throw error;
  }
}

async function startRolesOf(
  engine: Engine,
  nats: NatsConfig,
  roles: ReadonlySet<AgentRole>,
): Promise<Cluster> {
  const { config, ports } = engine;
  const repo = await engine.repository();
  const slots = slotsOf(config.memory.budgetBytes, repo.config.blockBytes);
  const cluster = await joinCluster({
    nats,
    // Nobody who may hear the answers to a host's reader hears those to others of that host.
    host: `${config.host}~core`,
    ports,
    payloadBytes: slots.slotBytes,
    managesStreams: true,
  });
  const canRead = canOpen(repo.keys);
  const bus = routedBus(engine, traceBus(cluster.bus, ports.telemetry), roles);
  engine.onClose(() => bus.close());
  if (roles.has("dedup")) {
    const dedup = startDedup(repo, bus);
    engine.onClose(() => dedup.stop());
  }
  if (roles.has("writer")) {
    const writer = startWriter(repo, bus, {
      ...slots,
      leavesScrubs: !roles.has("coordinator"),
    });
    const ended = new AbortController();
    const recorded = recordLate(ports, writer, ended.signal);
    engine.onClose(async () => {
      ended.abort();
      await recorded;
      await writer.stop();
    });
  }
  if (roles.has("reader")) {
    const { compute, keys } = repo;
    const forbid = ownPaths(config);
    const claimed = await claimHost(bus, ports, config.host);
    engine.onClose(() => claimed.stop());
    const reader = startReader({
      ...readerOptions({ config, ports, keys, slots, forbid }),
      bus,
      compute,
      // A writer beside it that can only write gives nothing back: those of the cluster do.
      ...(config.agent.localWriter && !canRead ? { readsQueue: POOL_READS } : {}),
    });
    engine.onClose(() => reader.stop());
    const announced = announceAgent(bus, ports.clock, announcementOf(config));
    engine.onClose(() => announced.stop());
  }
  if (roles.has("coordinator")) {
    // It reaches the storages as well: scrubs get on where no writer is there, or none that knows what is asked.
    const verifying = roles.has("writer") ? undefined : serveVerify(repo, bus);
    if (verifying !== undefined) engine.onClose(() => verifying.stop());
    await startCoordinator(engine, repo, bus, cluster);
  }
  return cluster;
}

async function startCoordinator(
  engine: Engine,
  repo: Repository,
  bus: Bus,
  cluster: Cluster,
): Promise<void> {
  const { config, ports } = engine;
  const { jobs } = config;
  const storages = await engine.defaultStorages();
  const requester = new Requester(bus, ports.clock, ports.random);
  engine.onClose(() => requester.close());
  const context = {
    repo,
    bus,
    requester,
    // What writers elsewhere have not ended by then is owed, and filled.
    upkeep: createUpkeep(repo, { bus, requester }, () => Promise.resolve([])),
    settings: coordinatorSettings(config, storages),
    host: config.host,
    lock: engine.lockName,
    isOwnerAlive: engine.isOwnerAlive,
  };
  const gauges = startGauges(context);
  engine.onClose(() => gauges.stop());
  const runner = new JobRunner(context, {
    perHost: jobs.perHost,
    perStorage: jobs.perStorage,
    storages,
    ...(jobs.failureHook === undefined ? {} : { failureHook: failureHook(jobs.failureHook) }),
    atOnce: jobs.perCoordinator,
    historyMs: jobs.history,
  });
  engine.onClose(() => runner.stop());
  const published = consumeJobs(context);
  engine.onClose(() => published.stop());
  const service = await cluster.serve(
    "jobs",
    "Backups, restores and upkeep of block devices",
    jobEndpoints(context, runner.agents),
  );
  engine.onClose(() => service.stop());
}

/** The job as the service answers it; its name and kind are in the environment as well. */
function failureHook(command: string): FailureHook {
  return ({ job, record }, signal) => {
    const env = { ASHLAR_JOB: job, ASHLAR_JOB_KIND: record.kind, ASHLAR_JOB_STATE: record.state };
    return runHook(command, describeJob(job, record), env, signal);
  };
}

/** With a writer in the same process blocks stay in memory, where the configuration wants that. */
function routedBus({ config, ports }: Engine, cluster: Bus, roles: ReadonlySet<AgentRole>): Bus {
  const { agent } = config;
  if (!agent.localWriter) return routeBus(cluster, poolRoute(agent));
  if (!roles.has("writer")) {
    throw new AshlarError(
      ErrorCode.Config,
      `${config.file}: agent.localWriter needs the role writer in the same process`,
      { remedy: "start it with --roles reader,writer, or set localWriter: false" },
    );
  }
  const pool = poolRoute(agent)["writer"] ?? { queue: "writer" };
  return routeBus(cluster, { writer: { bus: openInprocBus(ports) }, [POOL_READS]: pool });
}

/** Puts that end after their quorum are recorded without anybody asking. */
async function recordLate(
  { clock, log }: Ports,
  writer: { drain(ms: number): Promise<unknown> },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await clock.sleep(LATE_EVERY_MS, signal);
      await writer.drain(0);
    } catch (error) {
      if (!signal.aborted) log.warn("late puts could not be recorded", { error });
    }
  }
}
