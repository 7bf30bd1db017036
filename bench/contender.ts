/** What is measured side by side: the machine's limit, Ashlar, and the peers, behind one interface. */
import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Measurement } from "./measured-run.ts";
import { flushSeconds, type Workspace } from "./workspace.ts";

/** One measured piece of work. */
export interface Outcome extends Measurement {
  /** The work without starting the program, where the program itself tells; else start-up is subtracted. */
  readonly workSeconds?: number;
  /** CPU of the work alone, likewise. */
  readonly workCpuSeconds?: number;
  /** Length of all that the repository stores after this run. */
  readonly storedBytes?: number;
  readonly counts?: BackupCounts;
}

/** What Ashlar says that a backup did. */
export interface BackupCounts {
  readonly uid: string;
  readonly bytesRead: number;
  readonly blocksRead: number;
  readonly blocksKnown: number;
  readonly bytesStored: number;
}

/** A restore, and the file that it made. */
export interface Restored {
  readonly outcome: Outcome;
  readonly file: string;
}

/** A program under measurement. A repository is a folder that `create` makes. */
export interface Contender {
  readonly name: string;
  readonly version: string;
  create(repository: string, blockSize?: string): Promise<void>;
  /** Backs an image up; when it is known already, all of it is read again nevertheless. */
  backup(repository: string, image: string): Promise<Outcome>;
  /** The same image again: the limit only reads and hashes it. */
  backupAgain(repository: string, image: string): Promise<Outcome>;
  /** Restores what the last backup of `image` holds, below `folder`. */
  restore(repository: string, image: string, folder: string): Promise<Restored>;
  /** Reads and verifies every byte that is stored. */
  verify(repository: string): Promise<Outcome>;
}

/** What is done with a repository. */
export type Verb = "backup" | "restore" | "verify";

/** What a contender needs for no work at all, by verb. */
export type StartUp = Readonly<
  Record<Verb, { readonly wallSeconds: number; readonly cpuSeconds: number }>
>;

const START_UP_ROUNDS = 3;

/** The middle value; of an even number of values the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/**
 * Measures a contender on an empty file: process start, key derivation, opening and closing of the
 * repository. The limit tells its own work and needs none of this.
 */
export async function measureStartUp(contender: Contender, workspace: Workspace): Promise<StartUp> {
  const folder = workspace.newPath(`start-up-${contender.name}`);
  await mkdir(folder);
  const repository = path.join(folder, "repository");
  const image = path.join(folder, "empty.img");
  await writeFile(image, "");
  await contender.create(repository);
  const runs: Record<Verb, Measurement[]> = { backup: [], restore: [], verify: [] };
  try {
    for (let round = 0; round < START_UP_ROUNDS; round++) {
      const target = path.join(folder, `target-${round}`);
      runs.backup.push(await contender.backup(repository, image));
      runs.restore.push((await contender.restore(repository, image, target)).outcome);
      runs.verify.push(await contender.verify(repository));
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  const medians = (list: readonly Measurement[]): StartUp[Verb] => {
    return {
      wallSeconds: median(list.map((run) => run.wallSeconds)),
      cpuSeconds: median(list.map((run) => run.cpuSeconds)),
    };
  };
  return {
    backup: medians(runs.backup),
    restore: medians(runs.restore),
    verify: medians(runs.verify),
  };
}

/**
 * Adds the time until a restored file is on the disk. Some programs flush it and some do not; so each
 * pays for its whole work.
 */
export async function withFlush({ outcome, file }: Restored): Promise<Outcome> {
  const flush = await flushSeconds(file);
  const work =
    outcome.workSeconds === undefined ? {} : { workSeconds: outcome.workSeconds + flush };
  return { ...outcome, wallSeconds: outcome.wallSeconds + flush, ...work };
}
