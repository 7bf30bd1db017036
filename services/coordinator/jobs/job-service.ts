// What people ask about jobs: submit, get, list, cancel. JSON in, JSON out; any coordinator answers.
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { newJobId, parseJobId, type JobId } from "#lib/core/ids.ts";
import type { Subscription } from "#lib/ports/bus.ts";
import { PLACE_HEADER } from "#lib/ports/bus.ts";
import type { ServiceEndpoint } from "#lib/ports/service.ts";
import type { JobRecord } from "#lib/repository/job-record.ts";
import {
  cancelJob,
  getJob,
  listJobs,
  listOpenJobs,
  submitJob,
  type JobEntry,
} from "#lib/repository/transactions/job.ts";
import { listSchedules } from "#lib/repository/transactions/schedule.ts";
import { queues } from "#proto/messages.ts";
import { JOBS_CANCEL_SUBJECT, JOBS_WAKE_SUBJECT } from "#proto/subjects.ts";
import type { CoordinatorContext } from "../context.ts";
import type { AgentDirectory } from "./agents.ts";
import { readJob } from "./job-kinds.ts";
import { JOB_KINDS, parseJobRequest, parseObject, submissionSchema } from "./job-spec.ts";
import { describeSchedule, parseSchedule, schedule, unschedule } from "./schedules.ts";

const LIST_DEFAULT = 50;
const LIST_MAX = 1000;

/** The endpoints of the service. */
export function jobEndpoints(
  context: CoordinatorContext,
  agents: AgentDirectory,
): readonly ServiceEndpoint[] {
  const byId = {
    type: "object",
    properties: { job: { type: "string" } },
    required: ["job"],
  } as const;
  return [
    {
      name: "submit",
      description: `Submits a job: ${JOB_KINDS.join(", ")}. Answers its id.`,
      schema: submissionSchema(),
      handle: async (text) => ({ job: await submit(context, text) }),
    },
    {
      name: "get",
      description: "Answers one job, with its outcome.",
      schema: byId,
      handle: async (text) => {
        const job = jobOf(text);
        const record = await getJob(context.repo.kv, job);
        if (record === undefined) throw unknownJob(job);
        return describe(agents, { job, record });
      },
    },
    {
      name: "list",
      description: 'Answers jobs, the newest first; those that are not over with {"open":true}.',
      schema: {
        type: "object",
        properties: {
          open: { type: "boolean" },
          limit: { type: "integer", minimum: 1, maximum: LIST_MAX },
          before: { type: "string" },
        },
      },
      handle: (text) => list(context, agents, text),
    },
    {
      name: "cancel",
      description: "Stops a job. What a backup has stored is gone on with by the next one.",
      schema: byId,
      handle: (text) => cancel(context, agents, text),
    },
    ...scheduleEndpoints(context),
  ];
}

function scheduleEndpoints(context: CoordinatorContext): readonly ServiceEndpoint[] {
  const text = { type: "string" } as const;
  return [
    {
      name: "schedule",
      description: "Sets a schedule: a job that is submitted at the times of a cron expression.",
      schema: {
        type: "object",
        properties: {
          name: text,
          cron: text,
          timezone: text,
          submitter: text,
          job: submissionSchema(),
        },
        required: ["name", "cron", "job"],
      },
      handle: (body) => schedule(context, parseSchedule(body)),
    },
    {
      name: "schedules",
      description: "Answers all schedules.",
      schema: { type: "object" },
      handle: async () => ({
        schedules: (await listSchedules(context.repo.kv)).map(describeSchedule),
      }),
    },
    {
      name: "unschedule",
      description: "Removes a schedule. Jobs that were submitted stay.",
      schema: { type: "object", properties: { name: text }, required: ["name"] },
      handle: async (body) => {
        const { name } = parseObject(body);
        await unschedule(context, name);
        return { name, removed: true };
      },
    },
  ];
}

/** Takes jobs that were published without waiting for an answer. */
export function consumeJobs(context: CoordinatorContext): Subscription {
  const { bus, repo } = context;
  const options = { concurrency: 1, neverGivesUp: true };
  return bus.consume(queues.jobs, options, async ({ body, headers }) => {
    try {
      // Of a message that comes twice, the place in the stream is the same.
      await submit(context, Buffer.from(body).toString("utf8"), headers?.[PLACE_HEADER]);
    } catch (error) {
      // One that can never be understood would come for ever.
      if (!isErrorCode(error, ErrorCode.Usage)) throw error;
      repo.log.warn(`a job that was published cannot be understood: ${error.message}`);
    }
  });
}

