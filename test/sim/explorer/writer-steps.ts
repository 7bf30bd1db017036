// What writers do (services/writer/put.ts): put objects, and record later what nobody waited for.
import type { LocalState, PutJob } from "./local-state.ts";
import { putObject } from "./local-state.ts";
import type { Situation, Step } from "./step.ts";
import type { Copy, Name, Universe } from "./universe.ts";

/** Puts of a job land, one by one. `find` finds the job in the draft. */
export function jobSteps(
  { universe }: Situation,
  job: PutJob,
  who: string,
  find: (draft: LocalState) => PutJob | undefined,
): Step[] {
  if (universe.configuration.separatePuts !== true) return [];
  return job.puts.flatMap((put, at): Step[] => {
    if (put.state !== "running") return [];
    const name: Name = [put.storage, job.item, put.generation];
    return [
      {
        kind: "put",
        label: `${who}'s writer: the put of ${universe.describe(name)} lands`,
        next: (draft) => {
          const landed = find(draft)?.puts[at];
          if (landed === undefined) return;
          landed.state = "done";
          putObject(draft, name);
        },
      },
    ];
  });
}

/**
 * The copies of a job that can be recorded as durable now: all that have landed; or, where objects land in the moment in
 * which they are recorded, any that are enough.
 */
export function durableSets(universe: Universe, job: PutJob): Copy[][] {
  const copies = job.puts.map(({ storage, generation }): Copy => [storage, generation]);
  if (universe.configuration.separatePuts === true) {
    const done = copies.filter((_, at) => job.puts[at]?.state === "done");
    return done.length >= job.need ? [done] : [];
  }
  const sets: Copy[][] = [[]];
  for (const copy of copies) sets.push(...sets.map((set) => [...set, copy]));
  return sets.filter((set) => set.length >= job.need);
}

/** The copies of a job that can be recorded now, each for itself. */
function singleCopies(universe: Universe, job: PutJob): Copy[][] {
  const isSeparate = universe.configuration.separatePuts === true;
  return job.puts
    .filter(({ state }) => !isSeparate || state === "done")
    .map(({ storage, generation }) => [[storage, generation]]);
}

/** Where objects land in the moment in which they are recorded, they land now. */
export function landAtOnce(
  draft: LocalState,
  universe: Universe,
  item: number,
  copies: readonly Copy[],
): void {
  if (universe.configuration.separatePuts === true) return;
  for (const [storage, generation] of copies) putObject(draft, [storage, item, generation]);
}

/** Copies for people. */
export function describeCopies(universe: Universe, item: number, copies: readonly Copy[]): string {
  if (copies.length === 0) return `${universe.item(item).name} without copies`;
  return copies
    .map(([storage, generation]) => universe.describe([storage, item, generation]))
    .join(", ");
}

/** Nobody waits for the job any more: what is under way goes on, if the world lets it. */
export function abandonJob(draft: LocalState, universe: Universe, job: PutJob): void {
  if (universe.configuration.latePuts !== true) return;
  const isNode = universe.item(job.item).kind === "node";
  // Nodes that are durable when the writer answers are recorded by their commit, and by nobody else.
  const puts = isNode ? job.puts.filter(({ state }) => state === "running") : job.puts;
  if (puts.length > 0) draft.jobs.push({ ...job, puts, need: isNode ? 0 : job.need });
}

/** What writers do for jobs that no reader waits for. */
export function lateJobSteps(situation: Situation): Step[] {
  return situation.local.jobs.flatMap((job, at) => [
    ...jobSteps(situation, job, "a late", (draft) => draft.jobs[at]),
    ...recordSteps(situation, job, at),
  ]);
}

function recordSteps({ universe }: Situation, job: PutJob, at: number): Step[] {
  if (universe.item(job.item).kind === "node") return placeLateSteps(universe, job, at);
  const isFirst = !job.recorded;
  const sets = isFirst ? durableSets(universe, job) : singleCopies(universe, job);
  return sets.map((done): Step => {
    const isDone = (storage: number): boolean => done.some(([other]) => other === storage);
    const rest = job.puts.filter(({ storage }) => !isDone(storage));
    return {
      kind: "storeLate",
      label: `a late writer: records ${describeCopies(universe, job.item, done)} as stored`,
      request: {
        type: "store",
        item: job.item,
        done,
        pending: isFirst ? rest.map(({ storage, generation }) => [storage, generation]) : [],
      },
      next: (draft) => {
        landAtOnce(draft, universe, job.item, done);
        const recorded = draft.jobs[at];
        if (recorded !== undefined) recorded.recorded = true;
        dropPuts(
          draft,
          at,
          done.map(([storage]) => storage),
        );
      },
    };
  });
}

function placeLateSteps(universe: Universe, job: PutJob, at: number): Step[] {
  return singleCopies(universe, job).flatMap((copies) =>
    copies.map(([storage, generation]): Step => {
      const name: Name = [storage, job.item, generation];
      return {
        kind: "placeLate",
        label: `a late writer: places ${universe.describe(name)}`,
        request: { type: "placeFilled", name },
        next: (draft, outcome) => {
          landAtOnce(draft, universe, job.item, copies);
          // A node whose children are not there yet is remembered, and tried again.
          if (!outcome.ok || outcome.value === "children") return;
          dropPuts(draft, at, [storage]);
        },
      };
    }),
  );
}

function dropPuts(draft: LocalState, at: number, storages: readonly number[]): void {
  const job = draft.jobs[at];
  if (job === undefined) return;
  job.puts = job.puts.filter(({ storage }) => !storages.includes(storage));
  if (job.puts.length === 0) draft.jobs.splice(at, 1);
}
