// Runs many seeds, on as many processes as there are cores. Each seed is a run of its own: which process runs it, and after
// which others, makes no difference to it.
import { fork, type ChildProcess } from "node:child_process";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import type { RunResult } from "./workload/run.ts";

/** One seed of one scenario. */
export interface Task {
  readonly scenario: string;
  readonly seed: string;
}

/** A result as it crosses between processes. */
export type SeedReport = Omit<RunResult, "faults" | "branches"> & {
  readonly faults: Readonly<Record<string, number>>;
  readonly branches: Readonly<Record<string, number>>;
};

/**
 * So many events one process runs, about. What dead processes of a simulation have left hanging is never freed: Node keeps every
 * signal made by AbortSignal.any that somebody listens to.
 */
const EVENTS_PER_PROCESS = 1_500_000;
/** Of what a process says as it crashes, so much is kept. */
const STDERR_MAX = 4000;
const WORKER = fileURLToPath(new URL("worker.ts", import.meta.url));

/**
 * Runs all tasks; `onReport` gets each result as it comes. A process that crashes fails the seed that it ran, and another one
 * goes on.
 * @param mutation the name of a planted bug (planted-bugs.ts) that the actors are to have
 */
export async function runTasks(
  tasks: Iterable<Task>,
  onReport: (report: SeedReport) => void,
  options: {
    readonly processes?: number;
    readonly mutation?: string;
    readonly stop?: () => boolean;
  } = {},
): Promise<void> {
  const queue = tasks[Symbol.iterator]();
  const count = options.processes ?? availableParallelism();
  await Promise.all(Array.from({ length: count }, () => new Lane(queue, onReport, options).run()));
}

class Lane {
  readonly #queue: Iterator<Task>;
  readonly #onReport: (report: SeedReport) => void;
  readonly #options: { readonly mutation?: string; readonly stop?: () => boolean };
  #child: ChildProcess | undefined;
  #stderr = "";
  #events = 0;

  constructor(
    queue: Iterator<Task>,
    onReport: (report: SeedReport) => void,
    options: { readonly mutation?: string; readonly stop?: () => boolean },
  ) {
    this.#queue = queue;
    this.#onReport = onReport;
    this.#options = options;
  }

  async run(): Promise<void> {
    try {
      for (;;) {
        if (this.#options.stop?.() === true) return;
        const next = this.#queue.next();
        if (next.done === true) return;
        const report = await this.#runOne(next.value);
        this.#onReport(report);
        this.#events += report.events;
        if (this.#events >= EVENTS_PER_PROCESS) this.#leave();
      }
    } finally {
      this.#leave();
    }
  }

  #leave(): void {
    this.#child?.disconnect();
    this.#child = undefined;
    this.#events = 0;
  }

  #runOne(task: Task): Promise<SeedReport> {
    const child = (this.#child ??= this.#start());
    return new Promise((resolve) => {
      const onExit = (code: number | null, signal: string | null): void => {
        this.#child = undefined;
        const why = `the process that ran it ended with ${code ?? signal ?? "nothing"}`;
        resolve(crashed(task, `${why}: ${this.#stderr}`));
      };
      child.once("close", onExit);
      child.once("message", (report) => {
        child.off("close", onExit);
        resolve(report as SeedReport);
      });
      child.send(task);
    });
  }

  #start(): ChildProcess {
    const { mutation } = this.#options;
    const env = { ...process.env, ...(mutation === undefined ? {} : { ASHLAR_SIM_BUG: mutation }) };
    const child = fork(WORKER, { env, execArgv: [], stdio: ["ignore", "inherit", "pipe", "ipc"] });
    // What it says as it dies belongs to the seed that it dies of.
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = `${this.#stderr}${text}`.slice(-STDERR_MAX);
    });
    return child;
  }
}

function crashed({ scenario, seed }: Task, message: string): SeedReport {
  return {
    seed,
    scenario,
    traceHash: "",
    events: 0,
    virtualMs: 0,
    operations: 0,
    failed: 0,
    faults: {},
    branches: {},
    failure: { invariant: "defect", message },
  };
}
