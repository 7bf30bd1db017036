// Why a message of another process is not understood, as an error that says what to do about it.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { FormatError, FormatFault } from "#proto/format-error.ts";

/**
 * The error for a message that could not be decoded; what is no FormatError passes through. That somebody newer has written it passes
 * when the older one is upgraded, so it can be tried again.
 * @param what the message: "the answer to claim"
 * @param whose who does not understand it
 */
export function notUnderstood(error: unknown, what: string, whose: string): unknown {
  if (!(error instanceof FormatError)) return error;
  const isNewer = error.fault === FormatFault.Newer;
  return new AshlarError(
    isNewer ? ErrorCode.Unavailable : ErrorCode.Internal,
    `${what} ${error.message}`,
    {
      cause: error,
      remedy: isNewer
        ? `upgrade ${whose}: it is of an older release`
        : "let all processes be of one release, or of two that follow each other",
    },
  );
}
