// `npm run sim -- --scenario NAME --seeds N`: runs seeds, prints what came of them.
import { Command } from "commander";
import { runSeed } from "./workload/run.ts";
import { SCENARIOS } from "./workload/scenarios.ts";

const program = new Command("sim")
  .option("--scenario <name>", "", "basic")
  .option("--seeds <n>", "", "10")
  .option("--from <n>", "", "1")
  .option("--trace");
program.parse();
const options = program.opts<{ scenario: string; seeds: string; from: string; trace?: boolean }>();
const scenario = SCENARIOS.get(options.scenario);
if (scenario === undefined) throw new Error("no such scenario");
const started = performance.now();
let bad = 0;
const branches = new Map<string, number>();
const faults = new Map<string, number>();
for (let index = 0; index < Number(options.seeds); index += 1) {
  const seed = String(Number(options.from) + index);
  const result = await runSeed(
    scenario,
    seed,
    options.trace === true ? (line) => console.log(line) : undefined,
  );
  for (const [name, count] of result.branches)
    branches.set(name, (branches.get(name) ?? 0) + count);
  for (const [name, count] of result.faults) faults.set(name, (faults.get(name) ?? 0) + count);
  if (result.failure === undefined) continue;
  bad += 1;
  console.log(
    `seed ${seed}: ${result.failure.invariant} ${result.failure.message.slice(0, 1500)} (${result.operations} operations, ${result.events} events)`,
  );
}
const seconds = (performance.now() - started) / 1000;
console.log(`${options.seeds} seeds, ${bad} failed, ${seconds.toFixed(1)} s`);
console.log(JSON.stringify(Object.fromEntries(faults)));
console.log(JSON.stringify(Object.fromEntries(branches)));
