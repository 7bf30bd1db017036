// What of a configuration is about the cluster: how NATS is reached, and what this host's agent may touch.
import { dirname, resolve } from "node:path";
import { z } from "zod";
import {
  bytesPerSecond,
  duration,
  expecting,
  optional,
  path,
  share,
  size,
  string,
  whole,
} from "./schema-values.ts";

const MIB = 1024 * 1024;
const PREFIX_RULE = "up to 32 letters, digits, - and _";
const NAME_RULE = "a name of letters, digits, - and _";

/** A bound of a stream: at least what one message may take. */
function streamBytes(bytes: number) {
  return size(
    "a size between 1MiB and 1TiB",
    (given) => given >= MIB && given <= 1024 ** 4,
  ).default(bytes);
}

const tlsSchema = z.strictObject(
  { caFile: path.optional(), certFile: path.optional(), keyFile: path.optional() },
  expecting("a section with caFile, certFile and keyFile"),
);

const streamsSchema = z.strictObject(
  {
    claims: streamBytes(64 * MIB),
    blocks: streamBytes(256 * MIB),
    requests: streamBytes(32 * MIB),
  },
  expecting("a section"),
);

/** The section `nats`. */
export const natsSchema = z
  .strictObject(
    {
      servers: z
        .array(
          string("a URL such as nats://host:4222", /^(nats|tls):\/\/\S+$/),
          expecting("a list of URLs of NATS servers"),
        )
        .min(1, "expected at least one server"),
      prefix: string(PREFIX_RULE, /^[A-Za-z0-9][-A-Za-z0-9_]{0,31}$/).default("ashlar"),
      credentialsFile: path.optional(),
      nkeyFile: path.optional(),
      user: string("a user's name").optional(),
      passwordFile: path.optional(),
      tls: tlsSchema.optional(),
      /** Of a client whose user has inboxes of its own: _INBOX_NAME. */
      inboxPrefix: string("a subject such as _INBOX_alice", /^[-A-Za-z0-9_=.]{1,200}$/).optional(),
      /** Servers that keep each stream. */
      replicas: whole(1, 5).default(1),
      streams: optional(streamsSchema),
    },
    expecting("a section with servers"),
  )
  .superRefine(({ credentialsFile, nkeyFile, user, passwordFile }, context) => {
    const ways = [credentialsFile, nkeyFile, user].filter((way) => way !== undefined);
    if (ways.length > 1) {
      const message = "expected one of credentialsFile, nkeyFile and user, found several";
      context.addIssue({ code: "custom", path: [], message });
    }
    if (passwordFile !== undefined && user === undefined) {
      context.addIssue({
        code: "custom",
        path: ["passwordFile"],
        message: "expected user beside it",
      });
    }
  });

const patterns = (what: string) =>
  z.array(string(`a pattern such as ${what}`), expecting("a list of patterns"));

/** The section `agent`. */
export const agentSchema = z.strictObject(
  {
    /** What may be read, as `file:/dev/vg0/*` or `/dev/vg0/*`. */
    sources: patterns("/dev/vg0/*").default([]),
    /** What may be restored onto. */
    targets: patterns("/dev/vg0/*").default([]),
    /** The pool of writers that blocks go to; a writer serves the pool of its own configuration. */
    pool: string(NAME_RULE, /^[-A-Za-z0-9_]{1,64}$/).default("default"),
    /** Bytes per second that this host's backups read from their devices, all together; without a limit unless given. */
    readRate: bytesPerSecond().optional(),
    /** Threads that hash, compress and seal; as many as there are processors unless given. */
    threads: whole(1, 1024).optional(),
    /** Where /healthz and /readyz are answered; nowhere unless given. */
    health: string(
      "an address such as 127.0.0.1:9101",
      /^(\[[0-9a-f:]+\]|[^\s:]+):\d{1,5}$/i,
    ).optional(),
    /** Blocks go to a writer in the same process, and not over NATS. */
    localWriter: z.boolean(expecting("true or false")).default(false),
  },
  expecting("a section"),
);

/** The section `telemetry`, of agents. */
export const telemetrySchema = z.strictObject(
  {
    /** Where traces and metrics go; nowhere unless given. */
    otlp: string("a URL such as http://127.0.0.1:4318", /^https?:\/\/\S+$/).optional(),
    /** The share of jobs that are traced. */
    sampling: share.default(1),
  },
  expecting("a section"),
);

/** What is told of what an agent does. */
export type TelemetryConfig = z.output<typeof telemetrySchema>;

const DAY_MS = 86_400_000;

/** The section `jobs`, of coordinators. */
export const jobsSchema = z.strictObject(
  {
    /** Jobs of one host's devices that run at once, and of one coordinator. */
    perHost: whole(1, 256).default(4),
    perCoordinator: whole(1, 1024).default(16),
    /** Backups that write to one storage at once, in the whole cluster. */
    perStorage: whole(1, 4096).default(64),
    /** Run when a job has failed for good: it gets the job as JSON on its standard input. */
    failureHook: path.optional(),
    /** How long ended jobs are remembered. */
    history: duration(60_000, 3650 * DAY_MS, "between 1m and 3650d").default(90 * DAY_MS),
  },
  expecting("a section"),
);

/** How a coordinator runs jobs. */
export type JobsConfig = z.output<typeof jobsSchema>;

/** How NATS is reached, and the bounds of its streams. Paths are absolute. */
export type NatsConfig = z.output<typeof natsSchema>;
/** What this host's agent may do. */
export type AgentConfig = z.output<typeof agentSchema>;

/** Relative paths start from the configuration's folder. */
export function absolutePaths(nats: NatsConfig, file: string): NatsConfig {
  const folder = dirname(file);
  const absolute = <K extends string>(name: K, value: string | undefined) =>
    (value === undefined ? {} : { [name]: resolve(folder, value) }) as { [P in K]?: string };
  const { tls } = nats;
  return {
    ...nats,
    ...absolute("credentialsFile", nats.credentialsFile),
    ...absolute("nkeyFile", nats.nkeyFile),
    ...absolute("passwordFile", nats.passwordFile),
    ...(tls === undefined
      ? {}
      : {
          tls: {
            ...absolute("caFile", tls.caFile),
            ...absolute("certFile", tls.certFile),
            ...absolute("keyFile", tls.keyFile),
          },
        }),
  };
}

/** The keys of the sections, for what a misspelled one may have meant. */
export const clusterKeys: Readonly<Record<string, readonly string[]>> = {
  nats: Object.keys(natsSchema.shape),
  "nats.tls": Object.keys(tlsSchema.shape),
  "nats.streams": Object.keys(streamsSchema.shape),
  agent: Object.keys(agentSchema.shape),
  jobs: Object.keys(jobsSchema.shape),
  telemetry: Object.keys(telemetrySchema.shape),
};
