// The Clock of tests and simulation: time passes only when it is told to.
import { setImmediate } from "node:timers/promises";
import { assert } from "#lib/core/assert.ts";
import type { Clock } from "#lib/ports/clock.ts";

/** A Clock whose time is moved by hand. */
export interface VirtualClock extends Clock {
  /** Moves time forward and wakes who sleeps until then, in order, letting each wake-up settle before the next. */
  advance(ms: number): Promise<void>;
  /** Moves time to the next wake-up and wakes it; false when nobody sleeps. */
  advanceToNext(): Promise<boolean>;
  /** Sets the wall clock without time passing: it may jump. */
  setNow(nowMs: number): void;
  /** When the next sleeper wakes, in monotonic ms. */
  readonly nextWakeMs: number | undefined;
  readonly sleeperCount: number;
}

/** Options of {@link virtualClock}. */
export interface VirtualClockOptions {
  /** Wall-clock time at the start, in ms since 1970. */
  readonly nowMs?: number;
  /** Awaited after each wake-up until what it set off has settled. Default: two turns of the event loop. */
  readonly settle?: () => Promise<void>;
}

interface Sleeper {
  readonly wakeMs: number;
  /** Who went to sleep first wakes first. */
  readonly order: number;
  readonly wake: () => void;
}

/** 2026-01-01T00:00:00Z. */
const DEFAULT_NOW_MS = 1_767_225_600_000;

/** Makes a clock that stands still. */
export function virtualClock(options: VirtualClockOptions = {}): VirtualClock {
  return new Virtual(options.nowMs ?? DEFAULT_NOW_MS, options.settle ?? settleDefault);
}

async function settleDefault(): Promise<void> {
  await setImmediate();
  await setImmediate();
}

class Virtual implements VirtualClock {
  #monotonicMs = 0;
  #offsetMs: number;
  #order = 0;
  readonly #settle: () => Promise<void>;
  readonly #sleepers = new Set<Sleeper>();

  constructor(nowMs: number, settle: () => Promise<void>) {
    this.#offsetMs = nowMs;
    this.#settle = settle;
  }

  now(): number {
    return this.#offsetMs + this.#monotonicMs;
  }

  monotonic(): number {
    return this.#monotonicMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = (): void => {
      this.#sleepers.delete(sleeper);
      reject(signal?.reason);
    };
    const wake = (): void => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    };
    this.#order += 1;
    const sleeper = { wakeMs: this.#monotonicMs + Math.max(0, ms), order: this.#order, wake };
    this.#sleepers.add(sleeper);
    signal?.addEventListener("abort", onAbort, { once: true });
    return promise;
  }

  async advance(ms: number): Promise<void> {
    assert(ms >= 0, "time does not go back");
    const targetMs = this.#monotonicMs + ms;
    // What is about to sleep does so first.
    await this.#settle();
    for (;;) {
      const next = this.#next();
      if (next === undefined || next.wakeMs > targetMs) break;
      await this.#wake(next);
    }
    this.#monotonicMs = Math.max(this.#monotonicMs, targetMs);
  }

  async advanceToNext(): Promise<boolean> {
    await this.#settle();
    const next = this.#next();
    if (next === undefined) return false;
    await this.#wake(next);
    return true;
  }

  setNow(nowMs: number): void {
    this.#offsetMs = nowMs - this.#monotonicMs;
  }

  get nextWakeMs(): number | undefined {
    return this.#next()?.wakeMs;
  }

  get sleeperCount(): number {
    return this.#sleepers.size;
  }

  #next(): Sleeper | undefined {
    let next: Sleeper | undefined;
    for (const one of this.#sleepers) {
      if (next === undefined || one.wakeMs < next.wakeMs) next = one;
      else if (one.wakeMs === next.wakeMs && one.order < next.order) next = one;
    }
    return next;
  }

  #wake(sleeper: Sleeper): Promise<void> {
    this.#sleepers.delete(sleeper);
    this.#monotonicMs = Math.max(this.#monotonicMs, sleeper.wakeMs);
    sleeper.wake();
    return this.#settle();
  }
}
