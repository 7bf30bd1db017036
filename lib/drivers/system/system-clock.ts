// The Clock of a real process.
import type { Clock } from "#lib/ports/clock.ts";

/** The longest delay that a timer of Node takes, in ms; longer sleeps are cut into pieces. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Opens the system's clock. */
export function systemClock(): Clock {
  return { now: () => Date.now(), monotonic: () => performance.now(), sleep };
}

async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  let rest = ms;
  do {
    await sleepOnce(Math.min(rest, TIMER_MS_MAX), signal);
    rest -= TIMER_MS_MAX;
  } while (rest > 0);
}

function sleepOnce(ms: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
  const onAbort = (): void => {
    clearTimeout(timer);
    reject(signal?.reason);
  };
  const timer = setTimeout(() => {
    signal?.removeEventListener("abort", onAbort);
    resolve();
  }, ms).unref();
  signal?.addEventListener("abort", onAbort, { once: true });
  return promise;
}
