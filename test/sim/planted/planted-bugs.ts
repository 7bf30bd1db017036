// Bugs that the simulation must catch: each changes one place of one actor or transaction, as somebody might do by mistake.
import type { Invariant } from "../checkers/violation.ts";

/** A planted bug. */
export interface PlantedBug {
  readonly name: string;
  /** The step of DESIGN §4 that it breaks. */
  readonly step: string;
  /** What it makes wrong; a run that fails with one of these has caught it. */
  readonly breaks: readonly Invariant[];
  readonly scenario: string;
  readonly file: string;
  /** Found exactly once in the file. */
  readonly find: string;
  readonly replace: string;
}

/** All planted bugs. */
export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: "removal ignores horizons",
    step: "5 Collect",
    breaks: ["I8", "I1"],
    scenario: "basic",
    file: "lib/repository/transactions/collect.ts",
    find: "lowest = Math.min(lowest, await readCounter(tx, key.horizon(parse.session(entry.key)), 0));",
    replace: "",
  },
];
