// Where the files of a local cluster lie, and which processes it has.
import { homedir } from "node:os";
import path from "node:path";

/** The checkout. */
export const ROOT = path.resolve(import.meta.dirname, "../..");
/** The program. */
export const ASHLAR = path.join(ROOT, "bin/ashlar");

/** The hosts that have a reader. */
export const HOSTS = ["hv1", "hv2"] as const;
/** The NATS servers. */
export const NATS_NAMES = ["nats-1", "nats-2", "nats-3"] as const;
/** The name of the one FoundationDB process. */
export const FOUNDATIONDB = "foundationdb";

/** An agent: one role as a process of its own. */
export interface AgentPlan {
  readonly name: string;
  readonly role: "coordinator" | "dedup" | "writer" | "reader";
  /** Of a reader. */
  readonly host?: (typeof HOSTS)[number];
}

/** The agents in the order in which they are started. */
export const AGENTS: readonly AgentPlan[] = [
  { name: "dedup", role: "dedup" },
  { name: "writer-1", role: "writer" },
  { name: "writer-2", role: "writer" },
  { name: "coordinator", role: "coordinator" },
  ...HOSTS.map((host) => ({ name: `reader-${host}`, role: "reader" as const, host })),
];

/** The user that submits jobs. */
export const CLIENT = "dev";

/** The folder of a cluster. */
export class Place {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = path.resolve(folder);
  }

  static default(): Place {
    return new Place(path.join(homedir(), "ashlar-dev-cluster"));
  }

  at(...names: string[]): string {
    return path.join(this.folder, ...names);
  }

  get stateFile(): string {
    return this.at("cluster.json");
  }

  get lockFile(): string {
    return this.at("lock");
  }

  /** Configuration, key, metadata, and the configurations of the agents that need them. */
  get repository(): string {
    return this.at("repository");
  }

  get repositoryConfig(): string {
    return this.at("repository", "ashlar.yaml");
  }

  /** What `ashlar enroll` makes for a host. */
  hostFolder(host: string): string {
    return this.at("hosts", host);
  }

  /** What a host's agent may read and restore onto. */
  disks(host: string): string {
    return this.at("disks", host);
  }

  get natsUsers(): string {
    return this.at("nats", "ashlar-users.conf");
  }

  get clientConfig(): string {
    return this.at("client", "client.yaml");
  }

  get clientKey(): string {
    return this.at("client", "client.nk");
  }

  get foundationDbFile(): string {
    return this.at("foundationdb", "fdb.cluster");
  }

  /** The configuration that an agent is started with. */
  agentConfig({ name, host }: AgentPlan): string {
    return host === undefined
      ? this.at("repository", `agent-${name}.yaml`)
      : path.join(this.hostFolder(host), "agent.yaml");
  }

  log(name: string): string {
    return this.at("logs", `${name}.log`);
  }
}

/** The names of the ports that a cluster listens at. */
export function portNames(): string[] {
  const nats = NATS_NAMES.flatMap((name) => [name, `${name}-route`, `${name}-monitor`]);
  return [...nats, FOUNDATIONDB, ...AGENTS.map(({ name }) => name)];
}
