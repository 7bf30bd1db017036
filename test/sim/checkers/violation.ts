// What a checker reports: an invariant of DESIGN §4 that does not hold.

/** The invariants, and what a simulation demands besides. */
export type Invariant =
  | "I1"
  | "I2"
  | "I3"
  | "I4"
  | "I5"
  | "I6"
  | "I7"
  | "I8"
  /** Marks of damage are as the copies say. */
  | "marks"
  /** What is needed is locked, where storages lock. */
  | "locks"
  /** Jobs end, queues empty, nothing is left open. */
  | "progress"
  /** An actor met a broken assertion, or an error of a kind that nobody may cause. */
  | "defect";

/** A broken invariant. */
export class Violation extends Error {
  override readonly name: string = "Violation";
  readonly invariant: Invariant;

  constructor(invariant: Invariant, message: string) {
    super(`${invariant}: ${message}`);
    this.invariant = invariant;
  }
}

/** Throws a {@link Violation} unless `condition` holds. */
export function demand(condition: boolean, invariant: Invariant, message: () => string): void {
  if (!condition) throw new Violation(invariant, message());
}
