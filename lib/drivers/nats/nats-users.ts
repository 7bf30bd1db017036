// Users of NATS and what they may do: a reader reaches its own jobs, payloads and replies, and nobody else's (DESIGN §2, §6).
import { nkeys } from "@nats-io/transport-node";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { subjectToken } from "#proto/subjects.ts";
import { clusterTopology, inboxName, type Topology } from "./nats-topology.ts";

/** *reader*: the agent of one host. *core*: dedup, writers, coordinators. *client*: people and tools that submit jobs. */
export const NATS_ROLES = ["reader", "core", "client"] as const;
/** What a user is for. */
export type NatsRole = (typeof NATS_ROLES)[number];

/** As the configuration of nats-server has it. */
interface Permissions {
  readonly publish: { readonly allow: readonly string[] };
  readonly subscribe: { readonly allow: readonly string[] };
  /** It may answer what it was asked. */
  readonly allow_responses?: boolean;
}

/** A user. */
export interface NatsUser {
  readonly role: NatsRole;
  readonly name: string;
  /** Public key; the seed is the user's alone. */
  readonly nkey: string;
  /** Of the repository that it belongs to (`nats.prefix`). */
  readonly prefix: string;
}

/** The users of an account of NATS. */
export interface NatsUsers {
  readonly users: readonly NatsUser[];
  /** Lines of users that are not Ashlar's, as somebody has written them. */
  readonly others: readonly string[];
}

/** Makes a user's key. */
export function createNatsKey(): { readonly nkey: string; readonly seed: string } {
  const pair = nkeys.createUser();
  return { nkey: pair.getPublicKey(), seed: Buffer.from(pair.getSeed()).toString("utf8") };
}

/** What a user may do; `name` is the host of a reader. */
export function permissionsOf(role: NatsRole, name: string, prefix: string): Permissions {
  const topology = topologyOf(prefix);
  switch (role) {
    case "reader":
      return readerPermissions(name, topology);
    case "core":
      return corePermissions(topology);
    case "client":
      return clientPermissions(name, topology);
  }
}

function topologyOf(prefix: string): Topology {
  return clusterTopology({ prefix, replicas: 1, claimBytes: 0, blockBytes: 0, requestBytes: 0 });
}

function readerPermissions(host: string, topology: Topology): Permissions {
  const { subjectPrefix: own } = topology;
  const token = subjectToken(host);
  const { stream, subject, consumer } = topology.queue(`reader.${host}`);
  return {
    publish: {
      allow: [
        topology.queue("dedup").subject,
        `${own}.blocks.*`,
        topology.queue("upkeep").subject,
        // Answers to coordinators. Inboxes cannot be guessed, and nobody can listen there but their owner.
        `${own}.inbox.>`,
        `${own}.hosts.${token}.progress.*`,
        `${own}.hosts.${token}.agent`,
        `${own}.hosts.${token}.here`,
        `${own}.streams.missing`,
        // The filter stands in the subject, so the consumer can be of no other queue.
        `$JS.API.CONSUMER.CREATE.${stream}.${consumer}.${subject}`,
        `$JS.API.CONSUMER.INFO.${stream}.${consumer}`,
        `$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`,
        `$JS.ACK.${stream}.${consumer}.>`,
      ],
    },
    subscribe: {
      allow: [
        `${own}.${inboxName(host)}.>`,
        `${own}.hosts.${token}.cancel.*`,
        `${own}.hosts.${token}.attend.*`,
        `${own}.hosts.${token}.agent`,
        `${own}.streams.made`,
      ],
    },
  };
}

