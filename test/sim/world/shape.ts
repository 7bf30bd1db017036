// What kind of world a seed makes: how many of what, in which processes, how slow, and which faults.
import type { FaultRates } from "../engine/faults.ts";
import type { Latency } from "../engine/sim-process.ts";
import type { CoordinatorSettings } from "#services/coordinator/context.ts";
import type { Role } from "./roles.ts";

/** A world. */
export interface WorldShape {
  readonly storages: number;
  /** So many of them never lose anything. */
  readonly reliableStorages: number;
  /** Index of a storage whose listings lag; undefined where there is none. */
  readonly laggingStorage: number | undefined;
  /** The storages lock their objects for so long; undefined where they do not. */
  readonly lockMs?: number | undefined;
  readonly volumes: number;
  /** Operators who work at the same time. */
  readonly operators: number;
  readonly processes: readonly { readonly host: string; readonly roles: readonly Role[] }[];
  readonly latency: Latency;
  readonly settings: Omit<CoordinatorSettings, "storages" | "quorum">;
  /** The share of sources whose reads take seconds. */
  readonly slowSources: number;
  readonly faults: FaultRates;
  /** Any fault may happen: operations may fail. */
  readonly hasFaults: boolean;
  /** Storages may lose and damage what they hold: what is damaged may be found so. */
  readonly hasLosses: boolean;
  /** Patience is longer than anything takes: nothing is sent twice. */
  readonly isPatient: boolean;
  /** A simulation with more events than these has lost its progress. */
  readonly eventsMax: number;
}

/** All roles in one process on each host, as the command line has them. */
export function oneProcessPerHost(hosts: number): WorldShape["processes"] {
  return Array.from({ length: hosts }, (_, index) => ({
    host: `h${index}`,
    roles: ["reader", "dedup", "writer", "coordinator"] as const,
  }));
}

/** A process for each role: agents on the hosts, and a pool of the others. */
export function oneProcessPerRole(hosts: number): WorldShape["processes"] {
  const agents = Array.from({ length: hosts }, (_, index) => [
    { host: `h${index}`, roles: ["reader"] as const },
    { host: `h${index}`, roles: ["coordinator"] as const },
  ]);
  return [
    ...agents.flat(),
    { host: "p0", roles: ["dedup"] },
    { host: "p1", roles: ["dedup"] },
    { host: "p0", roles: ["writer"] },
    { host: "p1", roles: ["writer"] },
  ];
}
