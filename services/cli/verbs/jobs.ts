// ashlar submit, jobs, watch and cancel: jobs of a cluster.
import type { Command } from "commander";
import { setTimeout } from "node:timers/promises";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { JobClient, JobEvent } from "#lib/process/job-client.ts";
import { JOB_KINDS, parseJobWords } from "#services/coordinator/jobs/job-spec.ts";
import type { CommandContext } from "../context.ts";
import { parseCount } from "../option-values.ts";
import { formatFields, formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { startProgressBar } from "../progress-bar.ts";
import { formatDate } from "../version-document.ts";
import { submitter, withJobs } from "../with-jobs.ts";

/** A job as the service tells it. */
interface JobDocument extends Readonly<Record<string, unknown>> {
  readonly job: string;
  readonly kind: string;
  readonly state: string;
  readonly submitted: string;
  readonly started: string | null;
  readonly ended: string | null;
  readonly attempts: number;
  readonly waitsFor?: string;
  readonly error?: { readonly code: string; readonly message: string; readonly remedy?: string };
}

const SUBMIT_HELP = `
JOB is a kind (${JOB_KINDS.join(", ")}) followed by FIELD=VALUE, or all of it as JSON.
docs/cluster.md lists the fields. Lists are separated by commas, labels are labels.NAME=VALUE. Paths are those
of the agent's host. With --wait the exit code is that of the job's outcome.

Examples:
  ashlar submit backup volume=vm1 source=/dev/vg0/vm1-snap host=hv3 snapshot=monday
  ashlar submit --wait restore version=vm1@latest target=/dev/vg0/restore-vm1 host=hv3 force=true
  ashlar submit '{"kind":"gc","sweep":true}'`;

const WATCH_HELP = `
It shows the progress until the job has ended; stopping it does not stop the job. The exit code is that of the
job's outcome.

Examples:
  ashlar watch 01a21729b80b681523d5`;

/** Adds the verbs. */
export function addJobs(program: Command, act: Act): void {
  addSubmit(program, act);
  addList(program, act);
  addWatch(program, act);
  addCancel(program, act);
}

function addSubmit(program: Command, act: Act): void {
  program
    .command("submit")
    .summary("submit a job to the cluster")
    .description("Submits a job to the cluster and prints its id.")
    .argument("<job...>", "a kind and its fields, or JSON")
    .option("--key <key>", "the same key gives the same job, however often it is submitted")
    .option("--wait", "wait for its end, and show its progress")
    .addHelpText("after", SUBMIT_HELP)
    .action(
      act(async (context, words: string[], options: { key?: string; wait?: boolean }) => {
        const job = parseJobWords(words);
        const { key } = options;
        await withJobs(context, async (client) => {
          const submission = {
            submitter: submitter(),
            ...job,
            ...(key === undefined ? {} : { key }),
          };
          const { job: id } = await client.ask<{ job: string }>("submit", submission);
          if (options.wait === true) await follow(context, client, id);
          else context.output.result({ job: id }, () => [id]);
        });
      }),
    );
}

function addList(program: Command, act: Act): void {
  program
    .command("jobs")
    .summary("list the jobs of the cluster")
    .description("Lists jobs, the newest first, or shows one.")
    .argument("[job]", "id of a job")
    .option("--open", "only those that have not ended, the oldest first")
    .option("-n, --limit <count>", "how many at most", parseCount)
    .addHelpText("after", "\nExamples:\n  ashlar jobs --open\n  ashlar jobs 01a21729b80b681523d5")
    .action(
      act(async (context, id: string | undefined, options: { open?: boolean; limit?: number }) => {
        await withJobs(context, async (client) => {
          if (id !== undefined) {
            const job = await client.ask<JobDocument>("get", { job: id });
            context.output.result(job, () => fields(job));
            return;
          }
          const { open = false, limit } = options;
          const request = { open, ...(limit === undefined ? {} : { limit }) };
          const { jobs } = await client.ask<{ jobs: JobDocument[] }>("list", request);
          context.output.result({ jobs }, () => table(jobs));
        });
      }),
    );
}

function addWatch(program: Command, act: Act): void {
  program
    .command("watch")
    .summary("follow a job to its end")
    .description("Shows the progress of a job until it has ended.")
    .argument("<job>", "id of the job")
    .addHelpText("after", WATCH_HELP)
    .action(
      act(async (context, id: string) => {
        await withJobs(context, (client) => follow(context, client, id));
      }),
    );
}

function addCancel(program: Command, act: Act): void {
  program
    .command("cancel")
    .summary("stop a job")
    .description("Stops a job. What a backup has stored is not sent again by the next one.")
    .argument("<job>", "id of the job")
    .addHelpText("after", "\nExamples:\n  ashlar cancel 01a21729b80b681523d5")
    .action(
      act(async (context, id: string) => {
        await withJobs(context, async (client) => {
          const job = await client.ask<JobDocument>("cancel", { job: id });
          context.output.result(job, () => [`${id}: ${stateOf(job)}`]);
        });
      }),
    );
}

/** A job's own word is asked for as well, in case that an event is lost. */
const ASK_EVERY_MS = 2000;
/** A job goes on while no coordinator answers, or NATS is away: so long is it waited for one. */
const PATIENCE_MS = 120_000;

async function follow(context: CommandContext, client: JobClient, id: string): Promise<void> {
  const bar = startProgressBar(context);
  let wake = Promise.withResolvers<void>();
  const watch = client.watch(id, (event) => {
    if (event.progress !== undefined) bar.show(progressOf(event.progress));
    if (event.state !== "running") wake.resolve();
  });
  const stop = (): void => wake.resolve();
  context.signal.addEventListener("abort", stop);
  let job: JobDocument;
  try {
    for (;;) {
      job = await askPatiently(context, client, id);
      if (job.state !== "queued" && job.state !== "running") break;
      context.signal.throwIfAborted();
      wake = Promise.withResolvers<void>();
      const waited = new AbortController();
      const { signal } = waited;
      void setTimeout(ASK_EVERY_MS, undefined, { signal }).then(stop, () => undefined);
      await wake.promise;
      waited.abort();
    }
  } finally {
    context.signal.removeEventListener("abort", stop);
    watch.stop();
    bar.stop();
  }
  if (job.error !== undefined) {
    const { remoteError } = await import("#lib/process/job-client.ts");
    throw remoteError(job.error);
  }
  context.output.result(job, () => [id]);
}

async function askPatiently(
  { signal, log }: CommandContext,
  client: JobClient,
  id: string,
): Promise<JobDocument> {
  const untilMs = performance.now() + PATIENCE_MS;
  for (let isTold = false; ; isTold = true) {
    try {
      return await client.ask<JobDocument>("get", { job: id });
    } catch (error) {
      signal.throwIfAborted();
      if (!isErrorCode(error, ErrorCode.Unavailable) || performance.now() > untilMs) throw error;
      if (!isTold) log.warn(`${error.message}; the job goes on, and so does the waiting`);
      await setTimeout(ASK_EVERY_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}

function progressOf(progress: NonNullable<JobEvent["progress"]>) {
  return { ...progress, bytesTotal: progress.bytesTotal };
}

function stateOf(job: JobDocument): string {
  if (job.waitsFor !== undefined) return `${job.state}, waits for ${job.waitsFor}`;
  return job["stopping"] === true ? `${job.state}, being stopped` : job.state;
}

function subjectOf(job: JobDocument): string {
  const names = ["volume", "version", "rules", "source", "target", "host"];
  return names.flatMap((name) => (typeof job[name] === "string" ? [job[name]] : [])).join(" ");
}

function table(jobs: readonly JobDocument[]): string[] {
  if (jobs.length === 0) return ["no jobs"];
  return formatTable(
    [
      { head: "submitted" },
      { head: "job" },
      { head: "kind" },
      { head: "state" },
      { head: "about" },
    ],
    jobs.map((job) => [
      formatDate(Date.parse(job.submitted)),
      job.job,
      job.kind,
      job.error === undefined ? stateOf(job) : `${stateOf(job)}: ${job.error.message}`,
      subjectOf(job),
    ]),
  );
}

function fields(job: JobDocument): string[] {
  return formatFields(
    Object.entries(job)
      .filter(([, value]) => value !== null)
      .map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
  );
}
