// Telling somebody of a failed job. That it is to be told is recorded with the failure, so it is told whatever dies; told twice
// where the teller dies before that is recorded.
import type { JobId } from "#lib/core/ids.ts";
import { claimHook, clearHook, listHooks } from "#lib/repository/transactions/job-hook.ts";
import type { JobEntry } from "#lib/repository/transactions/job.ts";
import type { CoordinatorContext } from "../context.ts";

/** Tells of a failed job; rejects when it could not. */
export type FailureHook = (entry: JobEntry, signal: AbortSignal) => Promise<void>;

/** After so long without a word of success it is told again, by whoever looks, in ms; and so often in all. */
const AGAIN_MS = 120_000;
const TRIES_MAX = 5;

/** Tells of the failed jobs of the cluster. */
export class FailureHooks {
  readonly #context: CoordinatorContext;
  readonly #hook: FailureHook | undefined;
  readonly #stopped = new AbortController();
  #telling: Promise<void> | undefined;

  constructor(context: CoordinatorContext, hook: FailureHook | undefined) {
    this.#context = context;
    this.#hook = hook;
  }

  /** Tells what is to be told; while that still goes on it is not begun again. Resolves when it has been told. */
  look(): Promise<void> {
    const hook = this.#hook;
    if (hook === undefined) return Promise.resolve();
    const { log } = this.#context.repo;
    this.#telling ??= this.#tellAll(hook)
      .catch((error: unknown) => log.warn("failed jobs could not be looked at", { error }))
      .finally(() => (this.#telling = undefined));
    return this.#telling;
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#telling;
  }

  async #tellAll(hook: FailureHook): Promise<void> {
    for (const job of await listHooks(this.#context.repo.kv)) {
      if (this.#stopped.signal.aborted) return;
      await this.#tell(hook, job);
    }
  }

  async #tell(hook: FailureHook, job: JobId): Promise<void> {
    const { kv, clock, log } = this.#context.repo;
    const claimed = await claimHook(kv, job, clock.now(), AGAIN_MS);
    if (claimed === undefined) return;
    try {
      await hook({ job, record: claimed.record }, this.#stopped.signal);
    } catch (error) {
      log.error(`the hook of failed job ${job} has failed itself`, { error });
      if (claimed.tries < TRIES_MAX) return;
    }
    await clearHook(kv, job);
  }
}
