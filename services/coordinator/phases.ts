// Where the time of a job goes at its coordinator: one phase after the other; a reader's own stages stand in for the phase that
// waits for it.
import type { Clock } from "#lib/ports/clock.ts";

/** Milliseconds by phase. */
export type Phases = Readonly<Record<string, number>>;

/** Measures phases that follow one another. */
export class PhaseClock {
  readonly #clock: Clock;
  readonly #ms: Record<string, number> = {};
  #sinceMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#sinceMs = clock.monotonic();
  }

  /** What has passed since the last call was this phase. */
  end(phase: string): void {
    const nowMs = this.#clock.monotonic();
    this.#add(phase, nowMs - this.#sinceMs);
    this.#sinceMs = nowMs;
  }

  /** Likewise of what a reader did: its stages, as it tells them, and what is left is the way to it and back. */
  endReader(stages: Phases | undefined): void {
    const nowMs = this.#clock.monotonic();
    const tookMs = nowMs - this.#sinceMs;
    this.#sinceMs = nowMs;
    const told = Object.entries(stages ?? {});
    const sum = told.reduce((total, [, ms]) => total + ms, 0);
    // Two clocks: never more than has passed here.
    const scale = sum > tookMs ? tookMs / sum : 1;
    for (const [stage, ms] of told) this.#add(stage, ms * scale);
    this.#add("reader", Math.max(0, tookMs - sum));
  }

  /** All phases so far, in whole ms. */
  totals(): Phases {
    return Object.fromEntries(
      Object.entries(this.#ms).map(([phase, ms]) => [phase, Math.round(ms)]),
    );
  }

  #add(phase: string, ms: number): void {
    this.#ms[phase] = (this.#ms[phase] ?? 0) + ms;
  }
}
