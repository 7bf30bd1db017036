// What a planted bug is.
import type { Invariant } from "../checkers/violation.ts";

/** The steps of DESIGN §4. */
export const STEPS = [
  "1 Claim",
  "2 Store",
  "3 Commit",
  "4 Delete",
  "5 Collect",
  "6 Session end",
  "7 Replicate",
  "8 Scrub",
  "9 Sweep",
  "10 Storages know their KV",
] as const;

/** A planted bug. */
export interface PlantedBug {
  readonly name: string;
  /** The step of DESIGN §4 that it breaks. */
  readonly step: (typeof STEPS)[number];
  /** What it makes wrong; a run that fails with one of these has caught it. */
  readonly breaks: readonly Invariant[];
  readonly scenario: string;
  /** The first seed that is run, and how many are run at most. */
  readonly seeds: { readonly from: number; readonly count: number };
  readonly file: string;
  /** Found exactly once in the file. */
  readonly find: string;
  readonly replace: string;
}
