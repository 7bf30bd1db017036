// Which stream carries what (DESIGN §6). Claims, blocks and requests are work queues in memory: plaintext never rests on a
// disk of NATS, and what is lost is asked for again.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { MESSAGE_VERSION } from "#proto/messages.ts";
import { subjectToken } from "#proto/subjects.ts";

/** A stream as it must be. */
export interface StreamSpec {
  readonly name: string;
  readonly subjects: readonly string[];
  readonly storage: "memory" | "file";
  /** A work queue forgets what was acknowledged, and refuses what does not fit; a log forgets the oldest. */
  readonly kind: "workqueue" | "log";
  /** Bytes that it holds, with what NATS adds to each message. */
  readonly maxBytes: number;
  /** Older messages are forgotten, in ms. */
  readonly maxAgeMs: number;
  /** Servers that have it: 1, 3 or 5. */
  readonly replicas: number;
}

/** A queue: a subject of a work queue, with its consumer. */
export interface QueueSpec {
  readonly stream: string;
  readonly subject: string;
  /** Name of the durable consumer. */
  readonly consumer: string;
  /** A consumer that says nothing for so long has lost the message, in ms. */
  readonly ackWaitMs: number;
}

/** All streams and queues of one repository. */
export interface Topology {
  /** What the names of all subjects begin with. */
  readonly subjectPrefix: string;
  readonly streams: readonly StreamSpec[];
  queue(name: string): QueueSpec;
}

/** Bounds of the streams. */
export interface TopologyOptions {
  /** Tells repositories that share an account of NATS apart: letters, digits, - and _. */
  readonly prefix: string;
  readonly replicas: number;
  /** Bounds of the streams, in bytes. */
  readonly claimBytes: number;
  readonly blockBytes: number;
  readonly requestBytes: number;
}

/** Version of the subjects: actors of another one do not hear each other, and so need not understand each other. */
const SUBJECTS = `v${MESSAGE_VERSION}`;
/** Who asked is gone by then, or has asked again. */
const QUEUE_AGE_MS = 3_600_000;
const JOB_AGE_MS = 7 * 86_400_000;
const ACK_WAIT_MS = 30_000;

const PREFIX = /^[A-Za-z0-9][-A-Za-z0-9_]{0,31}$/;

/** What the names of all subjects begin with. */
export function subjectPrefixOf(prefix: string): string {
  return `${prefix}.${SUBJECTS}`;
}

/** What the inboxes of a client begin with, below the subject prefix. */
export function inboxName(client: string): string {
  return `inbox.${subjectToken(client)}`;
}

/** The streams and queues of a cluster; Config when the prefix cannot be one. */
export function clusterTopology(options: TopologyOptions): Topology {
  const { prefix, replicas } = options;
  if (!PREFIX.test(prefix)) {
    throw new AshlarError(
      ErrorCode.Config,
      `the NATS prefix ${JSON.stringify(prefix)} is not allowed`,
      { remedy: "choose up to 32 letters, digits, - and _" },
    );
  }
  const subjectPrefix = subjectPrefixOf(prefix);
  const stream = (name: string, subject: string, maxBytes: number): StreamSpec => ({
    name: `${prefix}-${name}`,
    subjects: [`${subjectPrefix}.${subject}`],
    storage: "memory",
    kind: "workqueue",
    maxBytes,
    maxAgeMs: QUEUE_AGE_MS,
    replicas,
  });
  return {
    subjectPrefix,
    streams: [
      stream("claims", "claims.>", options.claimBytes),
      stream("blocks", "blocks.>", options.blockBytes),
      stream("requests", "requests.>", options.requestBytes),
      stream("readers", "readers.>", options.requestBytes),
      // Jobs that nobody waits for, and what becomes of jobs, outlive a restart of the servers.
      {
        ...stream("jobs", "jobs.queue.>", options.requestBytes),
        storage: "file",
        maxAgeMs: JOB_AGE_MS,
      },
      {
        ...stream("events", "jobs.events.>", options.requestBytes),
        storage: "file",
        kind: "log",
        maxAgeMs: JOB_AGE_MS,
      },
    ],
    queue: (name) => {
      const { stream: carrier, rest } = carrierOf(name);
      const tokens = rest.map(subjectToken);
      const names = carrier === "jobs" ? ["jobs", "queue"] : [carrier];
      return {
        stream: `${prefix}-${carrier}`,
        subject: [subjectPrefix, ...names, ...tokens].join("."),
        consumer: tokens.join("-"),
        ackWaitMs: ACK_WAIT_MS,
      };
    },
  };
}

/** `writer` and `writer.POOL` carry blocks, `reader.HOST` what a host's agent is to do. */
function carrierOf(queue: string): { readonly stream: string; readonly rest: readonly string[] } {
  const dot = queue.indexOf(".");
  const role = dot < 0 ? queue : queue.slice(0, dot);
  const name = dot < 0 ? "default" : queue.slice(dot + 1);
  switch (role) {
    case "dedup":
      return { stream: "claims", rest: [name] };
    case "writer":
      return { stream: "blocks", rest: [name] };
    case "jobs":
      return { stream: "jobs", rest: [name] };
    case "reader":
      return { stream: "readers", rest: [name] };
    default:
      return { stream: "requests", rest: [role, name] };
  }
}
