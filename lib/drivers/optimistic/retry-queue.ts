// Runs transactions again that lost against others, without letting any starve.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Random } from "#lib/ports/random.ts";

/** What one try of a transaction came to: done, or to be run again (a conflict, an unknown result). */
export type Try<T> = { readonly done: true; readonly value: T } | { readonly done: false };

/** How to wait between tries. */
export interface Pacing {
  /** Resolves after `ms`, or rejects when the signal aborts. Keeps the process alive meanwhile. */
  pause(ms: number, signal?: AbortSignal): Promise<void>;
  readonly random: Random;
}

/** Tries that run beside others, before a transaction asks to run alone. */
const TRIES_TOGETHER = 4;
/** Tries alone in this process: only other processes can still be in the way. */
const TRIES_ALONE = 40;
/** First and longest back-off. */
const PAUSE_MS_MIN = 1;
const PAUSE_MS_MAX = 100;
/** Longest wait of a commit for one that runs alone; a body that waits for another transaction gets no further. */
const WAIT_FOR_ALONE_MS_MAX = 2000;

/** The transactions of one open store. */
export class RetryQueue {
  readonly #pacing: Pacing | undefined;
  /** Those that run alone, one after the other. */
  #line: Promise<void> = Promise.resolve();
  /** Settles when the one that runs alone now is through. */
  #alone: Promise<void> | undefined;

  /** Without `pacing` a transaction is tried again at once: for stores in memory. */
  constructor(pacing?: Pacing) {
    this.#pacing = pacing;
  }

  /** Calls `once` until it is done; gives up with TryAgain. `alone` tells it not to call {@link letOthersPass}. */
  async run<T>(label: string, once: (alone: boolean) => Promise<Try<T>>): Promise<T> {
    for (let count = 1; count <= TRIES_TOGETHER; count++) {
      const outcome = await once(false);
      if (outcome.done) return outcome.value;
      await this.#backOff(count);
    }
    const leave = await this.#enter();
    try {
      for (let count = 1; count <= TRIES_ALONE; count++) {
        const outcome = await once(true);
        if (outcome.done) return outcome.value;
        await this.#backOff(count);
      }
    } finally {
      leave();
    }
    throw new AshlarError(ErrorCode.TryAgain, `${label}: it kept conflicting with others`, {
      remedy: "Try again when less is running.",
      details: { label, tries: TRIES_TOGETHER + TRIES_ALONE },
    });
  }

  /** Before a commit: waits while another transaction runs alone. */
  async letOthersPass(): Promise<void> {
    const alone = this.#alone;
    if (alone === undefined) return;
    if (this.#pacing === undefined) return alone;
    const through = new AbortController();
    const pause = this.#pacing.pause(WAIT_FOR_ALONE_MS_MAX, through.signal).catch(() => {});
    await Promise.race([alone, pause]);
    through.abort();
  }

  async #enter(): Promise<() => void> {
    const before = this.#line;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#line = before.then(() => promise);
    await before;
    this.#alone = promise;
    return () => {
      this.#alone = undefined;
      resolve();
    };
  }

  async #backOff(count: number): Promise<void> {
    if (this.#pacing === undefined) return;
    const limit = Math.min(PAUSE_MS_MIN * 2 ** count, PAUSE_MS_MAX);
    await this.#pacing.pause(PAUSE_MS_MIN + this.#pacing.random.below(limit));
  }
}
