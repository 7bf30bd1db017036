// The set of seeds that runs with every change. It must find nothing; and it must have been worth its while: every fault has
// fired, every rare branch was taken.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BRANCHES } from "./checkers/branches.ts";
import { runTasks, type SeedReport, type Task } from "./pool.ts";
import { REGRESSIONS } from "./regressions.ts";
import { FAULTS } from "./engine/faults.ts";

/** Seeds of each scenario; those that failed once come first. */
const SET: readonly Task[] = [
  ...REGRESSIONS,
  ...seedsOf("basic", 40),
  ...seedsOf("collection", 8),
  ...seedsOf("deaths", 12),
  ...seedsOf("damage", 12),
  ...seedsOf("sites", 12),
  ...seedsOf("locked", 12),
  ...seedsOf("disaster", 16),
  ...seedsOf("faults", 16),
  ...seedsOf("full", 12),
];

/** Where something rare has not happened yet, so many further seeds may look for it. */
const MORE: readonly Task[] = [...seedsOf("full", 60, 1001)];

function seedsOf(scenario: string, count: number, from = 1): Task[] {
  return Array.from({ length: count }, (_, index) => ({ scenario, seed: String(from + index) }));
}

/** What has happened in some runs. */
class Coverage {
  readonly faults = new Set<string>();
  readonly branches = new Set<string>();

  add({ faults, branches }: SeedReport): void {
    for (const name of Object.keys(faults)) this.faults.add(name);
    for (const name of Object.keys(branches)) this.branches.add(name);
  }

  get missing(): string[] {
    return [
      ...FAULTS.filter((name) => !this.faults.has(name)),
      ...BRANCHES.filter((name) => !this.branches.has(name)),
    ];
  }
}

describe("simulation", () => {
  it("finds nothing, while every fault fires and every rare branch is taken", async () => {
    const coverage = new Coverage();
    const failures: SeedReport[] = [];
    const note = (report: SeedReport): void => {
      coverage.add(report);
      if (report.failure !== undefined) failures.push(report);
    };
    await runTasks(SET, note);
    await runTasks(MORE, note, { stop: () => coverage.missing.length === 0 });
    assert.deepEqual(failures, []);
    assert.deepEqual(coverage.missing, []);
  });

  it("runs a seed in the same way in another process, whatever ran there before", async () => {
    const seeds: Task[] = [
      { scenario: "full", seed: "2" },
      { scenario: "basic", seed: "2" },
      { scenario: "disaster", seed: "2" },
    ];
    const hashesOf = async (tasks: readonly Task[]): Promise<Record<string, string>> => {
      const hashes: Record<string, string> = {};
      const note = ({ scenario, seed, traceHash }: SeedReport): void => {
        hashes[`${scenario} ${seed}`] = traceHash;
      };
      await runTasks(tasks, note, { processes: 1 });
      return hashes;
    };
    const [one, other] = await Promise.all([hashesOf(seeds), hashesOf(seeds.toReversed())]);
    assert.deepEqual(one, other);
    assert.equal(new Set(Object.values(one ?? {})).size, seeds.length);
  });

  it("fails a seed whose process crashes", async () => {
    const failures: string[] = [];
    await runTasks(
      [{ scenario: "no such scenario", seed: "1" }],
      ({ failure }) => void failures.push(failure?.invariant ?? "none"),
      { processes: 1 },
    );
    assert.deepEqual(failures, ["defect"]);
  });
});
