// Making several things as if they were one: what was made is taken away again, the last first, when a later step fails.

/** Steps that have been done and can be undone. */
export class Undo {
  readonly #steps: (() => Promise<unknown>)[] = [];

  /** Notes how to take back what was just done. */
  add(step: () => Promise<unknown>): void {
    this.#steps.push(step);
  }

  /** Runs `work`; when it fails, everything noted is taken back, and the failure goes on. */
  static async during<T>(work: (undo: Undo) => Promise<T>): Promise<T> {
    const undo = new Undo();
    try {
      return await work(undo);
    } catch (error) {
      // What cannot be taken back stays; the reason for the failure is what the user has to hear.
      for (const step of undo.#steps.toReversed()) await step().catch(() => undefined);
      throw error;
    }
  }
}
