// What a checker finds.

/** An invariant of DESIGN §4 that does not hold, or `code` where an assertion of the code itself failed. */
export type Invariant = "I1" | "I2" | "I3" | "I4" | "I5" | "I8" | "marks" | "code";

/** A finding. */
export interface Violation {
  readonly invariant: Invariant;
  readonly message: string;
}

/** The finding that an invariant does not hold. */
export function violated(invariant: Invariant, message: string): Violation {
  return { invariant, message };
}
