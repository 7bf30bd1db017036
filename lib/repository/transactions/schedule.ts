// Schedules: due at a time that is moved on in the transaction that submits the job, so that of any number of coordinators, dying
// at any moment, exactly one submits it.
import type { JobId } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import { key, keyAfter, parse, range } from "../keyspace.ts";
import { decodeRecord, encodeRecord } from "../records.ts";
import type { ScheduleRecord } from "../schedule-record.ts";
import { isOpenJob, submitJobIn } from "./job.ts";

/** A schedule with its name. */
export interface ScheduleEntry {
  readonly name: string;
  readonly record: ScheduleRecord;
}

const PAGE = 500;

/** Sets a schedule, in the place of one of that name. */
export function setSchedule(
  kv: Kv,
  name: string,
  schedule: Omit<ScheduleRecord, "lastMs" | "lastJob" | "skipped">,
): Promise<void> {
  return kv.transact(async (tx) => {
    const before = await readSchedule(tx, name);
    const { lastMs, lastJob } = before ?? { lastMs: undefined, lastJob: undefined };
    writeSchedule(tx, name, { ...schedule, lastMs, lastJob, skipped: 0 });
  });
}

/** Removes it; false where there is none. */
export function removeSchedule(kv: Kv, name: string): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      if ((await readSchedule(tx, name)) === undefined) return false;
      tx.clear(key.schedule(name));
      return true;
    },
    { label: "free:schedule" },
  );
}

/** All schedules by name. */
export async function listSchedules(kv: Kv): Promise<ScheduleEntry[]> {
  const entries: ScheduleEntry[] = [];
  let { start } = range.schedules();
  const { end } = range.schedules();
  for (;;) {
    const page = await kv.read((reader) => reader.range({ start, end, limit: PAGE }));
    for (const entry of page) {
      const name = parse.schedule(entry.key);
      entries.push({ name, record: decodeRecord<ScheduleRecord>(entry.value) });
    }
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) return entries;
    start = keyAfter(last.key);
  }
}

/** What a due schedule came to. */
export type Fired = { readonly job: JobId } | "skipped" | "not due";

/**
 * Submits what a schedule is for, if it is still due at `dueMs`, and the job that it was submitted for before has ended.
 * @param fire.nextMs when it is due next
 */
export function fireSchedule(
  kv: Kv,
  name: string,
  fire: {
    readonly dueMs: number;
    readonly nextMs: number;
    readonly nowMs: number;
    readonly job: JobId;
  },
): Promise<Fired> {
  return kv.transact(
    async (tx) => {
      const record = await readSchedule(tx, name);
      if (record === undefined) return "not due";
      // It has landed before.
      if (record.lastJob === fire.job) return { job: fire.job };
      if (record.nextMs !== fire.dueMs) return "not due";
      const moved = { ...record, nextMs: fire.nextMs };
      if (record.lastJob !== undefined && (await isOpenJob(tx, record.lastJob))) {
        writeSchedule(tx, name, { ...moved, skipped: record.skipped + 1 });
        return "skipped";
      }
      const { kind, spec, submitter } = record;
      const submission = {
        job: fire.job,
        kind,
        spec,
        submitter,
        key: undefined,
        nowMs: fire.nowMs,
      };
      await submitJobIn(tx, submission);
      writeSchedule(tx, name, { ...moved, lastMs: fire.dueMs, lastJob: fire.job, skipped: 0 });
      return { job: fire.job };
    },
    { label: "free:schedule" },
  );
}

async function readSchedule(tx: KvTransaction, name: string): Promise<ScheduleRecord | undefined> {
  const value = await tx.get(key.schedule(name));
  return value === undefined ? undefined : decodeRecord<ScheduleRecord>(value);
}

function writeSchedule(tx: KvTransaction, name: string, record: ScheduleRecord): void {
  tx.set(key.schedule(name), encodeRecord(record));
}
