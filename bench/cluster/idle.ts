/** What agents take that have nothing to do. */
import { setTimeout } from "node:timers/promises";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import { fdbClusterFile, fdbMissing } from "#test/servers/fdb.ts";
import { freePort } from "#test/servers/nats-server.ts";
import { watchCpu } from "./processes.ts";

/** An agent that had nothing to do. */
export interface IdleAgent {
  readonly store: string;
  readonly role: string;
  /** Of one core. */
  readonly cpuShare: number;
  /** Transactions of the metadata, also those that only read; undefined for a reader, which has none. */
  readonly transactionsPerSecond: number | undefined;
}

/** What an agent does when it starts is over by then, in ms. */
const SETTLE_MS = 10_000;
const WATCH_MS = 60_000;

/** On LMDB, and on FoundationDB where there is one. */
export async function measureIdle(): Promise<IdleAgent[]> {
  const onLmdb = await measureOn("LMDB", {});
  const fdb = fdbMissing() === undefined ? fdbClusterFile() : undefined;
  return fdb === undefined ? onLmdb : [...onLmdb, ...(await measureOn("FoundationDB", { fdb }))];
}

async function measureOn(store: string, options: { readonly fdb?: string }): Promise<IdleAgent[]> {
  await using cluster = await TestCluster.make(options);
  const { repo } = cluster;
  await repo.configure([["sessions", "lease"], undefined]);
  const pids: Record<string, number> = {};
  const ports: Record<string, number> = {};
  for (const role of ["dedup", "writer", "coordinator"]) {
    ports[role] = await freePort();
    await repo.configure([["agent", "health"], `127.0.0.1:${ports[role]}`]);
    pids[role] = (await cluster.startAgent(role)).pid;
  }
  pids["reader"] = (await cluster.startAgent("reader", await cluster.enroll("hv1"))).pid;
  await setTimeout(SETTLE_MS);
  const before = await countTransactions(ports);
  const cpu = watchCpu(pids);
  const startedAt = performance.now();
  await setTimeout(WATCH_MS);
  const taken = cpu();
  const seconds = (performance.now() - startedAt) / 1000;
  const after = await countTransactions(ports);
  await cluster.stopAgents();
  return Object.entries(taken).map(([role, cpuSeconds]) => {
    const [from, to] = [before[role], after[role]];
    const transactionsPerSecond =
      from === undefined || to === undefined ? undefined : (to - from) / seconds;
    return { store, role, cpuShare: cpuSeconds / seconds, transactionsPerSecond };
  });
}

async function countTransactions(
  ports: Readonly<Record<string, number>>,
): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const [role, port] of Object.entries(ports)) {
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    counts[role] = [
      ...text.matchAll(/^ashlar_kv_(?:transactions|reads)_total(?:\{.*\})? (\S+)/gm),
    ].reduce((sum, [, value]) => sum + Number(value), 0);
  }
  return counts;
}
