// Runs jobs: takes those that wait, or whose coordinator is gone, says from time to time that it still has them, and records
// what became of them. Any number of coordinators may do so; each job is one's at a time, by its token in the metadata.
import { InvariantError } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { JobId, Token } from "#lib/core/ids.ts";
import type { JobError, JobRecord } from "#lib/repository/job-record.ts";
import { newToken } from "#lib/repository/repository.ts";
import {
  beatJob,
  endJob,
  forgetJobs,
  listOpenJobs,
  releaseAbandoned,
  takeJob,
  type JobEntry,
  type JobOutcome,
} from "#lib/repository/transactions/job.ts";
import { jobEventSubject, JOBS_CANCEL_SUBJECT, JOBS_WAKE_SUBJECT } from "#proto/subjects.ts";
import type { CoordinatorContext } from "../context.ts";
import type { Progress } from "../jobs.ts";
import { AgentDirectory } from "./agents.ts";
import { FailureHooks, type FailureHook } from "./failure-hooks.ts";
import { readJob, type JobLimits, type ReadJob } from "./job-kinds.ts";
import { fireDue } from "./schedules.ts";

/** How a coordinator runs jobs; times in ms. */
export interface JobSettings extends JobLimits {
  /** Jobs that this coordinator runs at once. */
  readonly atOnce: number;
  /** How long ended jobs are remembered. */
  readonly historyMs: number;
  /** Tells somebody of failed jobs. */
  readonly failureHook?: FailureHook;
}

/** Without a word from anybody, the list of jobs is looked at so often. */
const LOOK_EVERY_MS = 5000;
const PROGRESS_EVERY_MS = 1000;
const FORGET_EVERY_MS = 3_600_000;
/** Tries of a job that fails for a passing reason, and the pause before the next. */
const TRIES_MAX = 30;
const PAUSE_FIRST_MS = 1000;
const PAUSE_MAX_MS = 120_000;

interface Running {
  readonly host: string | undefined;
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

/** A coordinator's share of the cluster's jobs. */
export class JobRunner {
  readonly #context: CoordinatorContext;
  readonly #settings: JobSettings;
  readonly #agents: AgentDirectory;
  readonly #running = new Map<JobId, Running>();
  readonly #stopped = new AbortController();
  readonly #subscriptions: readonly { stop(): Promise<void> }[];
  readonly #looking: Promise<void>;
  readonly #hooks: FailureHooks;
  #wake = Promise.withResolvers<void>();
  #forgotMs = Number.NEGATIVE_INFINITY;

  constructor(context: CoordinatorContext, settings: JobSettings) {
    this.#context = context;
    this.#settings = settings;
    const { bus, repo } = context;
    this.#hooks = new FailureHooks(context, settings.failureHook);
    const wake = (): void => this.#wake.resolve();
    this.#agents = new AgentDirectory(bus, repo.clock, wake);
    this.#subscriptions = [
      bus.subscribe(JOBS_WAKE_SUBJECT, wake),
      bus.subscribe(JOBS_CANCEL_SUBJECT, ({ body }) =>
        this.#running.get(Buffer.from(body).toString() as JobId)?.stop.abort(stoppedByUser()),
      ),
    ];
    this.#looking = this.#look();
  }

  /** The agents that are there. */
  get agents(): AgentDirectory {
    return this.#agents;
  }

