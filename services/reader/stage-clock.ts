// Where the time of a job goes. Many spans of blocks are under way at once, each in one stage. Each instant is counted for the stage
// that holds most of them: what is slow fills up, and everything else waits for it. So the stages' times add up to the job's.
import type { Clock } from "#lib/ports/clock.ts";
import type { PutTimesMessage } from "#proto/message-parts.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";

/** Stages, the later ones nearer to the end of a span's way: of two that hold as many the later one counts. */
const STAGES = ["plan", "read", "hash", "claim", "fetch", "write", "put", "commit"] as const;
/** One stage. */
export type Stage = (typeof STAGES)[number];

/** The time of one job, by stage. */
export class StageClock {
  readonly #clock: Clock;
  readonly #telemetry: Telemetry;
  readonly #holding = new Map<Stage, number>();
  readonly #ms = new Map<Stage, number>();
  /** Parts of `put`, as the writers tell: only their ratio counts. */
  readonly #parts = new Map<string, number>();
  #atMs: number;

  constructor({ clock, telemetry }: { readonly clock: Clock; readonly telemetry: Telemetry }) {
    this.#clock = clock;
    this.#telemetry = telemetry;
    this.#atMs = clock.monotonic();
  }

  /** Runs work that is in a stage; a span of the trace as well. */
  async run<T>(stage: Stage, work: () => Promise<T>): Promise<T> {
    const span = this.#telemetry.span(`reader.${stage}`);
    this.#move(stage, 1);
    try {
      const value = await this.#telemetry.within(span, work);
      span.end();
      return value;
    } catch (error) {
      span.end(error);
      throw error;
    } finally {
      this.#move(stage, -1);
    }
  }

  /** A put as a writer did it, and how long it took from here, in ms. */
  tellPut(tookMs: number, times: PutTimesMessage): void {
    const { queue, seal, store, storages } = times;
    let known = 0;
    const add = (part: string, ms: number): void => {
      known += ms;
      this.#parts.set(part, (this.#parts.get(part) ?? 0) + ms);
    };
    add("writer's queue", queue);
    add("seal", seal);
    add("store transaction", store);
    for (const [storage, ms] of Object.entries(storages)) add(`put ${storage}`, ms);
    add("send", Math.max(0, tookMs - known));
  }

  /** Ms by stage; what writers told of their puts in the place of `put`. */
  totals(): Record<string, number> {
    this.#count();
    const totals: Record<string, number> = {};
    const parts = [...this.#parts.values()].reduce((sum, ms) => sum + ms, 0);
    for (const [stage, ms] of this.#ms) {
      if (stage !== "put" || parts === 0) {
        totals[stage] = Math.round(ms);
        continue;
      }
      for (const [part, share] of this.#parts) totals[part] = Math.round((ms * share) / parts);
    }
    return totals;
  }

  #move(stage: Stage, by: 1 | -1): void {
    this.#count();
    this.#holding.set(stage, (this.#holding.get(stage) ?? 0) + by);
  }

  /** What has passed since the last look belongs to the stage that has held most since then. */
  #count(): void {
    const nowMs = this.#clock.monotonic();
    if (nowMs === this.#atMs) return;
    const stage = this.#fullest();
    this.#ms.set(stage, (this.#ms.get(stage) ?? 0) + nowMs - this.#atMs);
    this.#atMs = nowMs;
  }

  #fullest(): Stage {
    let fullest: Stage = "plan";
    let most = 0;
    for (const stage of STAGES) {
      const held = this.#holding.get(stage) ?? 0;
      if (held === 0 || held < most) continue;
      fullest = stage;
      most = held;
    }
    return fullest;
  }
}
