/** docs/benchmarks-cluster.md. */
import { median } from "../contender.ts";
import { machineTable, NOTES_HEADING, table, targetTable } from "../report.ts";
import { asFactor, asPercent, atLeast, atMost, ratio, type Verdict } from "../scenario-result.ts";
import type { BackupRun } from "./backups.ts";
import type { ClaimFigure } from "./claims.ts";
import type { IdleAgent } from "./idle.ts";

/** How a host's backup is brought to the storages. */
export type Mode = "embedded" | "local" | "pooled";

/** What was measured. */
export interface ClusterParts {
  readonly machine: ReadonlyMap<string, string>;
  readonly imageBytes: number;
  readonly runs: Readonly<Record<Mode, readonly BackupRun[]>>;
  readonly transport: { readonly cpuSeconds: number; readonly natsCpuSeconds: number };
  readonly rehashSeconds: number;
  readonly claims: readonly ClaimFigure[];
  readonly idle: readonly IdleAgent[];
  readonly fdbMissing: string | undefined;
}

const POOLED_CPU_MAX = 1.15;
const LOCAL_SPEED_MIN = 0.95;
const KNOWN_MIN = 150_000;
const NEW_MIN = 40_000;
const IDLE_CPU_MAX = 0.005;
const IDLE_TRANSACTIONS_MAX = 1;

const cpuOf = (run: BackupRun): number => Object.values(run.cpu).reduce((a, b) => a + b, 0);
const count = (value: number): string => Math.round(value).toLocaleString("en");

/** The targets, and what became of them. */
export function judgeCluster(parts: ClusterParts): Verdict[] {
  const { runs, transport, rehashSeconds, claims, idle } = parts;
  const medianOf = (mode: Mode, pick: (run: BackupRun) => number): number =>
    median(runs[mode].map(pick));
  const allowed = medianOf("embedded", cpuOf) + transport.cpuSeconds + rehashSeconds;
  const speed = ratio(
    medianOf("embedded", ({ wallSeconds }) => wallSeconds),
    medianOf("local", ({ wallSeconds }) => wallSeconds),
  );
  const perCpu = (what: string): number | undefined => {
    const figure = claims.find((each) => each.store === "LMDB" && each.what === what);
    return figure === undefined ? undefined : (figure.ids * 1000) / figure.cpuMs;
  };
  const ids = (value: number): string => `${count(value)} ids per CPU second`;
  const busiest = Math.max(...idle.map(({ cpuShare }) => cpuShare));
  const transactions = Math.max(...idle.map((agent) => agent.transactionsPerSecond ?? 0));
  return [
    atMost(
      `pooled: CPU at most ${POOLED_CPU_MAX} × (embedded + bare transport + one hash)`,
      ratio(medianOf("pooled", cpuOf), allowed),
      POOLED_CPU_MAX,
      asFactor,
    ),
    atLeast(
      `local: at least ${asPercent(LOCAL_SPEED_MIN)} of embedded`,
      speed,
      LOCAL_SPEED_MIN,
      asPercent,
    ),
    atLeast(
      `LMDB: known ids, at least ${count(KNOWN_MIN)}`,
      perCpu("claims of known ids"),
      KNOWN_MIN,
      ids,
    ),
    atLeast(`LMDB: new ids, at least ${count(NEW_MIN)}`, perCpu("claims of new ids"), NEW_MIN, ids),
    atMost(
      "idle agents: less than 0.5 % of a core each",
      busiest,
      IDLE_CPU_MAX,
      (value) => `${(value * 100).toFixed(2)} %`,
    ),
    atMost(
      "idle agents: less than 1 transaction a second each",
      transactions,
      IDLE_TRANSACTIONS_MAX,
      (value) => `${value.toFixed(2)} a second`,
    ),
  ];
}

function backupTable({ runs, imageBytes }: ClusterParts): string[] {
  const rows = (["embedded", "local", "pooled"] as const).map((mode) => {
    const list = runs[mode];
    const seconds = median(list.map(({ wallSeconds }) => wallSeconds));
    const names = Object.keys(list[0]?.cpu ?? {});
    const shares = names.map(
      (name) => `${name} ${median(list.map(({ cpu }) => cpu[name] ?? 0)).toFixed(2)}`,
    );
    return [
      mode,
      seconds.toFixed(2),
      (imageBytes / 1e6 / seconds).toFixed(0),
      median(list.map(cpuOf)).toFixed(2),
      shares.join(", "),
      median(list.map(({ natsCpuSeconds }) => natsCpuSeconds)).toFixed(2),
      String(list.length),
    ];
  });
  return table(["", "s", "MB/s", "CPU s", "of which", "nats-server CPU s", "runs"], rows);
}

/** The report; what people wrote below its notes is kept. */
export function formatClusterReport(parts: ClusterParts, notes: string): string {
  const { machine, transport, rehashSeconds, claims, idle, fdbMissing, imageBytes } = parts;
  const rate = (ids: number, ms: number): string => count((ids * 1000) / ms);
  return [
    "# Benchmarks of the cluster",
    "",
    "Written by `npm run bench -- cluster`, except for the notes at the end. A full backup of one host's image of real data",
    `(${(imageBytes / 1024 ** 3).toFixed(1)} GiB, in the page cache), in turn: **embedded** (one process, no NATS; without start-up), **local**`,
    "(reader and writer in one agent, claims over NATS) and **pooled** (a mere reader, a writer and a dedup elsewhere; each block crosses",
    "NATS). Agents live for weeks: these have backed up 512 MiB of random data before. An embedded process is new for each backup; its",
    "start-up is not counted. Medians; CPU is of the agents' processes while the job runs.",
    "",
    ...machineTable(machine),
    "",
    "## Targets",
    "",
    ...targetTable(judgeCluster(parts)),
    "",
    "## One host's backup",
    "",
    ...backupTable(parts),
    "",
    `The same bytes published and consumed by a bare client: ${transport.cpuSeconds.toFixed(2)} s of CPU, and ${transport.natsCpuSeconds.toFixed(2)} s of nats-server's; hashed once more: ${rehashSeconds.toFixed(2)} s.`,
    "",
    "## Claims",
    "",
    "Through a dedup, in batches of 256, two under way, in a process that has done so before; by its CPU time, the asking side's",
    "included, and by the clock.",
    "",
    ...table(
      ["", "ids per CPU second", "ids per second"],
      claims.map(({ store, what, ids, cpuMs, wallMs }) => [
        `${store}: ${what}`,
        rate(ids, cpuMs),
        rate(ids, wallMs),
      ]),
    ),
    ...(fdbMissing === undefined ? [] : ["", `FoundationDB was not measured: ${fdbMissing}.`]),
    "",
    "## Idle agents",
    "",
    ...table(
      ["", "% of a core", "transactions a second"],
      idle.map(({ store, role, cpuShare, transactionsPerSecond }) => [
        `${store}: ${role}`,
        (cpuShare * 100).toFixed(2),
        transactionsPerSecond?.toFixed(2) ?? "",
      ]),
    ),
    "",
    NOTES_HEADING,
    notes === "" ? "" : `\n${notes.trim()}\n`,
  ].join("\n");
}
