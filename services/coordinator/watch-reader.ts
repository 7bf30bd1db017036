// Progress from a reader's job, the way to stop it, and the sign that somebody still waits for it.
import type { SessionId, Token } from "#lib/core/ids.ts";
import type { Bus } from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { decodeProgress } from "#proto/message-codec.ts";
import { attendSubject, cancelSubject, progressSubject } from "#proto/subjects.ts";
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

const HEARTBEAT_MS_MIN = 500;

/**
 * Forwards progress to `options.onProgress`, and an abort of `options.signal` to the reader.
 * @param reader the host whose reader does it
 */
export function watchReader(
  { bus, repo: { clock }, settings }: CoordinatorContext,
  reader: string,
  { session, token }: { readonly session: SessionId; readonly token: Token },
  options: JobOptions,
): WatchedJob {
  // Only the run of this token is meant: somebody else may have gone on with the session.
  const body = Buffer.from(token, "utf8");
  const heartbeatMs = Math.max(HEARTBEAT_MS_MIN, Math.floor(settings.leaseMs / 4));
  const subscription = bus.subscribe(progressSubject(reader, session), (message) => {
    const progress = decodeProgress(message.body);
    options.onProgress?.({ ...progress, bytesTotal: progress.bytesTotal ?? undefined });
  });
  const cancel = (): void => bus.send(cancelSubject(reader, session), { body });
  if (options.signal?.aborted === true) cancel();
  options.signal?.addEventListener("abort", cancel);
  const stopped = new AbortController();
  void attend(
    bus,
    clock,
    { subject: attendSubject(reader, session), body },
    heartbeatMs,
    stopped.signal,
  );
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
  sign: { readonly subject: string; readonly body: Buffer },
  everyMs: number,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await clock.sleep(everyMs, signal).catch(() => undefined);
    if (!signal.aborted) bus.send(sign.subject, { body: sign.body });
  }
}
