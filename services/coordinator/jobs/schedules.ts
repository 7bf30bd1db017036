// Schedules: cron expressions in a time zone, each with a job. Any coordinator looks after them.
import { CronExpressionParser } from "cron-parser";
import { IANAZone } from "luxon";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { newJobId } from "#lib/core/ids.ts";
import type { ScheduleRecord } from "#lib/repository/schedule-record.ts";
import {
  fireSchedule,
  listSchedules,
  removeSchedule,
  setSchedule,
  type ScheduleEntry,
} from "#lib/repository/transactions/schedule.ts";
import type { CoordinatorContext } from "../context.ts";
import { readJob } from "./job-kinds.ts";
import { parseJobRequest, parseObject } from "./job-spec.ts";

const NAME = /^[A-Za-z0-9][-A-Za-z0-9_.]{0,63}$/;
/** Oftener than once a minute nothing is looked at in time. */
const FIELDS = 5;

/** A schedule as people submit it: Usage, with the field at fault, where it is none. */
export interface ScheduleRequest {
  readonly name: string;
  readonly cron: string;
  readonly timezone: string;
  readonly kind: string;
  readonly spec: Readonly<Record<string, unknown>>;
  readonly submitter: string | undefined;
}

/** Reads one. */
export function parseSchedule(json: string): ScheduleRequest {
  const { name, cron, timezone = "UTC", submitter, job, ...rest } = parseObject(json);
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) {
    throw fieldError(unknown, `there is no field ${JSON.stringify(unknown)}`, FIELDS_RULE);
  }
  if (typeof name !== "string" || !NAME.test(name)) {
    throw fieldError("name", "name: expected up to 64 letters, digits, - _ and .");
  }
  if (typeof timezone !== "string" || !IANAZone.isValidZone(timezone)) {
    throw fieldError("timezone", "timezone: expected a name such as Europe/Berlin or UTC");
  }
  if (typeof cron !== "string") throw fieldError("cron", "cron: it is missing");
  if (submitter !== undefined && typeof submitter !== "string") {
    throw fieldError("submitter", "submitter: expected a text");
  }
  if (typeof job !== "object" || job === null) throw fieldError("job", "job: expected a job");
  const request = parseJobRequest(JSON.stringify(job));
  if (request.key !== undefined) throw fieldError("key", "key: each run is a job of its own");
  readJob(request.kind, request.spec);
  // Only to see whether it can be read.
  nextAfter(cron, timezone, 0);
  return { name, cron, timezone, kind: request.kind, spec: request.spec, submitter };
}

const FIELDS_RULE = "the fields are name, cron, timezone, submitter and job";

/** When a schedule is due next after a moment, in ms since 1970; Usage for an expression that cannot be read, or is never due. */
export function nextAfter(cron: string, timezone: string, afterMs: number): number {
  const isShort = cron.startsWith("@") || cron.trim().split(/\s+/).length === FIELDS;
  // The parser would draw another time for it whenever it is asked.
  if (/\bH\b/i.test(cron)) {
    throw fieldError("cron", `cron: ${JSON.stringify(cron)}: H stands for no time`, CRON_RULE);
  }
  try {
    if (isShort) {
      const options = { currentDate: new Date(afterMs), tz: timezone };
      return CronExpressionParser.parse(cron, options).next().getTime();
    }
  } catch (error) {
    throw fieldError(
      "cron",
      `cron: ${JSON.stringify(cron)} cannot be read: ${(error as Error).message}`,
      CRON_RULE,
    );
  }
  throw fieldError("cron", `cron: ${JSON.stringify(cron)} has not five fields`, CRON_RULE);
}

const CRON_RULE = "write minute, hour, day of month, month and day of week, as in 30 2 * * 1-5";

function fieldError(field: string, message: string, remedy?: string): AshlarError {
  return new AshlarError(ErrorCode.Usage, message, {
    ...(remedy === undefined ? {} : { remedy }),
    details: { field },
  });
}

/** Sets a schedule. */
export async function schedule(
  { repo }: CoordinatorContext,
  request: ScheduleRequest,
): Promise<ScheduleDocument> {
  const { name, ...rest } = request;
  const nowMs = repo.clock.now();
  const nextMs = nextAfter(rest.cron, rest.timezone, nowMs);
  const record = { ...rest, createdMs: nowMs, nextMs };
  await setSchedule(repo.kv, name, record);
  const set = (await listSchedules(repo.kv)).find((each) => each.name === name);
  return describeSchedule(
    set ?? { name, record: { ...record, lastMs: undefined, lastJob: undefined, skipped: 0 } },
  );
}

/** Removes a schedule; NotFound where there is none. */
export async function unschedule({ repo }: CoordinatorContext, name: unknown): Promise<void> {
  if (typeof name !== "string") throw fieldError("name", "name: expected a schedule's name");
  if (await removeSchedule(repo.kv, name)) return;
  throw new AshlarError(ErrorCode.NotFound, `there is no schedule ${JSON.stringify(name)}`, {
    remedy: "ask for the list of schedules",
    details: { field: "name" },
  });
}

/** A schedule as people see it. Fields are added, never renamed. */
export interface ScheduleDocument {
  readonly name: string;
  readonly cron: string;
  readonly timezone: string;
  readonly job: Readonly<Record<string, unknown>>;
  readonly submitter: string | null;
  readonly next: string;
  readonly last: string | null;
  readonly lastJob: string | null;
  readonly skipped: number;
}

/** Describes one. */
export function describeSchedule({ name, record }: ScheduleEntry): ScheduleDocument {
  return {
    name,
    cron: record.cron,
    timezone: record.timezone,
    job: { kind: record.kind, ...record.spec },
    submitter: record.submitter ?? null,
    next: new Date(record.nextMs).toISOString(),
    last: record.lastMs === undefined ? null : new Date(record.lastMs).toISOString(),
    lastJob: record.lastJob ?? null,
    skipped: record.skipped,
  };
}

/** Submits what is due; gives how many jobs. One that cannot be submitted keeps no other one back. */
export async function fireDue({ repo }: CoordinatorContext): Promise<number> {
  const { kv, clock, random, log } = repo;
  let count = 0;
  for (const { name, record } of await listSchedules(kv)) {
    const nowMs = clock.now();
    if (record.nextMs > nowMs) continue;
    try {
      const fired = await fireSchedule(kv, name, {
        dueMs: record.nextMs,
        nextMs: nextOf(record, nowMs),
        nowMs,
        job: newJobId(nowMs, random.bytes(4)),
      });
      if (fired === "skipped") {
        log.warn(
          `schedule ${name}: job ${record.lastJob ?? ""} has not ended, this run is left out`,
        );
      } else if (fired !== "not due") {
        log.info(`schedule ${name}: job ${fired.job} is submitted`);
        count += 1;
      }
    } catch (error) {
      log.error(`schedule ${name} could not be submitted`, { error });
    }
  }
  return count;
}

/** From now on, not from when it was due: what was missed is made up for once. */
function nextOf({ cron, timezone }: ScheduleRecord, nowMs: number): number {
  return nextAfter(cron, timezone, nowMs);
}
