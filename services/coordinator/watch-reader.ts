// Progress from a reader's job, the way to stop it, and the sign that somebody still waits for it.
import type { SessionId } from "#lib/core/ids.ts";
import type { Bus } from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { attendSubject, cancelSubject, decodeProgress, progressSubject } from "#proto/messages.ts";
import type { CoordinatorContext } from "./context.ts";
import type { JobOptions } from "./jobs.ts";

/** A watched job. */
export interface WatchedJob {
  /** Name of the job: its progress subject. */
  readonly job: string;
  /** How often the reader is to give a sign of life, in ms: a quarter of the lease. It hears from us as often. */
  readonly heartbeatMs: number;
  stop(): Promise<void>;
}

const EMPTY = Buffer.alloc(0);
const HEARTBEAT_MS_MIN = 500;

/** Forwards progress to `options.onProgress`, and an abort of `options.signal` to the reader. */
export function watchReader(
  { bus, repo: { clock }, settings }: CoordinatorContext,
  session: SessionId,
  options: JobOptions,
): WatchedJob {
  const heartbeatMs = Math.max(HEARTBEAT_MS_MIN, Math.floor(settings.leaseMs / 4));
  const subscription = bus.subscribe(progressSubject(session), (message) => {
    const progress = decodeProgress(message.body);
    options.onProgress?.({ ...progress, bytesTotal: progress.bytesTotal ?? undefined });
  });
  const cancel = (): void => bus.send(cancelSubject(session), { body: EMPTY });
  if (options.signal?.aborted === true) cancel();
  options.signal?.addEventListener("abort", cancel);
  const stopped = new AbortController();
  void attend(bus, clock, session, heartbeatMs, stopped.signal);
  return {
    job: session,
    heartbeatMs,
    stop: async () => {
      stopped.abort();
      options.signal?.removeEventListener("abort", cancel);
      await subscription.stop();
    },
  };
}

async function attend(
  bus: Bus,
  clock: Clock,
  session: SessionId,
  everyMs: number,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await clock.sleep(everyMs, signal).catch(() => undefined);
    if (!signal.aborted) bus.send(attendSubject(session), { body: EMPTY });
  }
}
