// The one error of the codecs: bytes that are not what the format says. Callers turn it into the error of their layer.

/** What is wrong with the bytes. */
export const FormatFault = {
  /** Not this format at all. */
  Foreign: "foreign",
  /** This format by its first bytes, but not what it allows: damaged, or not written by Ashlar. */
  Malformed: "malformed",
  /** Fewer bytes than the format needs. */
  Truncated: "truncated",
  /** Right as far as it goes, but it needs something that this version of Ashlar does not know. */
  Newer: "newer",
} as const;
export type FormatFault = (typeof FormatFault)[keyof typeof FormatFault];

/** Thrown by every decoder of `proto/`. Its message is a clause without a subject: "is truncated". */
export class FormatError extends Error {
  override readonly name: string = "FormatError";
  readonly fault: FormatFault;

  constructor(fault: FormatFault, message: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.fault = fault;
  }
}

/** A {@link FormatError} for bytes that are not this format. */
export function malformed(message: string, cause?: unknown): FormatError {
  return new FormatError(FormatFault.Malformed, message, { cause });
}

/** A {@link FormatError} for bytes that a newer Ashlar wrote. `what` names the thing that is not known here. */
export function writtenByNewer(what: string): FormatError {
  return new FormatError(FormatFault.Newer, `was written by a newer Ashlar (${what})`);
}
