// The heart of the simulation: one queue of events in virtual time. Everything that would wait in production (a message, a
// disk, a database, a timer) is an event here, with a delay drawn from the seed, so the seed decides who goes next. Between two
// events all promises settle, so nothing but the seed decides what happens: the same seed gives the same run.
import type { SeededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { EventQueue, type SimEvent } from "./event-queue.ts";
import type { TraceHash } from "./trace-hash.ts";

/** Whose event it is: it is dropped when its owner is dead, and waits while its owner stands still. */
export interface EventOwner {
  readonly name: string;
  readonly isDead: boolean;
  /** Virtual ms until which it stands still. */
  readonly pausedUntilMs: number;
}

/** Takes an event back. */
export type CancelEvent = () => void;

/** Events that run between two looks at the event loop's other queues: promises settle after each of them. */
const BATCH = 64;

/** The simulation's time and order. */
export class Scheduler {
  readonly random: SeededRandom;
  readonly #queue = new EventQueue();
  readonly #trace: TraceHash;
  #nowMs = 0;
  #events = 0;

  constructor(random: SeededRandom, trace: TraceHash) {
    this.random = random;
    this.#trace = trace;
  }

  /** Virtual time since the start, in ms. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Events that have run. */
  get eventCount(): number {
    return this.#events;
  }

  /** Runs `run` in `delayMs` of virtual time, unless its owner dies before. Without an owner it happens whoever dies. */
  after(
    delayMs: number,
    owner: EventOwner | undefined,
    label: string,
    run: () => void,
  ): CancelEvent {
    const event: SimEvent = { atMs: this.#nowMs + delayMs, order: 0, owner, label, run };
    this.#queue.push(event);
    return () => {
      event.run = undefined;
    };
  }

  /**
   * Runs events until `isDone`. Rejects with what an event throws, when nothing is left to happen, and when there were too
   * many events: a simulation that does not end has lost its progress.
   */
  run(isDone: () => boolean, eventsMax: number): Promise<void> {
    const limit = this.#events + eventsMax;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let isOver = false;
    const end = (act: () => void): void => {
      isOver = true;
      act();
    };
    const step = (): void => {
      if (isOver) return;
      try {
        if (isDone()) end(resolve);
        else if (this.#events >= limit)
          end(() => reject(new Error(`no end after ${eventsMax} events`)));
        else if (!this.#next()) end(() => reject(new Error("nothing is left to happen")));
      } catch (error) {
        end(() => reject(error));
      }
    };
    const batch = (): void => {
      if (isOver) return;
      // Node settles all promises between two immediates, and looks at nothing else.
      for (let index = 0; index < BATCH; index += 1) setImmediate(step);
      setImmediate(batch);
    };
    batch();
    return promise;
  }

  /** Runs events whenever there are any, until the returned function is called: for tests that drive a single port. */
  drive(): () => void {
    let isOver = false;
    const step = (): void => {
      if (isOver) return;
      this.#next();
      setImmediate(step);
    };
    step();
    return () => {
      isOver = true;
    };
  }

  /** Runs the next event; false when there is none. */
  #next(): boolean {
    for (;;) {
      const event = this.#queue.pop();
      if (event === undefined) return false;
      const { owner, run } = event;
      if (run === undefined || owner?.isDead === true) continue;
      this.#nowMs = Math.max(this.#nowMs, event.atMs);
      if (owner !== undefined && owner.pausedUntilMs > this.#nowMs) {
        this.#queue.push({ ...event, atMs: owner.pausedUntilMs });
        event.run = undefined;
        continue;
      }
      this.#events += 1;
      this.#trace.add(`${this.#nowMs.toFixed(3)} ${owner?.name ?? ""} ${event.label}`);
      run();
      return true;
    }
  }
}
