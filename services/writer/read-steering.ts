// Which of several storages is read, and when another one is asked because the first is slow. Storages of the same order are
// read all at once, each as fast as it answers; a slow answer is overtaken ("hedged": Dean and Barroso, The Tail at Scale, 2013).
import type { StorageId } from "#lib/core/ids.ts";
import type { Clock } from "#lib/ports/clock.ts";

interface Course {
  underWay: number;
  /** Smoothed, and how far answers are from it, in ms (Jacobson, Congestion Avoidance and Control, 1988). */
  meanMs: number;
  deviationMs: number;
  count: number;
  /** Answers in a row that were overtaken or not waited for. */
  overdue: number;
  /** Reads that were asked elsewhere first since then. */
  avoided: number;
}

const MEAN_SHARE = 1 / 8;
const DEVIATION_SHARE = 1 / 4;
const DEVIATIONS = 4;
/** So many answers tell what is usual. */
const ANSWERS_MIN = 8;
/** Answers are not told apart below; one of which nothing is known is tried. */
const MEAN_MIN_MS = 1;
const UNKNOWN_PATIENCE_MS = 2000;
/** Below, the second request costs more than it saves. */
const PATIENCE_MIN_MS = 100;
/** However slow a storage has become: one that hangs must not hold up a restore. */
export const PATIENCE_MAX_MS = 5000;
/** A storage that was overtaken so often in a row comes after all others, */
const OVERDUE_MAX = 3;
/** but for one read in so many, which finds out whether it is back. */
const PROBE_EVERY = 32;
/** One in so many reads may be asked for twice, on the long run: where all are slow, twice as many requests make them slower. */
const READS_PER_HEDGE = 10;
const HEDGES_SAVED_MAX = 10;
const HEDGES_AT_ONCE = 4;

/** What a process knows of its storages' answers. */
export class ReadSteering {
  readonly #clock: Clock;
  readonly #courses = new Map<StorageId, Course>();
  #hedgesSaved = HEDGES_SAVED_MAX;
  #hedging = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  #course(storage: StorageId): Course {
    let course = this.#courses.get(storage);
    if (course === undefined) {
      course = {
        underWay: 0,
        meanMs: 0,
        deviationMs: 0,
        count: 0,
        overdue: 0,
        avoided: 0,
      };
      this.#courses.set(storage, course);
    }
    return course;
  }

  /** How many reads of it are under way. */
  underWay(storage: StorageId): number {
    return this.#courses.get(storage)?.underWay ?? 0;
  }

  /** About when one read more would be answered, in ms: of several storages the one with the least is asked. */
  expectedMs(storage: StorageId): number {
    const { underWay, meanMs } = this.#course(storage);
    return (underWay + 1) * Math.max(MEAN_MIN_MS, meanMs);
  }

  /** How long an answer of it may take before another storage is asked as well, in ms. */
  patienceMs(storage: StorageId): number {
    const { count, meanMs, deviationMs } = this.#course(storage);
    if (count < ANSWERS_MIN) return UNKNOWN_PATIENCE_MS;
    const usualMs = meanMs + DEVIATIONS * deviationMs;
    return Math.min(PATIENCE_MAX_MS, Math.max(PATIENCE_MIN_MS, usualMs));
  }

  /**
   * Runs a read and learns from how long it takes from when it says that it has begun; what fails teaches nothing. Until then it
   * waits for others of this process, which says nothing about the storage.
   */
  async watch<T>(storage: StorageId, read: (onBegin: () => void) => Promise<T>): Promise<T> {
    const course = this.#course(storage);
    let startedMs = this.#clock.monotonic();
    course.underWay += 1;
    this.#hedgesSaved = Math.min(HEDGES_SAVED_MAX, this.#hedgesSaved + 1 / READS_PER_HEDGE);
    try {
      const result = await read(() => (startedMs = this.#clock.monotonic()));
      const tookMs = this.#clock.monotonic() - startedMs;
      learn(course, tookMs);
      if (tookMs < PATIENCE_MAX_MS) course.overdue = 0;
      return result;
    } finally {
      course.underWay -= 1;
    }
  }

  /** Its answer was not waited for. */
  wasOverdue(storage: StorageId): void {
    this.#course(storage).overdue += 1;
  }

  /** Whether the last answers of it were not waited for. */
  isOverdue(storage: StorageId): boolean {
    return this.#course(storage).overdue > 0;
  }

  /** Whether it is to come after all others now, because it hangs. Asked once for each read. */
  isToAvoid(storage: StorageId): boolean {
    const course = this.#course(storage);
    if (course.overdue < OVERDUE_MAX) return false;
    course.avoided += 1;
    return course.avoided % PROBE_EVERY !== 0;
  }

  /**
   * Runs a second request for something, where that may be; undefined where it may not.
   * @param isPressing the first has been waited for long enough, whatever a second one costs
   */
  hedge<T>(request: () => Promise<T>, isPressing = false): Promise<T> | undefined {
    if (!isPressing) {
      if (this.#hedging >= HEDGES_AT_ONCE || this.#hedgesSaved < 1) return undefined;
      this.#hedgesSaved -= 1;
    }
    this.#hedging += 1;
    return request().finally(() => (this.#hedging -= 1));
  }
}

function learn(course: Course, ms: number): void {
  const off = ms - course.meanMs;
  if (course.count === 0) {
    course.meanMs = ms;
    course.deviationMs = ms / 2;
  } else {
    course.meanMs += off * MEAN_SHARE;
    course.deviationMs += (Math.abs(off) - course.deviationMs) * DEVIATION_SHARE;
  }
  course.count += 1;
}
