// Every planted bug is caught: the checkers see what they are there for. Each bug has its seeds and a process of its own.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Invariant } from "../checkers/violation.ts";
import { runTasks, type SeedReport, type Task } from "../pool.ts";
import { STEPS, type PlantedBug } from "./planted-bug.ts";
import { PLANTED_BUGS } from "./planted-bugs.ts";

/** What must be shown to be caught, by its own checker: every invariant. */
const INVARIANTS: readonly Invariant[] = [
  "I1",
  "I2",
  "I3",
  "I4",
  "I5",
  "I6",
  "I7",
  "I8",
  "marks",
  "progress",
];

/** Bugs that are planted at once: there are two cores where the least of all is run. */
const PARALLEL = 2;

/** Runs a bug's seeds until one fails; undefined when none does. */
async function firstFailure({
  name,
  scenario,
  seeds,
}: PlantedBug): Promise<SeedReport | undefined> {
  const tasks = Array.from({ length: seeds.count }, (_, index): Task => ({
    scenario,
    seed: String(seeds.from + index),
  }));
  let failed: SeedReport | undefined;
  await runTasks(
    tasks,
    (report) => {
      if (report.failure !== undefined) failed = report;
    },
    { processes: 1, mutation: name, stop: () => failed !== undefined },
  );
  return failed;
}

describe("planted bugs", { concurrency: PARALLEL }, () => {
  for (const bug of PLANTED_BUGS) {
    it(`${bug.step}: ${bug.name}`, async () => {
      const { scenario, seeds, breaks } = bug;
      const failed = await firstFailure(bug);
      const from = `${seeds.count} seeds of ${scenario} from ${seeds.from}`;
      assert.ok(failed?.failure !== undefined, `none of ${from} catches it`);
      const { invariant, message } = failed.failure;
      assert.ok(
        (breaks as readonly string[]).includes(invariant),
        `seed ${failed.seed} fails as ${invariant}, not as ${breaks.join(" or ")}: ${message}`,
      );
    });
  }
});

it("every step of the protocol has a planted bug", () => {
  for (const step of STEPS) {
    assert.ok(
      PLANTED_BUGS.some((bug) => bug.step === step),
      `no bug is planted in ${step}`,
    );
  }
});

it("every invariant has a planted bug that its own checker catches", () => {
  for (const invariant of INVARIANTS) {
    assert.ok(
      PLANTED_BUGS.some(({ breaks }) => breaks.length === 1 && breaks[0] === invariant),
      `no bug can only be caught as ${invariant}`,
    );
  }
});

it("no two planted bugs have the same name", () => {
  assert.equal(new Set(PLANTED_BUGS.map(({ name }) => name)).size, PLANTED_BUGS.length);
});
