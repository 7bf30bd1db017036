// What is written down about a cluster: its ports and its processes, so that another command finds them, also after a crash.
import { randomBytes } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { z } from "zod";
import { AshlarError, ErrorCode, fromSystemError, isErrorCode } from "#lib/core/errors.ts";
import type { Place } from "./place.ts";
import { isRunning, recordOf, type ProcessRecord } from "./process-record.ts";

const recordSchema = z.object({
  name: z.string(),
  pid: z.int().positive(),
  startTicks: z.string(),
  bootId: z.string(),
});

const stateSchema = z.object({
  version: z.literal(1),
  /** All listen at 127.0.0.1. */
  ports: z.record(z.string(), z.int()),
  /** The NATS servers know one another by it: whoever may connect as a server may do everything. */
  routePassword: z.string(),
  /** The repository was made to its end. */
  hasRepository: z.boolean(),
  /** FoundationDB has a database. */
  hasDatabase: z.boolean(),
  processes: z.array(recordSchema),
});

/** What cluster.json has in it. */
export type ClusterState = z.output<typeof stateSchema>;

/** The state of a cluster, or undefined where there is none. */
export async function readState(place: Place): Promise<ClusterState | undefined> {
  let text: string;
  try {
    text = await readFile(place.stateFile, "utf8");
  } catch (error) {
    const failure = fromSystemError(error, `reading ${place.stateFile}`);
    if (failure.code === ErrorCode.NotFound) return undefined;
    throw failure;
  }
  try {
    return stateSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new AshlarError(ErrorCode.Damaged, `${place.stateFile} is not what dev-cluster writes`, {
      cause: error,
      remedy: "choose another folder",
    });
  }
}

/** The state of a cluster that has nothing yet. */
export function newState(): ClusterState {
  return {
    version: 1,
    ports: {},
    routePassword: randomBytes(16).toString("hex"),
    hasRepository: false,
    hasDatabase: false,
    processes: [],
  };
}

/** Writes it down as a whole. */
export async function writeState(place: Place, state: ClusterState): Promise<void> {
  const temporary = `${place.stateFile}.new`;
  await writeFile(temporary, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  await rename(temporary, place.stateFile);
}

/** Holds the folder for this command; TryAgain while another one has it. */
export async function lockPlace(place: Place): Promise<AsyncDisposable> {
  const own = recordOf("dev-cluster", process.pid);
  const mine = `${place.lockFile}.${process.pid}`;
  await writeFile(mine, JSON.stringify(own), { mode: 0o600 });
  try {
    // A link comes into being with its content: nobody ever reads a half of it.
    for (let tries = 0; !(await takeLink(mine, place.lockFile)); tries += 1) {
      const holder = await readHolder(place.lockFile);
      if (holder !== undefined && (isRunning(holder) || tries > 2)) {
        throw new AshlarError(
          ErrorCode.TryAgain,
          `another dev-cluster command (process ${holder.pid}) works in ${place.folder}`,
          { remedy: "wait for its end" },
        );
      }
      await rm(place.lockFile, { force: true });
    }
  } finally {
    await rm(mine, { force: true });
  }
  return { [Symbol.asyncDispose]: () => rm(place.lockFile, { force: true }) };
}

async function takeLink(mine: string, lock: string): Promise<boolean> {
  try {
    await link(mine, lock);
    return true;
  } catch (error) {
    const failure = fromSystemError(error, `making ${lock}`);
    if (isErrorCode(failure, ErrorCode.AlreadyExists)) return false;
    throw failure;
  }
}

async function readHolder(lock: string): Promise<ProcessRecord | undefined> {
  try {
    return recordSchema.parse(JSON.parse(await readFile(lock, "utf8")));
  } catch {
    return undefined;
  }
}
