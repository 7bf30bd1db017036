// A bound on bytes per second that several share, in the order in which they ask.
import { assert } from "./assert.ts";

/** What it needs of a clock. */
interface Timer {
  monotonic(): number;
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** What was not used is kept for so long, in ms: a burst is never larger than that. */
const BURST_MS = 250;

/** Lets bytes through at a rate. */
export class RateLimiter {
  readonly #timer: Timer;
  readonly #bytesPerMs: number;
  /** When all that was let through so far would have gone at the rate, in ms of the timer. */
  #paidUntilMs: number;

  /** @param bytesPerSecond above 0 */
  constructor(timer: Timer, bytesPerSecond: number) {
    assert(bytesPerSecond > 0, "a rate is above 0");
    this.#timer = timer;
    this.#bytesPerMs = bytesPerSecond / 1000;
    this.#paidUntilMs = timer.monotonic() - BURST_MS;
  }

  /** Resolves when `bytes` may go. Whoever asks later waits for them too. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    const nowMs = this.#timer.monotonic();
    const startMs = Math.max(this.#paidUntilMs, nowMs - BURST_MS);
    this.#paidUntilMs = startMs + bytes / this.#bytesPerMs;
    const waitMs = this.#paidUntilMs - nowMs;
    if (waitMs > 0) await this.#timer.sleep(waitMs, signal);
  }
}
