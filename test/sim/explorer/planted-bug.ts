// A mistake of the actors, by which a checker shows that it looks.
import type { RunRequest } from "./machine.ts";
import type { Situation, Step } from "./step.ts";
import type { Invariant } from "./violation.ts";

/** A mistake. */
export interface PlantedBug {
  readonly name: string;
  /** The configuration in which it shows. */
  readonly configuration: string;
  /** What the checkers say. */
  readonly invariant: Invariant;
  /** Length of the shortest trace that shows it. */
  readonly steps: number;
  /** Steps that are done wrongly, or that should not be there. */
  readonly alterSteps?: (situation: Situation, steps: readonly Step[]) => Step[];
  /** Transactions that are done wrongly. */
  readonly run?: RunRequest;
}
