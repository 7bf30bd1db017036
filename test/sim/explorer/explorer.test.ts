// The explorer in CI: small worlds in full, larger ones as far as the time allows, and every checker on a planted bug.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { configurationNamed } from "./configurations.ts";
import { exploreConfiguration } from "./explore.ts";
import { PLANTED_BUGS } from "./planted-bugs.ts";

/** Small enough to be explored in full. */
const IN_FULL = [
  "two-backups",
  "known-while-collected",
  "unreferenced",
  "resume-frozen",
  "incremental",
];

/** Too large for CI: so many states of each. */
const IN_PART = [
  "unreferenced-resume",
  "death",
  "resume",
  "resume-known",
  "late-deletes",
  "sweep",
  "twice",
  "twice-known",
  "impatient",
  "two-blocks",
  "two-levels",
  "two-storages",
  "two-storages-resume",
  "quorum-two",
  "mixed-policies",
  "other-storage",
  "storage-away",
  "loss",
  "false-alarm",
  "two-levels-loss",
  "two-storages-loss",
];
const STATES_IN_PART = 3_000;

/** A bug that is not found within so many states counts as missed. */
const STATES_FOR_BUG = 100_000;

describe("explorer", () => {
  for (const name of IN_FULL) {
    it(`finds nothing in all of ${name}`, async (t) => {
      const { states, depth, exhausted, violation } = await exploreConfiguration(
        configurationNamed(name),
      );
      assert.equal(violation, undefined, JSON.stringify(violation, undefined, 2));
      assert.equal(exhausted, true);
      t.diagnostic(`${states} states, depth ${depth}`);
    });
  }

  for (const name of IN_PART) {
    it(`finds nothing in the first states of ${name}`, async (t) => {
      const { states, depth, violation } = await exploreConfiguration(configurationNamed(name), {
        statesMax: STATES_IN_PART,
      });
      assert.equal(violation, undefined, JSON.stringify(violation, undefined, 2));
      t.diagnostic(`the first ${states} states, to depth ${depth}`);
    });
  }
});

describe("explorer, each checker on planted bugs", () => {
  for (const bug of PLANTED_BUGS) {
    it(`catches ${bug.name}`, async (t) => {
      const { states, violation } = await exploreConfiguration(
        configurationNamed(bug.configuration),
        { bug, statesMax: STATES_FOR_BUG },
      );
      assert.ok(violation !== undefined, `not found in ${states} states`);
      t.diagnostic(
        `${violation.invariant} after ${violation.trace.length} steps, ${states} states: ${violation.message}`,
      );
      assert.equal(violation.invariant, bug.invariant, violation.message);
      assert.equal(violation.trace.length, bug.steps, violation.trace.join("\n"));
    });
  }
});
