// A process that runs for long hears when the metadata are moved elsewhere: from then on nobody may use these.
import { AshlarError } from "#lib/core/errors.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { Log } from "#lib/ports/log.ts";
import { readRepositoryRecord } from "./metadata-store.ts";

/** How often they are looked at, in ms. Whoever moves them waits for longer. */
export const LOOK_EVERY_MS = 10_000;

/** Looks from time to time; `lost` resolves when the metadata may not be used any more. */
export function watchMetadata(
  kv: Kv,
  url: string,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): { readonly lost: Promise<AshlarError>; stop(): Promise<void> } {
  const stopped = new AbortController();
  const lost = Promise.withResolvers<AshlarError>();
  const watching = (async () => {
    for (;;) {
      await clock.sleep(LOOK_EVERY_MS, stopped.signal).catch(() => undefined);
      if (stopped.signal.aborted) return;
      try {
        await readRepositoryRecord(kv, url);
      } catch (error) {
        if (error instanceof AshlarError && !error.retryable) return lost.resolve(error);
        log.warn("the metadata could not be looked at", { error });
      }
    }
  })();
  return {
    lost: lost.promise,
    stop: () => {
      stopped.abort();
      return watching;
    },
  };
}
