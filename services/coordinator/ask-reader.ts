// Asking the reader of a host that may be gone for good: nobody waits for its answer longer than there is hope of one.
import type { Clock } from "#lib/ports/clock.ts";
import type { SessionMessage } from "#proto/message-parts.ts";
import { queues, type Requests } from "#proto/messages.ts";
import type { CoordinatorContext } from "./context.ts";

/** How long the answer of a reader that was told to stop is waited for, in ms. */
const GRACE_MS = 15_000;
/**
 * And that of one that is told to forget a job: once that was given up, and in any case. Whoever is there answers at once, unless it
 * still has to end what it reads.
 */
const RELEASE_MS = 5000;
const RELEASE_MAX_MS = 60_000;

type ReaderRequest = "backup" | "restore" | "ensureRoot";

/**
 * Asks a host's reader. When the signal aborts the reader has been told so: its own answer is the better one, and where none
 * comes within the grace the signal's reason is thrown.
 */
export async function askReader<T extends ReaderRequest>(
  { requester, repo }: CoordinatorContext,
  host: string,
  type: T,
  body: Requests[T]["request"],
  signal: AbortSignal | undefined,
): Promise<Requests[T]["reply"]> {
  const given = new AbortController();
  const onAbort = (): void => void abortLater(repo.clock, GRACE_MS, given, signal?.reason);
  if (signal?.aborted === true) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const reply = await requester.request(queues.reader(host), type, body, {
      signal: given.signal,
    });
    return reply.body;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

/** Tells a host's reader that a session is over, and waits for it to have ended what it did, for as long as there is hope of that. */
export async function releaseReader(
  { requester, repo }: CoordinatorContext,
  host: string,
  session: SessionMessage,
  signal: AbortSignal | undefined,
): Promise<void> {
  const given = new AbortController();
  const onAbort = (): void => void abortLater(repo.clock, RELEASE_MS, given, signal?.reason);
  void abortLater(repo.clock, RELEASE_MAX_MS, given, undefined);
  if (signal?.aborted === true) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    await requester.request(queues.reader(host), "release", session, { signal: given.signal });
  } catch {
    // It stops by itself, for its session is over.
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

async function abortLater(
  clock: Clock,
  ms: number,
  controller: AbortController,
  reason: unknown,
): Promise<void> {
  await clock.sleep(ms).catch(() => undefined);
  controller.abort(reason);
}
