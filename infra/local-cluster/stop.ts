// dev-cluster stop.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { AGENTS, type Place } from "./place.ts";
import { isRunning, stopAll, type ProcessRecord } from "./process-record.ts";
import { lockPlace, readState, writeState, type ClusterState } from "./state.ts";

/** An agent ends what it does within 20 s, or gives up. */
const AGENT_MS = 25_000;
const SERVER_MS = 15_000;

/** Stops what was recorded and is still there. */
export async function stopCluster(place: Place, say: (line: string) => void): Promise<void> {
  await requireState(place);
  await using _lock = await lockPlace(place);
  const state = await requireState(place);
  const running = state.processes.filter(isRunning);
  await stopProcesses(running);
  await writeState(place, { ...state, processes: [] });
  say(
    running.length === 0
      ? `The cluster in ${place.folder} did not run.`
      : `Stopped ${running.map(({ name }) => name).join(", ")}. The data are still in ${place.folder}.`,
  );
}

/** Agents first: they use the servers to the end. */
export async function stopProcesses(records: readonly ProcessRecord[]): Promise<void> {
  const isAgent = ({ name }: ProcessRecord): boolean => AGENTS.some((plan) => plan.name === name);
  await stopAll(records.filter(isAgent), AGENT_MS);
  await stopAll(
    records.filter((record) => !isAgent(record)),
    SERVER_MS,
  );
}

/** The state of a cluster that has to be there. */
export async function requireState(place: Place): Promise<ClusterState> {
  const state = await readState(place);
  if (state !== undefined) return state;
  throw new AshlarError(ErrorCode.NotFound, `there is no cluster in ${place.folder}`, {
    remedy: "`infra/dev-cluster start DIR` makes one",
  });
}
