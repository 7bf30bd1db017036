// A process that runs seeds, one after the other, as it is told. With ASHLAR_SIM_BUG it plants a bug in the actors first.
import process from "node:process";
import { plantBug } from "./planted/plant.ts";
import type { SeedReport, Task } from "./pool.ts";

const bug = process.env["ASHLAR_SIM_BUG"];
if (bug !== undefined) plantBug(bug);
// Only now: what a bug changes must not have been loaded before.
const { runSeed } = await import("./workload/run.ts");
const { SCENARIOS } = await import("./workload/scenarios.ts");

process.on("message", (task: Task) => {
  void run(task);
});

async function run({ scenario, seed }: Task): Promise<void> {
  const known = SCENARIOS.get(scenario);
  if (known === undefined) throw new Error(`there is no scenario ${scenario}`);
  const { faults, branches, ...rest } = await runSeed(known, seed);
  const report: SeedReport = {
    ...rest,
    faults: Object.fromEntries(faults),
    branches: Object.fromEntries(branches),
  };
  process.send?.(report);
}