  /** Takes nothing more, and gives what runs back: another coordinator goes on with it. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#wake.resolve();
    await this.#looking;
    for (const { stop } of this.#running.values()) stop.abort(isStopping());
    await Promise.all([...this.#running.values()].map(({ ended }) => ended));
    await this.#hooks.stop();
    await this.#agents.stop();
    for (const subscription of this.#subscriptions) await subscription.stop();
  }

  async #look(): Promise<void> {
    const { repo } = this.#context;
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      this.#wake = Promise.withResolvers<void>();
      const woken = this.#wake.promise;
      try {
        await fireDue(this.#context);
        await this.#takeAll();
        // Beside everything else: a hook may take a minute.
        void this.#hooks.look();
        await this.#forget();
      } catch (error) {
        if (error instanceof InvariantError) throw error;
        repo.log.warn("the list of jobs could not be looked at", { error });
      }
      const slept = new AbortController();
      await Promise.race([
        woken,
        repo.clock.sleep(LOOK_EVERY_MS, slept.signal).catch(() => undefined),
      ]);
      slept.abort();
    }
  }

  async #takeAll(): Promise<void> {
    for await (const entry of listOpenJobs(this.#context.repo.kv)) {
      if (this.#stopped.signal.aborted || this.#running.size >= this.#settings.atOnce) return;
      if (this.#running.has(entry.job)) continue;
      try {
        await this.#take(entry);
      } catch (error) {
        // One job that cannot be taken is no reason to take no other one.
        this.#context.repo.log.error(`job ${entry.job} could not be taken`, { error });
      }
    }
  }

  async #take(entry: JobEntry): Promise<void> {
    const { repo, host: own, lock } = this.#context;
    const { job } = entry;
    const record = await this.#released(entry);
    if (record === undefined) return;
    let read: ReadJob | AshlarError;
    try {
      read = readJob(record.kind, record.spec);
    } catch (error) {
      // Of a newer Ashlar, perhaps: it is taken all the same, to say so.
      read = asAshlarError(error);
    }
    let host: string | undefined;
    if (!(read instanceof AshlarError) && read.device !== undefined) {
      const found = this.#agents.find(read.device, (each) => this.#busyness(each));
      if (typeof found !== "string") return;
      host = found;
    }
    const token = newToken(repo.random);
    const taken = await takeJob(repo.kv, job, {
      owner: `${own}/${lock}`,
      token,
      nowMs: repo.clock.now(),
      locks: read instanceof AshlarError ? [] : read.locks(host, this.#settings),
    });
    if (taken === undefined) return;
    const stop = new AbortController();
    const ended = this.#run(job, taken, token, read, host, stop).finally(() => {
      this.#running.delete(job);
      this.#context.bus.send(JOBS_WAKE_SUBJECT, { body: Buffer.alloc(0) });
    });
    this.#running.set(job, { host, stop, ended });
  }

  /** A job that nobody works on, given back by whoever had it; undefined where somebody does. */
  async #released({ job, record }: JobEntry): Promise<JobRecord | undefined> {
    if (record.state !== "running") return record;
    const { repo, settings } = this.#context;
    const lease = { nowMs: repo.clock.now(), leaseMs: settings.leaseMs };
    const free = await releaseAbandoned(repo.kv, job, lease, asJobError(stoppedByUser()));
    if (free?.state === "cancelled") this.#tell(job, { state: "cancelled" });
    return free?.state === "queued" ? free : undefined;
  }

  #busyness(host: string): number {
    return [...this.#running.values()].filter((each) => each.host === host).length;
  }

  async #run(
    job: JobId,
    record: JobRecord,
    token: Token,
    read: ReadJob | AshlarError,
    host: string | undefined,
    stop: AbortController,
  ): Promise<void> {
    const { repo } = this.#context;
    repo.log.info(`job ${job} (${record.kind}) begins`, { host, attempt: record.attempts });
    this.#tell(job, { state: "running", kind: record.kind, host, attempt: record.attempts });
    const ended = new AbortController();
    const beating = this.#beat(job, token, host, stop, ended.signal);
    let outcome: JobOutcome;
    // The root of the job's trace: what other processes do for it is told with its messages.
    const span = repo.telemetry.span(`job ${record.kind}`, { job, attempt: record.attempts });
    try {
      if (read instanceof AshlarError) throw read;
      const options = { host, signal: stop.signal, onProgress: this.#progress(job) };
      const context = this.#contextOf(job, token, record.attempts);
      const result = await repo.telemetry.within(span, () => read.run(context, options));
      span.end();
      outcome = { state: "done", result: asPlain(result) };
    } catch (error) {
      span.end(error);
      if (error instanceof InvariantError) throw error;
      outcome = this.#outcomeOf(error, record, stop.signal);
    }
    ended.abort();
    await beating;
    await this.#record(job, record.kind, token, outcome);
  }

  /** What is recorded of a session that an earlier try of this job has left is gone: this try has the job now. */
  #contextOf(job: JobId, token: Token, attempt: number): CoordinatorContext {
    const context = this.#context;
    return {
      ...context,
      run: { job, token },
      attempt,
      isOwnerAlive: (entry) => {
        const { run } = entry.record;
        if (run?.job === job) return run.token === token;
        return context.isOwnerAlive(entry);
      },
    };
  }

  async #beat(
    job: JobId,
    token: Token,
    host: string | undefined,
    stop: AbortController,
    ended: AbortSignal,
  ): Promise<void> {
    const { repo, settings } = this.#context;
    for (;;) {
      await repo.clock.sleep(settings.leaseMs / 4, ended).catch(() => undefined);
      if (ended.aborted) return;
      if (host !== undefined && this.#agents.isGone(host)) stop.abort(agentGone(host));
      try {
        const answer = await beatJob(repo.kv, job, token, repo.clock.now());
        if (answer === "cancelled") stop.abort(stoppedByUser());
        if (answer === "lost") stop.abort(takenOver());
      } catch (error) {
        repo.log.warn(`job ${job} could not be kept alive`, { error });
      }
    }
  }

  #outcomeOf(error: unknown, record: JobRecord, signal: AbortSignal): JobOutcome {
    const { clock, log } = this.#context.repo;
    const reason = signal.aborted ? asAshlarError(signal.reason) : asAshlarError(error);
    if (reason.code === ErrorCode.Internal) log.error("a job failed", { error });
    if (signal.aborted && reason.code === ErrorCode.Cancelled) {
      return { state: "cancelled", error: asJobError(reason) };
    }
    // Cancelled by nobody whom we know: somebody's process was being stopped.
    const isPassing =
      reason.retryable || reason.code === ErrorCode.Fenced || reason.code === ErrorCode.Cancelled;
    if (!isPassing || record.attempts >= TRIES_MAX) {
      return { state: "failed", error: asJobError(reason) };
    }
    const pauseMs = signal.aborted
      ? 0
      : Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** (record.attempts - 1));
    return { state: "queued", error: asJobError(reason), notBeforeMs: clock.now() + pauseMs };
  }

  async #record(job: JobId, kind: string, token: Token, outcome: JobOutcome): Promise<void> {
    const { repo } = this.#context;
    try {
      const hook = this.#settings.failureHook !== undefined;
      const isOurs = await endJob(repo.kv, job, token, outcome, repo.clock.now(), { hook });
      if (!isOurs) return;
    } catch (error) {
      // Its lease runs out, and somebody else finds what was done.
      repo.log.error(`the outcome of job ${job} could not be recorded`, { error });
      return;
    }
    const { state } = outcome;
    repo.telemetry.count("ashlar.jobs", 1, { kind, state });
    const text = `job ${job}: ${state === "queued" ? "it is tried again" : state}`;
    if (outcome.state === "done") repo.log.info(text);
    else repo.log.warn(text, { reason: outcome.error.message });
    this.#tell(job, outcome);
  }

  #progress(job: JobId): (progress: Progress) => void {
    const { clock } = this.#context.repo;
    let toldMs = Number.NEGATIVE_INFINITY;
    return (progress) => {
      if (clock.monotonic() - toldMs < PROGRESS_EVERY_MS) return;
      toldMs = clock.monotonic();
      this.#tell(job, { state: "running", progress });
    };
  }

  #tell(job: JobId, event: object): void {
    const { bus, repo } = this.#context;
    const body = { job, time: new Date(repo.clock.now()).toISOString(), ...event };
    bus.send(jobEventSubject(job), { body: Buffer.from(JSON.stringify(body)) });
  }

  async #forget(): Promise<void> {
    const { clock, kv } = this.#context.repo;
    if (clock.monotonic() - this.#forgotMs < FORGET_EVERY_MS) return;
    this.#forgotMs = clock.monotonic();
    await forgetJobs(kv, clock.now() - this.#settings.historyMs);
  }
}

