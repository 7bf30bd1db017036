// Asking writers for blocks. Some may be there who can only write: whoever gets the question passes it on by saying so.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Reply, Requester } from "#lib/actor/requester.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Requests } from "#proto/messages.ts";

/** How long it is asked again while only such writers take the question, in ms, and how often. */
const PATIENCE_MS = 30_000;
const PAUSE_MS = 20;

/** Asks until a writer answers that can open what is stored. */
export async function askWriters(
  { requester, clock }: { readonly requester: Pick<Requester, "request">; readonly clock: Clock },
  queue: string,
  wanted: Requests["read"]["request"],
  signal: AbortSignal,
): Promise<Reply<Requests["read"]["reply"]>> {
  const startMs = clock.monotonic();
  for (;;) {
    try {
      return await requester.request(queue, "read", wanted, { signal });
    } catch (error) {
      if (!isPassedOn(error)) throw error;
      if (clock.monotonic() - startMs < PATIENCE_MS) {
        await clock.sleep(PAUSE_MS, signal);
        continue;
      }
      const { message, remedy, details } = error;
      throw new AshlarError(ErrorCode.Refused, message, {
        cause: error,
        details,
        ...(remedy === undefined ? {} : { remedy }),
      });
    }
  }
}

function isPassedOn(error: unknown): error is AshlarError {
  return (
    error instanceof AshlarError &&
    error.code === ErrorCode.TryAgain &&
    error.details["check"] === "write-only"
  );
}
