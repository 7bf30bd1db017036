// Bounds how many things happen at once.

/** So often in a row those that yield are overtaken while they wait: they are slowed down, never kept from going on. */
const OVERTAKEN_MAX = 7;

/** A counting semaphore; waiters are served in order, those that yield after the others. */
export class Semaphore {
  readonly #waiters: (() => void)[] = [];
  readonly #yielding: (() => void)[] = [];
  #overtaken = 0;
  #free: number;

  constructor(limit: number) {
    this.#free = limit;
  }

  /**
   * Runs `work` once a place is free.
   * @param yields it lets those go first that do not, though not without end
   */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal, yields = false): Promise<T> {
    await this.#acquire(signal, yields ? this.#yielding : this.#waiters);
    try {
      return await work();
    } finally {
      this.#release();
    }
  }

  async #acquire(signal: AbortSignal | undefined, line: (() => void)[]): Promise<void> {
    signal?.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = (): void => resolve();
    const onAbort = (): void => {
      const at = line.indexOf(waiter);
      if (at < 0) return;
      line.splice(at, 1);
      reject(signal?.reason);
    };
    line.push(waiter);
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      await promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #release(): void {
    const next = this.#next();
    if (next === undefined) this.#free += 1;
    else next();
  }

  #next(): (() => void) | undefined {
    const isTheirTurn = this.#waiters.length === 0 || this.#overtaken === OVERTAKEN_MAX;
    if (this.#yielding.length === 0 || isTheirTurn) this.#overtaken = 0;
    else this.#overtaken += 1;
    return (isTheirTurn ? this.#yielding.shift() : undefined) ?? this.#waiters.shift();
  }
}
