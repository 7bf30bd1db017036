// Progress from a reader's job, and the way to stop it.
import type { SessionId } from "#lib/core/ids.ts";
import type { Bus } from "#lib/ports/bus.ts";
import { cancelSubject, decodeProgress, progressSubject } from "#proto/messages.ts";
import type { JobOptions } from "./jobs.ts";

/** A watched job. */
export interface WatchedJob {
  /** Name of the job: its progress subject. */
  readonly job: string;
  stop(): Promise<void>;
}

/** Forwards progress to `options.onProgress`, and an abort of `options.signal` to the reader. */
export function watchReader(bus: Bus, session: SessionId, options: JobOptions): WatchedJob {
  const subscription = bus.subscribe(progressSubject(session), (message) => {
    const progress = decodeProgress(message.body);
    options.onProgress?.({ ...progress, bytesTotal: progress.bytesTotal ?? undefined });
  });
  const cancel = (): void => bus.send(cancelSubject(session), { body: Buffer.alloc(0) });
  if (options.signal?.aborted === true) cancel();
  options.signal?.addEventListener("abort", cancel);
  return {
    job: session,
    stop: async () => {
      options.signal?.removeEventListener("abort", cancel);
      await subscription.stop();
    },
  };
}
