// Trying again: what is worth it, how often, and when.
import { setTimeout } from "node:timers/promises";
import { TruncatedBody } from "#lib/drivers/response-body.ts";
import { AshlarError } from "#lib/core/errors.ts";
import { B2Failure } from "./b2-failure.ts";

/** Waits, in ms; rejects when the signal aborts. */
export type Pause = (ms: number, signal: AbortSignal | undefined) => Promise<void>;

/** How something is tried. */
export interface Trying {
  readonly attempts: number;
  readonly signal: AbortSignal | undefined;
  readonly pause: Pause;
  /** What else is worth another try. */
  readonly isPassing?: (failure: B2Failure) => boolean;
  /** The second try is made elsewhere: it need not wait. */
  readonly isElsewhere?: boolean;
}

const PAUSE_MS = 500;
const PAUSE_MS_MAX = 30_000;
/** Who is asked to wait for longer gives up instead: it is not known who waits for the outcome. */
const RETRY_AFTER_MS_MAX = 60_000;

/** By the machine's clock. */
export const pauseFor: Pause = async (ms, signal) => {
  await setTimeout(ms, undefined, signal === undefined ? {} : { signal });
};

/**
 * Tries until it succeeds, fails for good, or has been tried often enough. Pauses grow, and are as long as the service asks for.
 * @param work is told which try it is, from 1
 */
export async function trying<T>(trial: Trying, work: (attempt: number) => Promise<T>): Promise<T> {
  const { attempts, signal } = trial;
  for (let attempt = 1; ; attempt += 1) {
    signal?.throwIfAborted();
    try {
      return await work(attempt);
    } catch (error) {
      signal?.throwIfAborted();
      const askedMs = error instanceof B2Failure ? (error.retryAfterMs ?? 0) : 0;
      if (attempt >= attempts || !isWorthIt(error, trial) || askedMs > RETRY_AFTER_MS_MAX) {
        throw error;
      }
      await rest(Math.max(askedMs, growingMs(attempt, error, trial)), trial);
    }
  }
}

function growingMs(attempt: number, error: unknown, { isElsewhere }: Trying): number {
  const isAtOnce = isElsewhere === true && !(error instanceof B2Failure && error.status === 429);
  const doublings = isAtOnce ? attempt - 2 : attempt - 1;
  return doublings < 0 ? 0 : Math.min(PAUSE_MS * 2 ** doublings, PAUSE_MS_MAX);
}

async function rest(ms: number, { pause, signal }: Trying): Promise<void> {
  if (ms === 0) return;
  try {
    await pause(ms, signal);
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

function isWorthIt(error: unknown, { isPassing }: Trying): boolean {
  if (error instanceof AshlarError) return false;
  if (error instanceof B2Failure) {
    const { status } = error;
    if (status === 408 || status === 429 || status >= 500) return true;
    return isPassing?.(error) ?? false;
  }
  // Connections that break, cannot be made, or are silent; bodies that end too early.
  const { code } = error as NodeJS.ErrnoException;
  return error instanceof TruncatedBody || typeof code === "string";
}