const stoppedByUser = (): AshlarError =>
  new AshlarError(ErrorCode.Cancelled, "the job was cancelled");
const isStopping = (): AshlarError =>
  new AshlarError(ErrorCode.TryAgain, "the coordinator is being stopped");
const agentGone = (host: string): AshlarError =>
  new AshlarError(ErrorCode.TryAgain, `the agent of host ${host} is gone`);
const takenOver = (): AshlarError =>
  new AshlarError(ErrorCode.Fenced, "another coordinator has taken the job over");

function asAshlarError(error: unknown): AshlarError {
  if (error instanceof AshlarError) return error;
  return new AshlarError(
    ErrorCode.Internal,
    error instanceof Error ? `${error.name}: ${error.message}` : String(error),
    { cause: error },
  );
}

function asJobError({ code, message, remedy, details }: AshlarError): JobError {
  return {
    code,
    message,
    ...(remedy === undefined ? {} : { remedy }),
    ...(Object.keys(details).length === 0 ? {} : { details: asPlain(details) }),
  };
}

/** What is recorded of a job has to fit a value of the metadata, with its spec and an error beside it. */
const PLAIN_BYTES_MAX = 24 * 1024;
const LIST_MAX = 20;

/** As it travels and is recorded: JSON. Where that is too large, long lists are cut, which then end with how many there are. */
function asPlain(value: object): Readonly<Record<string, unknown>> {
  const text = JSON.stringify(value);
  if (text.length <= PLAIN_BYTES_MAX) return JSON.parse(text) as Record<string, unknown>;
  const cut = JSON.stringify(value, (_, each: unknown) => {
    if (Array.isArray(each) && each.length > LIST_MAX) {
      return [...each.slice(0, LIST_MAX), `${each.length} in all`];
    }
    return typeof each === "string" && each.length > 500 ? `${each.slice(0, 500)}…` : each;
  });
  if (cut.length <= PLAIN_BYTES_MAX) return JSON.parse(cut) as Record<string, unknown>;
  return { tooLarge: `${text.length} bytes, which is more than is recorded` };
}