async function submit(context: CoordinatorContext, text: string, place?: string): Promise<JobId> {
  const { repo, bus } = context;
  const request = parseJobRequest(text);
  // What can be seen to be wrong is told at once.
  readJob(request.kind, request.spec);
  const nowMs = repo.clock.now();
  const job = await submitJob(repo.kv, {
    ...request,
    job: newJobId(nowMs, repo.random.bytes(4)),
    key: request.key ?? (place === undefined ? undefined : `stream ${place}`),
    nowMs,
  });
  bus.send(JOBS_WAKE_SUBJECT, { body: Buffer.alloc(0) });
  return job;
}

async function list(
  { repo }: CoordinatorContext,
  agents: AgentDirectory,
  text: string,
): Promise<object> {
  const { open, limit = LIST_DEFAULT, before } = parseObject(text);
  if (typeof limit !== "number" || !Number.isInteger(limit) || limit < 1 || limit > LIST_MAX) {
    throw fieldError("limit", `limit: expected a whole number between 1 and ${LIST_MAX}`);
  }
  if (open === true) {
    const jobs: object[] = [];
    for await (const entry of listOpenJobs(repo.kv)) {
      if (jobs.length === limit) break;
      jobs.push(describe(agents, entry));
    }
    return { jobs };
  }
  const from =
    before === undefined ? undefined : parseJobId(typeof before === "string" ? before : "");
  if (before !== undefined && from === undefined) throw fieldError("before", "before: no job's id");
  const entries = await listJobs(repo.kv, {
    limit,
    ...(from === undefined ? {} : { before: from }),
  });
  return { jobs: entries.map((entry) => describe(agents, entry)) };
}

async function cancel(
  { repo, bus }: CoordinatorContext,
  agents: AgentDirectory,
  text: string,
): Promise<object> {
  const job = jobOf(text);
  const error = { code: ErrorCode.Cancelled, message: "the job was cancelled" };
  const record = await cancelJob(repo.kv, job, repo.clock.now(), error);
  if (record === undefined) throw unknownJob(job);
  bus.send(JOBS_CANCEL_SUBJECT, { body: Buffer.from(job) });
  return describe(agents, { job, record });
}

function jobOf(text: string): JobId {
  const { job } = parseObject(text);
  const id = typeof job === "string" ? parseJobId(job) : undefined;
  if (id === undefined) throw fieldError("job", "job: expected a job's id, of 20 hex digits");
  return id;
}

function fieldError(field: string, message: string): AshlarError {
  return new AshlarError(ErrorCode.Usage, message, { details: { field } });
}

function unknownJob(job: JobId): AshlarError {
  return new AshlarError(ErrorCode.NotFound, `there is no job ${job}`, {
    remedy: "ask for the list of jobs",
    details: { job },
  });
}

/** A job as people see it. Fields are added, never renamed. */
export function describeJob(job: JobId, record: JobRecord): Readonly<Record<string, unknown>> {
  const time = (ms: number | undefined): string | null =>
    ms === undefined ? null : new Date(ms).toISOString();
  return {
    job,
    kind: record.kind,
    state: record.state,
    ...record.spec,
    submitter: record.submitter ?? null,
    submitted: time(record.submittedMs),
    started: time(record.startedMs),
    ended: time(record.endedMs),
    attempts: record.attempts,
    ...(record.isCancelled && record.state === "running" ? { stopping: true } : {}),
    ...(record.result === undefined ? {} : { result: record.result }),
    ...(record.error === undefined ? {} : { error: record.error }),
  };
}

function describe(agents: AgentDirectory, { job, record }: JobEntry): object {
  return { ...describeJob(job, record), ...waiting(agents, record) };
}

/** What a job waits for, as far as this coordinator sees. */
function waiting(agents: AgentDirectory, record: JobRecord): { readonly waitsFor?: string } {
  if (record.state !== "queued") return {};
  try {
    const { device } = readJob(record.kind, record.spec);
    const found = device === undefined ? "" : agents.find(device, () => 0);
    return typeof found === "string" ? {} : found;
  } catch {
    return {};
  }
}
