// Which errors mean that a storage cannot be used now: they say nothing about what is on it, so nothing is judged by them.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

const NOT_AWAY: ReadonlySet<ErrorCode> = new Set([
  ErrorCode.Cancelled,
  ErrorCode.Internal,
  ErrorCode.Fenced,
  ErrorCode.Conflict,
]);

/** The error when it is a storage's (away, full, not permitted); any other is thrown again. */
export function asAway(error: unknown): AshlarError {
  if (error instanceof AshlarError && !NOT_AWAY.has(error.code)) return error;
  throw error;
}
