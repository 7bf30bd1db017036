// dev-cluster status.
import { answersWell } from "./local-cluster.ts";
import { NATS_HEALTH } from "./nats.ts";
import { AGENTS, FOUNDATIONDB, NATS_NAMES, type Place } from "./place.ts";
import { isRunning } from "./process-record.ts";
import type { ClusterState } from "./state.ts";
import { requireState } from "./stop.ts";

/** Prints each process; whether all are ready. */
export async function showStatus(place: Place, say: (line: string) => void): Promise<boolean> {
  const state = await requireState(place);
  const names = [...NATS_NAMES, ...AGENTS.map(({ name }) => name)];
  if (state.hasDatabase) names.push(FOUNDATIONDB);
  let areReady = true;
  for (const name of names) {
    const record = state.processes.find((each) => each.name === name && isRunning(each));
    const isReady = record !== undefined && (await isWell(name, state));
    areReady &&= isReady;
    const what = record === undefined ? "stopped" : isReady ? "ready" : "not ready";
    const pid = record === undefined ? "" : `process ${record.pid}`;
    say(`${name.padEnd(14)} ${what.padEnd(10)} ${pid}`.trimEnd());
  }
  return areReady;
}

function isWell(name: string, { ports }: ClusterState): Promise<boolean> {
  // FoundationDB is asked by its own protocol; that it runs has to do.
  if (name === FOUNDATIONDB) return Promise.resolve(true);
  const isNats = NATS_NAMES.some((each) => each === name);
  return isNats
    ? answersWell(ports[`${name}-monitor`], NATS_HEALTH)
    : answersWell(ports[name], "/readyz");
}
