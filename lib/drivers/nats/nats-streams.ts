// Makes streams and consumers, and alters them to what they must be. Everything here may run in several processes at once.
import {
  AckPolicy,
  DeliverPolicy,
  DiscardPolicy,
  JetStreamApiError,
  ReplayPolicy,
  RetentionPolicy,
  StorageType,
  type Consumer,
  type ConsumerConfig,
  type JetStreamClient,
  type JetStreamManager,
  type StreamConfig,
} from "@nats-io/jetstream";
import { nanos } from "@nats-io/transport-node";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatSize } from "#lib/core/size.ts";
import { isFull, isMissing, isOff, lastingError } from "./nats-errors.ts";
import type { QueueSpec, StreamSpec } from "./nats-topology.ts";

/** Messages sent again by a publisher that has got no answer are recognised for so long. */
const DUPLICATES_MS = 120_000;
/** What all consumers of a queue together may have under way. */
const ACKS_PENDING_MAX = 100_000;

/**
 * Makes each stream that is missing, and alters those that are otherwise; Config or Unavailable where that cannot be.
 * Gives the names of those that it made.
 */
export async function ensureStreams(
  manager: JetStreamManager,
  streams: readonly StreamSpec[],
): Promise<string[]> {
  const made: string[] = [];
  for (const stream of streams) {
    if (await ensureStream(manager, stream)) made.push(stream.name);
  }
  return made;
}

/** True where it was missing. */
async function ensureStream(manager: JetStreamManager, spec: StreamSpec): Promise<boolean> {
  const wanted = streamConfig(spec);
  try {
    const found = await manager.streams.info(spec.name).catch((error: unknown) => {
      if (isMissing(error)) return undefined;
      throw error;
    });
    if (found === undefined) {
      await manager.streams.add(wanted);
      return true;
    }
    requireKind(spec, found.config);
    if (!isAsWanted(found.config, wanted)) await manager.streams.update(spec.name, wanted);
    return false;
  } catch (error) {
    throw streamError(error, spec);
  }
}

function streamConfig(spec: StreamSpec): StreamConfig & { readonly name: string } {
  const config: Partial<StreamConfig> & { readonly name: string } = {
    name: spec.name,
    subjects: [...spec.subjects],
    storage: spec.storage === "memory" ? StorageType.Memory : StorageType.File,
    retention: spec.kind === "workqueue" ? RetentionPolicy.Workqueue : RetentionPolicy.Limits,
    discard: spec.kind === "workqueue" ? DiscardPolicy.New : DiscardPolicy.Old,
    max_bytes: spec.maxBytes,
    max_age: nanos(spec.maxAgeMs),
    num_replicas: spec.replicas,
    duplicate_window: nanos(Math.min(DUPLICATES_MS, spec.maxAgeMs)),
  };
  return config as StreamConfig & { readonly name: string };
}

/** What can never be altered. */
function requireKind(spec: StreamSpec, found: StreamConfig): void {
  const wanted = streamConfig(spec);
  if (found.storage === wanted.storage && found.retention === wanted.retention) return;
  throw new AshlarError(
    ErrorCode.Config,
    `the NATS stream ${spec.name} is of another kind: ${found.storage} storage and ${found.retention} retention, not ${wanted.storage} and ${wanted.retention}`,
    { remedy: "delete it if it is nobody's, or choose another nats.prefix" },
  );
}

function isAsWanted(found: StreamConfig, wanted: StreamConfig): boolean {
  return (
    found.subjects.join() === wanted.subjects.join() &&
    found.discard === wanted.discard &&
    found.max_bytes === wanted.max_bytes &&
    found.max_age === wanted.max_age &&
    found.num_replicas === wanted.num_replicas &&
    found.duplicate_window === wanted.duplicate_window
  );
}

/** JSStreamSubjectOverlapErr. */
const SUBJECT_OVERLAP = 10065;
/** JSMaximumStreamsLimitErr. */
const TOO_MANY_STREAMS = 10027;
/** JSClusterNoPeersErrF, JSStreamReplicasNotSupportedErr. */
const TOO_FEW_SERVERS: ReadonlySet<number> = new Set([10005, 10074]);

