// dev-cluster start.
import { chmod, mkdir, readdir } from "node:fs/promises";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { startAgents } from "./agents.ts";
import { startFoundationDb } from "./foundationdb.ts";
import { choosePorts } from "./free-ports.ts";
import { instructions } from "./instructions.ts";
import { LocalCluster } from "./local-cluster.ts";
import { startNats } from "./nats.ts";
import { AGENTS, FOUNDATIONDB, NATS_NAMES, portNames, type Place } from "./place.ts";
import { prepareRepository } from "./repository.ts";
import { lockPlace, newState, readState } from "./state.ts";
import { stopProcesses } from "./stop.ts";
import { findTools } from "./tools.ts";

/** Where a command prints, and what ends it. */
export interface Console {
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

/** Starts what does not run; where all runs it says so. */
export async function startCluster(place: Place, terminal: Console): Promise<void> {
  const tools = findTools();
  await makeFolder(place);
  await using _lock = await lockPlace(place);
  const state = (await readState(place)) ?? newState();
  const cluster = new LocalCluster(place, tools, state, terminal);
  const wanted = [...NATS_NAMES, ...AGENTS.map(({ name }) => name)];
  if (state.hasDatabase) wanted.push(FOUNDATIONDB);
  if (wanted.every((name) => cluster.isRunning(name))) {
    terminal.say(`The cluster in ${place.folder} runs already; nothing was changed.`);
    terminal.say(instructions(cluster));
    return;
  }
  const hasSome = wanted.some((name) => cluster.isRunning(name));
  terminal.say(`${hasSome ? "Starting what does not run of" : "Starting"} ${place.folder}`);
  try {
    // What runs is found by its ports.
    if (!hasSome) state.ports = await choosePorts(portNames(), state.ports);
    await cluster.save();
    await prepareRepository(cluster);
    await startNats(cluster);
    terminal.say("three NATS servers are ready");
    await startFoundationDb(cluster);
    await startAgents(cluster);
  } catch (error) {
    terminal.say("The start failed: stopping what it has started.");
    await stopProcesses(cluster.launched);
    throw error;
  }
  terminal.say(instructions(cluster));
}

/** The folder has keys in it. Nobody's other folder is taken. */
async function makeFolder(place: Place): Promise<void> {
  try {
    await mkdir(place.folder, { recursive: true, mode: 0o700 });
    const names = await readdir(place.folder);
    const isForeign = names.length > 0 && !names.some((name) => /^(cluster\.json|lock)/.test(name));
    if (isForeign) {
      throw new AshlarError(
        ErrorCode.Refused,
        `${place.folder} has something else in it than a cluster`,
        { remedy: "name a new or empty folder" },
      );
    }
    await chmod(place.folder, 0o700);
    for (const name of ["logs", "nats"]) await mkdir(place.at(name), { recursive: true });
  } catch (error) {
    if (error instanceof AshlarError) throw error;
    throw fromSystemError(error, `making ${place.folder}`);
  }
}
