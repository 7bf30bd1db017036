// `npm run explore -- --config NAME [--states N]`: explores one configuration, or all of them, each to at most N states (a
// million unless told), and prints what it found. Exit code 1 where an invariant does not hold.
import { parseArgs } from "node:util";
import { CONFIGURATIONS, configurationNamed } from "./configurations.ts";
import type { Configuration } from "./configuration.ts";
import { exploreConfiguration } from "./explore.ts";

const { values } = parseArgs({
  options: { config: { type: "string" }, states: { type: "string" }, quiet: { type: "boolean" } },
});

/** A million states take some minutes, and about two gigabytes. */
const STATES_MAX = 1_000_000;

async function explore(configuration: Configuration): Promise<boolean> {
  const started = performance.now();
  const statesMax = values.states === undefined ? STATES_MAX : Number(values.states);
  const found = await exploreConfiguration(configuration, {
    statesMax,
    onLevel: ({ depth, states }) => {
      if (values.quiet !== true)
        process.stderr.write(`\r${configuration.name}: ${depth} ${states}`);
    },
  });
  const seconds = (performance.now() - started) / 1000;
  const { states, transitions, snapshots, depth, exhausted, violation } = found;
  process.stderr.write("\r");
  console.log(
    `${configuration.name}: ${states} states, ${transitions} transitions, ${snapshots} snapshots, depth ${depth}, ` +
      `${exhausted ? "exhausted" : "not exhausted"}, ${seconds.toFixed(1)} s, ` +
      `${Math.round(transitions / seconds)} transitions/s`,
  );
  if (violation === undefined) return true;
  console.log(`violation of ${violation.invariant}: ${violation.message}`);
  for (const [at, label] of violation.trace.entries()) console.log(`${at + 1}. ${label}`);
  return false;
}

const chosen = values.config === undefined ? CONFIGURATIONS : [configurationNamed(values.config)];
let clean = true;
for (const configuration of chosen) clean = (await explore(configuration)) && clean;
process.exitCode = clean ? 0 : 1;