function streamError(error: unknown, spec: StreamSpec): AshlarError {
  const what = `making the NATS stream ${spec.name}`;
  const lasting = lastingError(error, what);
  if (lasting !== undefined) return lasting;
  if (isOff(error)) return jetStreamOff(error);
  const code = error instanceof JetStreamApiError ? error.code : 0;
  const reason = error instanceof Error ? error.message : String(error);
  if (code === SUBJECT_OVERLAP) {
    return new AshlarError(
      ErrorCode.Config,
      `${what}: another stream has some of its subjects (${spec.subjects.join(", ")})`,
      { cause: error, remedy: "delete that stream, or choose another nats.prefix" },
    );
  }
  if (code === TOO_MANY_STREAMS) {
    return new AshlarError(ErrorCode.Config, `${what}: the account may have no further stream`, {
      cause: error,
      remedy: "raise max_streams of the account of NATS: Ashlar needs six for each repository",
    });
  }
  if (TOO_FEW_SERVERS.has(code)) {
    return new AshlarError(
      ErrorCode.Config,
      `${what}: ${spec.replicas} replicas are asked for, and NATS has not so many servers with JetStream: ${reason}`,
      { cause: error, remedy: "start the other servers, or lower nats.replicas" },
    );
  }
  if (isFull(error)) {
    const isMemory = spec.storage === "memory";
    const setting = isMemory ? "max_memory_store" : "max_file_store";
    const ofAccount = isMemory ? "max_mem" : "max_file";
    return new AshlarError(
      ErrorCode.Config,
      `${what}: NATS has no ${formatSize(spec.maxBytes)} of ${spec.storage} storage left for it: ${reason}`,
      {
        cause: error,
        remedy: `raise ${setting} in the jetstream section of the NATS server, or ${ofAccount} of the account, or lower the bounds in nats.streams`,
      },
    );
  }
  return new AshlarError(ErrorCode.Unavailable, `${what}: ${reason}`, {
    cause: error,
    remedy: "it is tried again; look at the NATS servers if it lasts",
  });
}

/** The error for a NATS without JetStream. */
export function jetStreamOff(cause: unknown): AshlarError {
  return new AshlarError(ErrorCode.Config, "JetStream is off at the NATS server", {
    cause,
    remedy:
      "add a jetstream section to the configuration of the server, and permit it for the account",
  });
}

/** The consumer of a queue, made where it is missing, and altered where it is otherwise. The stream must be there. */
export async function openConsumer(
  manager: JetStreamManager,
  client: JetStreamClient,
  queue: QueueSpec,
): Promise<Consumer> {
  const wanted = consumerConfig(queue);
  try {
    const consumer = await client.consumers.get(queue.stream, queue.consumer);
    // As it was just now, when it was looked for.
    const { config } = await consumer.info(true);
    if (isConsumerAsWanted(config, wanted)) return consumer;
    await manager.consumers.update(queue.stream, queue.consumer, wanted);
  } catch (error) {
    if (!isMissing(error)) throw error;
    await manager.consumers.add(queue.stream, wanted);
  }
  return client.consumers.get(queue.stream, queue.consumer);
}

function consumerConfig(queue: QueueSpec): ConsumerConfig {
  const config: Partial<ConsumerConfig> = {
    durable_name: queue.consumer,
    filter_subject: queue.subject,
    ack_policy: AckPolicy.Explicit,
    ack_wait: nanos(queue.ackWaitMs),
    deliver_policy: DeliverPolicy.All,
    replay_policy: ReplayPolicy.Instant,
    // A message that is given up would stay in the stream for ever: whoever gets it too often ends it (nats-consumer.ts).
    max_deliver: -1,
    max_ack_pending: ACKS_PENDING_MAX,
  };
  return config as ConsumerConfig;
}

/** In what another release may have made otherwise. */
function isConsumerAsWanted(found: ConsumerConfig, wanted: ConsumerConfig): boolean {
  return (
    found.filter_subject === wanted.filter_subject &&
    found.ack_wait === wanted.ack_wait &&
    found.max_ack_pending === wanted.max_ack_pending
  );
}
