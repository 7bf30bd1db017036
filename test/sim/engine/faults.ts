// Which faults may happen, and how often each did. A fault that is scripted and never fires proves nothing, so it is counted
// where it takes effect, not where it is planned.
import type { SeededRandom } from "#lib/drivers/memory/seeded-random.ts";

/** Every kind of fault. docs/simulation.md says what each does. */
export const FAULTS = [
  "message-lost",
  "message-repeated",
  "message-late",
  "streams-lost",
  "kill",
  "pause",
  "kv-conflict",
  "kv-too-old",
  "kv-unknown-committed",
  "kv-unknown-not-committed",
  "kv-unknown-late",
  "blob-error",
  "blob-timeout-after-success",
  "blob-late-effect",
  "blob-write-lost",
  "blob-read-corrupt",
  "object-corrupt",
  "object-truncated",
  "object-swapped",
  "object-lost",
  "storage-away",
  "storage-full",
  "storage-listing-stale",
  "storage-state",
  "week-passes",
  "clock-jump",
  "hint-wrong",
  "source-error",
  "metadata-restored",
  "metadata-lost",
  "storage-restored",
  "metadata-cloned",
] as const;

/** A kind of fault. */
export type Fault = (typeof FAULTS)[number];

/** How likely each fault is, where it could happen: per message, commit, operation of a storage, or operation of the workload. */
export type FaultRates = Readonly<Partial<Record<Fault, number>>>;

/** Draws faults, and counts those that fired. */
export class FaultPlan {
  readonly fired = new Map<Fault, number>();
  readonly #random: SeededRandom;
  readonly #rates: FaultRates;
  /** After the faults have ended, none fires any more. */
  isOver = false;

  constructor(random: SeededRandom, rates: FaultRates) {
    this.#random = random;
    this.#rates = rates;
  }

  /** Whether the fault may happen at all in this run. */
  isPlanned(fault: Fault): boolean {
    return (this.#rates[fault] ?? 0) > 0;
  }

  /** Draws whether the fault happens now, and counts it. */
  strikes(fault: Fault): boolean {
    if (!this.draws(fault)) return false;
    this.count(fault);
    return true;
  }

  /** Draws without counting: the caller counts once the fault has taken effect. */
  draws(fault: Fault): boolean {
    const rate = this.#rates[fault] ?? 0;
    return rate > 0 && !this.isOver && this.#random.chance(rate);
  }

  /** Counts a fault that took effect. */
  count(fault: Fault): void {
    this.fired.set(fault, (this.fired.get(fault) ?? 0) + 1);
  }

  /** How many fired, of how many kinds. */
  get total(): { readonly fired: number; readonly kinds: number } {
    let fired = 0;
    for (const count of this.fired.values()) fired += count;
    return { fired, kinds: this.fired.size };
  }
}
