// Clock: the only source of time. Drivers: system, virtual (tests, simulation).

/** Time. Nothing about safety depends on it. */
export interface Clock {
  /** Wall-clock time in ms since 1970. May jump. */
  now(): number;
  /** Milliseconds since some fixed point; never goes back. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts. Does not keep the process alive by itself. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}