function corePermissions({ subjectPrefix, streams }: Topology): Permissions {
  const api = streams.flatMap(({ name }) => [
    ...["INFO", "CREATE", "UPDATE"].map((verb) => `$JS.API.STREAM.${verb}.${name}`),
    `$JS.API.CONSUMER.CREATE.${name}.>`,
    `$JS.API.CONSUMER.INFO.${name}.*`,
    `$JS.API.CONSUMER.LIST.${name}`,
    `$JS.API.CONSUMER.DELETE.${name}.*`,
    `$JS.API.CONSUMER.MSG.NEXT.${name}.*`,
    `$JS.ACK.${name}.>`,
  ]);
  return {
    publish: { allow: [`${subjectPrefix}.>`, ...api] },
    subscribe: { allow: [`${subjectPrefix}.>`, "$SRV.>"] },
    allow_responses: true,
  };
}

const JOB_VERBS = ["submit", "get", "list", "cancel", "schedule", "schedules", "unschedule"];

function clientPermissions(name: string, topology: Topology): Permissions {
  const { subjectPrefix: own } = topology;
  return {
    publish: {
      allow: [
        ...JOB_VERBS.map((verb) => `${own}.jobs.${verb}`),
        topology.queue("jobs").subject,
        "$SRV.>",
      ],
    },
    subscribe: { allow: [`_INBOX_${subjectToken(name)}.>`, `${own}.jobs.events.*`] },
  };
}

const HEAD =
  "# Users of NATS for Ashlar, kept by `ashlar enroll`, `ashlar nats-user` and `ashlar revoke`.\n" +
  "# The server includes it: authorization { include FILE }, and reads it again with `nats-server --signal reload`.\n" +
  "# An account has one list of users: those of other repositories and programs may stand in this one, and are kept.\n";
/** Comments, and one list. What somebody has written elsewhere would be lost. */
const FILE = /^(?:#.*\n|[ \t]*\n)*users: \[\n(?<list>(?:.*\n)*?)\]\s*$/;
const USER = /^# (reader|core|client) (\S+)\n *(\{.*\}),?[ \t]*\n/gm;

/** The text of a file of users, for nats-server to include. */
export function renderUsers({ users, others }: NatsUsers): string {
  const entries = users.map(({ role, name, nkey, prefix }) => {
    const user = { nkey, permissions: permissionsOf(role, name, prefix) };
    return `# ${role} ${name}\n  ${JSON.stringify(user)}`;
  });
  return `${HEAD}users: [\n${[...others, ...entries].join("\n")}\n]\n`;
}

/** Reads such a file; Damaged where it is none, or has something that would be lost when it is written again. */
export function parseUsers(text: string, file: string): NatsUsers {
  if (!text.startsWith("# Users of NATS for Ashlar")) {
    throw new AshlarError(ErrorCode.Damaged, `${file} is not a file of NATS users of Ashlar`, {
      remedy: "name another file: this one would be overwritten",
    });
  }
  const list = FILE.exec(text.replaceAll("\r\n", "\n"))?.groups?.["list"];
  if (list === undefined) {
    throw new AshlarError(ErrorCode.Damaged, `${file} has something beside its list of users`, {
      remedy: "put that into the file that includes this one: here it would be lost",
    });
  }
  const users = [...list.matchAll(USER)].map(([, role, name = "", json = ""]) =>
    parseUser({ role: role as NatsRole, name }, json, file),
  );
  const others = list.replaceAll(USER, "").split("\n");
  return { users, others: others.filter((line) => line.trim() !== "") };
}

function parseUser(user: Pick<NatsUser, "role" | "name">, json: string, file: string): NatsUser {
  let entry: { readonly nkey: string; readonly permissions: Permissions };
  try {
    entry = JSON.parse(json) as typeof entry;
  } catch (error) {
    throw new AshlarError(
      ErrorCode.Damaged,
      `${file}: the entry of the ${user.role} ${user.name} cannot be read: ${(error as Error).message}`,
      { cause: error, remedy: "take the entry out by hand, and enroll again" },
    );
  }
  return { ...user, nkey: entry.nkey, prefix: prefixIn(entry.permissions) };
}

/** Every role may publish below its own prefix, first of all. */
function prefixIn({ publish }: Permissions): string {
  const [first = ""] = publish.allow;
  return first.slice(0, first.indexOf("."));
}
