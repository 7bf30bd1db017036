// The horizon of a backup (DESIGN §4.5): no later than the epoch of any answer that is still out, or that no committed node
// has used yet.
import { assert } from "#lib/core/assert.ts";

/** Lets an epoch go again; calling it twice does nothing. */
export type ReleaseEpoch = () => void;

/** Counts, per epoch, the answers that still rest on it. */
export class EpochTracker {
  readonly #held = new Map<number, number>();
  #latest = 0;
  #announced = 0;

  /** The newest epoch seen in an answer: a request sent now is answered in this one or a later one. */
  get latest(): number {
    return this.#latest;
  }

  /** Notes an answer's epoch. */
  saw(epoch: number): void {
    this.#latest = Math.max(this.#latest, epoch);
  }

  /** Keeps the horizon from passing `epoch` until it is released. */
  hold(epoch: number): ReleaseEpoch {
    this.#held.set(epoch, (this.#held.get(epoch) ?? 0) + 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const count = (this.#held.get(epoch) ?? 0) - 1;
      assert(count >= 0, "an epoch is released as often as it is held");
      if (count === 0) this.#held.delete(epoch);
      else this.#held.set(epoch, count);
    };
  }

  /** The horizon to announce now; remembered, so that older answers are recognised as void. Never falls. */
  announce(): number {
    let horizon = this.#latest;
    for (const epoch of this.#held.keys()) horizon = Math.min(horizon, epoch);
    this.#announced = Math.max(this.#announced, horizon);
    return this.#announced;
  }

  /** An answer of an epoch before the announced horizon must not be used. */
  isVoid(epoch: number): boolean {
    return epoch < this.#announced;
  }
}
