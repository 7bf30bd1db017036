// What coordinators remember of a schedule.
import type { JobId } from "#lib/core/ids.ts";

/** `schedule/<name>`. */
export interface ScheduleRecord {
  /** When it is due: a cron expression, in this time zone. */
  readonly cron: string;
  readonly timezone: string;
  /** What is submitted then, as it was given and checked. */
  readonly kind: string;
  readonly spec: Readonly<Record<string, unknown>>;
  readonly submitter: string | undefined;
  readonly createdMs: number;
  /** When it is due next. What was missed, while no coordinator was there, is made up for once. */
  readonly nextMs: number;
  /** When it was due last, and the job that was submitted then. */
  readonly lastMs: number | undefined;
  readonly lastJob: JobId | undefined;
  /** How often, in a row, it was not submitted because the job before had not ended. */
  readonly skipped: number;
}
