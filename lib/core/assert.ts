// Invariants stay checked in production: a process that has broken one must stop before it writes anything more.

/** A broken invariant: a defect of Ashlar. Nobody catches it to go on. */
export class InvariantError extends Error {
  override readonly name: string = "InvariantError";
}

/** Throws {@link InvariantError} unless `condition` holds. `message` says what must be true. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** For the `default` of an exhaustive switch. */
export function unreachable(value: never): never {
  throw new InvariantError(`unreachable: ${JSON.stringify(value)}`);
}
