// Seeds that failed once. They run in every set: what was mended stays mended. A seed belongs to the simulation as it was when
// it failed; where the simulation has changed since, planted/ has the bug itself.
import type { Task } from "./pool.ts";

/** A seed with what it showed. */
export interface Regression extends Task {
  readonly about: string;
}

/** All of them. */
export const REGRESSIONS: readonly Regression[] = [
  {
    scenario: "full",
    seed: "270",
    about: "a root was asked for while a reader that had been started anew was still reading",
  },
  {
    scenario: "basic",
    seed: "20",
    about:
      "a backup was refused its acknowledgement when somebody changed its labels while its heads were put",
  },
  {
    scenario: "full",
    seed: "31",
    about: "a restore request that came twice wrote onto the target again after the answer",
  },
];
