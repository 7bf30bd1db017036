// `npm run sim -- --scenario NAME --seeds N`: runs seeds and prints what came of them; `--seed S` runs one, `--trace` with all
// that happens in it.
import { Command, InvalidArgumentError } from "commander";
import { runTasks, type SeedReport, type Task } from "./pool.ts";
import { runSeed } from "./workload/run.ts";
import { SCENARIOS } from "./workload/scenarios.ts";

interface Options {
  readonly scenario: string;
  readonly seeds: number;
  readonly from: number;
  readonly seed?: string;
  readonly trace?: boolean;
  readonly quiet?: boolean;
}

const SCENARIO_LINES = [...SCENARIOS.values()].map(({ name, about }) => `  ${name}: ${about}`);

const program = new Command("sim")
  .description("Runs seeds of the deterministic simulation (docs/testing.md).")
  .option("--scenario <name>", "which scenario", "full")
  .option("--seeds <count>", "how many seeds", wholeNumber, 100)
  .option("--from <seed>", "the first of them", wholeNumber, 1)
  .option("--seed <seed>", "only this one")
  .option("--trace", "print every event (with --seed)")
  .option("--quiet", "print only what failed, and the sum")
  .addHelpText("after", `\nScenarios:\n${SCENARIO_LINES.join("\n")}`);

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError("a whole number");
  return value;
}

/** Sums over many seeds. */
class Totals {
  runs = 0;
  failures = 0;
  events = 0;
  operations = 0;
  virtualMs = 0;
  readonly faults = new Map<string, number>();
  readonly branches = new Map<string, number>();

  add(report: SeedReport): void {
    this.runs += 1;
    this.events += report.events;
    this.operations += report.operations;
    this.virtualMs += report.virtualMs;
    if (report.failure !== undefined) this.failures += 1;
    addAll(this.faults, report.faults);
    addAll(this.branches, report.branches);
  }

  lines(seconds: number): string[] {
    const perMinute = Math.round((this.runs / seconds) * 60);
    const hours = Math.round(this.virtualMs / 3_600_000);
    return [
      `${this.runs} seeds, ${this.failures} failed; ${seconds.toFixed(1)} s (${perMinute} a minute)`,
      `${this.operations} operations, ${this.events} events, ${hours} hours of virtual time`,
      `faults: ${sorted(this.faults)}`,
      `branches: ${sorted(this.branches)}`,
    ];
  }
}

function addAll(sums: Map<string, number>, counts: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(counts)) sums.set(name, (sums.get(name) ?? 0) + count);
}

function sorted(counts: ReadonlyMap<string, number>): string {
  return [...counts]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, count]) => `${name} ${count}`)
    .join(", ");
}

/** What a run was, in one line; and, where it failed, why and how to see it again. */
function reportLines(report: SeedReport): string[] {
  const { scenario, seed, traceHash, events, operations, failed, faults, failure } = report;
  const fired = Object.values(faults).reduce((sum, count) => sum + count, 0);
  const kinds = Object.keys(faults).length;
  const line = `${scenario} ${seed}: ${failure === undefined ? "ok" : failure.invariant}, trace ${traceHash}, ${events} events, ${operations} operations (${failed} failed), ${fired} faults of ${kinds} kinds`;
  if (failure === undefined) return [line];
  return [line, failure.message, `again: npm run sim -- --scenario ${scenario} --seed ${seed}`];
}

const print = (lines: readonly string[]): void =>
  void process.stdout.write(`${lines.join("\n")}\n`);

async function runOne(scenario: string, seed: string, isTraced: boolean): Promise<SeedReport> {
  const known = SCENARIOS.get(scenario);
  if (known === undefined) throw new Error(`there is no scenario ${scenario}`);
  const keep = isTraced ? (line: string) => print([line]) : undefined;
  const { faults, branches, ...rest } = await runSeed(known, seed, keep);
  return { ...rest, faults: Object.fromEntries(faults), branches: Object.fromEntries(branches) };
}

async function main(): Promise<void> {
  const options = program.parse().opts<Options>();
  const { scenario, seed, quiet = false } = options;
  if (!SCENARIOS.has(scenario)) {
    program.error(`there is no scenario ${scenario}: ${[...SCENARIOS.keys()].join(", ")}`);
  }
  const totals = new Totals();
  const startedMs = performance.now();
  const onReport = (report: SeedReport): void => {
    totals.add(report);
    if (!quiet || report.failure !== undefined) print(reportLines(report));
  };
  if (seed === undefined) {
    const tasks = Array.from({ length: options.seeds }, (_, index): Task => ({
      scenario,
      seed: String(options.from + index),
    }));
    await runTasks(tasks, onReport);
  } else {
    onReport(await runOne(scenario, seed, options.trace ?? false));
  }
  print(totals.lines((performance.now() - startedMs) / 1000));
  if (totals.failures > 0) process.exitCode = 1;
}

await main();
