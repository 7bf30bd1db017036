// Fsck: walks everything in the metadata and checks the invariants (DESIGN §4, I1 to I4). It shares codecs and keyspace with
// the transactions and none of their decisions. Other processes go on: what looks wrong is looked at again, with all that it
// depends on, in one transaction. Memory is bounded: ordered ranges are read in steps, and references are merged in passes.
import { InvariantError } from "#lib/core/assert.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { checkNodes } from "./nodes.ts";
import { checkObjects, type SkippedStorage } from "./objects.ts";
import { checkQueues } from "./queues.ts";
import { checkRecords } from "./records.ts";
import { checkReferences } from "./references.ts";
import { FsckRun, type FsckCounts, type FsckFinding, type FsckOptions } from "./run.ts";
import { checkSessions } from "./sessions.ts";
import { checkVersions } from "./versions.ts";
import { isRebuildUnfinished } from "../rebuild/keyspace.ts";

/** Outcome of fsck. */
export interface FsckResult {
  /** At most 1000; `findingCount` says how many there are. */
  readonly findings: readonly FsckFinding[];
  readonly findingCount: number;
  /** Of these, what is left: a command that leaves any ends as Damaged. */
  readonly unrepairedCount: number;
  readonly counts: FsckCounts;
  /** Storages that could not be looked at. */
  readonly skipped: readonly SkippedStorage[];
}

/**
 * Checks the metadata, and with `storages` what the storages show. `repair` mends what can be mended without touching good
 * data, each finding in a transaction that reads again; what it leaves says in `what` how to go on.
 */
export async function runFsck(repo: Repository, options: FsckOptions = {}): Promise<FsckResult> {
  const run = new FsckRun(repo, options);
  // What is pending excuses marks: with nothing pending, nothing is excused.
  if (run.repairs) await settleMarks(run);
  if (await isRebuildUnfinished(repo.kv)) {
    run.report({
      invariant: "rebuild",
      what: "a rebuild has not come to its end: run it again",
      where: "metadata",
      repaired: false,
    });
  }
  await checkRecords(run);
  await checkNodes(run);
  await checkReferences(run);
  await checkVersions(run);
  await checkSessions(run);
  await checkQueues(run);
  const skipped = options.storages === true ? await checkObjects(run) : [];
  if (run.repairs) await settleMarks(run);
  await repo.kv.flush();
  const { findings, findingCount, unrepairedCount, counts } = run;
  return { findings, findingCount, unrepairedCount, counts, skipped };
}

async function settleMarks(run: FsckRun): Promise<void> {
  try {
    await drainRechecks(run.repo.kv, run.options.signal);
  } catch (error) {
    // A re-check that comes upon a record that cannot be read: that record is found, and the mark has to wait for it.
    if (!(error instanceof InvariantError)) throw error;
    run.repo.log.warn("marks could not be checked again", { error });
  }
}
