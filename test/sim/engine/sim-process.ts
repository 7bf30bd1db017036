// A process of the simulated cluster. It reaches the world only through ports that wait for their turn here; so it can be
// killed, or made to stand still, wherever it waits. What a dead process waited for never comes: its promises stay open.
import { seededRandom, type SeededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { EventOwner, Scheduler } from "./scheduler.ts";

/** How long things take, in ms. */
export interface Latency {
  /** Of one step of a process: computing, a database, a message. */
  readonly stepMs: number;
  /** Of a step that takes long, and how often one does. */
  readonly slowMs: number;
  readonly slowShare: number;
}

/** 2026-01-01T00:00:00Z, the wall-clock time at which simulations begin. */
export const START_MS = 1_767_225_600_000;

/** A process. */
export class SimProcess implements EventOwner {
  readonly name: string;
  readonly host: string;
  readonly random: SeededRandom;
  readonly clock: Clock;
  isDead = false;
  pausedUntilMs = 0;
  /** What its wall clock is off by, in ms. */
  skewMs = 0;
  readonly #scheduler: Scheduler;
  readonly #latency: Latency;
  readonly #onDeath = new Set<() => void>();

  constructor(
    scheduler: Scheduler,
    latency: Latency,
    who: { readonly name: string; readonly host: string; readonly seed: string },
    wall: () => number,
  ) {
    this.name = who.name;
    this.host = who.host;
    this.random = seededRandom(`${who.seed}/${who.name}`);
    this.#scheduler = scheduler;
    this.#latency = latency;
    this.clock = {
      now: () => Math.floor(wall() + this.skewMs),
      monotonic: () => scheduler.nowMs,
      sleep: (ms, signal) => this.#sleep(ms, signal),
    };
  }

  /** Dies: nothing more happens here. */
  kill(): void {
    this.isDead = true;
    for (const tell of this.#onDeath) tell();
    this.#onDeath.clear();
  }

  /** Stands still until then. */
  pause(ms: number): void {
    this.pausedUntilMs = this.#scheduler.nowMs + ms;
  }

  /** Calls `tell` when it dies; returns how to call that off. */
  whenDead(tell: () => void): () => void {
    if (this.isDead) tell();
    else this.#onDeath.add(tell);
    return () => void this.#onDeath.delete(tell);
  }

  /** How long the next step takes, drawn anew each time. */
  drawLatencyMs(): number {
    const { random } = this.#scheduler;
    const { stepMs, slowMs, slowShare } = this.#latency;
    const share = random.below(1000) / 1000;
    return slowShare > 0 && random.chance(slowShare) ? share * slowMs : share * stepMs;
  }

  /** Waits for its turn, as long as a step takes; for ever when it is dead. */
  turn(label: string): Promise<void> {
    return this.until(this.drawLatencyMs(), label);
  }

  /** Waits for `ms`; for ever when it is dead. */
  until(ms: number, label: string): Promise<void> {
    return new Promise((resolve) => {
      if (!this.isDead) this.#scheduler.after(ms, this, label, resolve);
    });
  }

  #sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    return new Promise((resolve, reject) => {
      if (this.isDead) return;
      const onAbort = (): void => {
        cancel();
        reject(signal?.reason as Error);
      };
      const cancel = this.#scheduler.after(Math.max(0, ms), this, "wake", () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }
}
