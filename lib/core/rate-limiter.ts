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

  /** Resolves when `bytes` may go. Whoever asks later waits for them too. Those of who is aborted count for nothing. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.#charge(bytes);
    await this.#reach(this.#paidUntilMs, bytes, signal);
  }

  /**
   * Resolves when all that was asked for before may have gone: for what is of unknown size until it has come. Then it is
   * {@link correct}ed, so that the estimate only decides how long those wait who ask meanwhile, and never the rate.
   */
  async takeTurn(estimatedBytes: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const startMs = this.#charge(estimatedBytes);
    await this.#reach(startMs, estimatedBytes, signal);
  }

  /** So many bytes more went than were asked for; below 0, fewer. */
  correct(bytes: number): void {
    this.#paidUntilMs += bytes / this.#bytesPerMs;
  }

  /** Answers when they begin to go. */
  #charge(bytes: number): number {
    const startMs = Math.max(this.#paidUntilMs, this.#timer.monotonic() - BURST_MS);
    this.#paidUntilMs = startMs + bytes / this.#bytesPerMs;
    return startMs;
  }

  async #reach(atMs: number, bytes: number, signal: AbortSignal | undefined): Promise<void> {
    const waitMs = atMs - this.#timer.monotonic();
    if (waitMs <= 0) return;
    try {
      await this.#timer.sleep(waitMs, signal);
    } catch (error) {
      // Whoever asks from now on gets its place.
      this.correct(-bytes);
      throw error;
    }
  }
}
