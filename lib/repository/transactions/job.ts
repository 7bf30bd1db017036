// Jobs: submitted once, run by one coordinator at a time, taken over when that is gone. Every transaction lands twice without
// harm; whoever lost a job can say nothing more about it, for its token is another one.
import type { JobId, Token } from "#lib/core/ids.ts";
import type { Kv, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import type { JobError, JobRecord } from "../job-record.ts";
import { key, keyAfter, parse, range } from "../keyspace.ts";
import { decodeRecord, encodeRecord, type HeartbeatRecord } from "../records.ts";
import { requestHook } from "./job-hook.ts";

/** A job with its id. */
export interface JobEntry {
  readonly job: JobId;
  readonly record: JobRecord;
}

/** Entries read at a time. */
const PAGE = 256;
/** Removals are jobs too: a full store still takes them. */
const JOB = { label: "free:job" };

async function readJob(reader: KvReader, job: JobId): Promise<JobRecord | undefined> {
  const value = await reader.get(key.job(job));
  return value === undefined ? undefined : decodeRecord<JobRecord>(value);
}

function writeJob(tx: KvTransaction, job: JobId, record: JobRecord): void {
  tx.set(key.job(job), encodeRecord(record));
  if (isFinal(record)) {
    tx.clear(key.openJob(job));
    tx.clear(key.jobBeat(job));
    for (const lock of record.locks) tx.clear(key.jobLock(lock));
  } else {
    tx.set(key.openJob(job), Buffer.alloc(0));
  }
}

/** Whether nothing more will become of it. */
export function isFinal({ state }: JobRecord): boolean {
  return state === "done" || state === "failed" || state === "cancelled";
}

/** What a job is submitted with. */
export interface Submission {
  readonly job: JobId;
  readonly kind: string;
  readonly spec: Readonly<Record<string, unknown>>;
  readonly submitter: string | undefined;
  readonly key: string | undefined;
  readonly nowMs: number;
}

/** Records a job; the one that was submitted under the same key before, where there is one. */
export function submitJob(kv: Kv, submission: Submission): Promise<JobId> {
  return kv.transact((tx) => submitJobIn(tx, submission), JOB);
}

/** The same within a transaction. */
export async function submitJobIn(tx: KvTransaction, submission: Submission): Promise<JobId> {
  const { job, kind, spec, submitter, nowMs } = submission;
  if (submission.key !== undefined) {
    const earlier = await tx.get(key.jobKey(submission.key));
    if (earlier !== undefined) return earlier.toString("utf8") as JobId;
    tx.set(key.jobKey(submission.key), Buffer.from(job, "utf8"));
  }
  if ((await readJob(tx, job)) !== undefined) return job;
  writeJob(tx, job, {
    kind,
    spec,
    state: "queued",
    submitter,
    submittedMs: nowMs,
    key: submission.key,
    startedMs: undefined,
    endedMs: undefined,
    attempts: 0,
    owner: undefined,
    token: undefined,
    isCancelled: false,
    notBeforeMs: 0,
    locks: [],
    result: undefined,
    error: undefined,
  });
  return job;
}

/** Whether a job is there and has not ended. */
export async function isOpenJob(tx: KvTransaction, job: JobId): Promise<boolean> {
  return (await tx.get(key.openJob(job))) !== undefined;
}

/** Something of which only so many jobs may have a share at once: a volume 1, a host some. */
export interface LockWish {
  readonly name: string;
  readonly places: number;
}

/** When a job that somebody has counts as nobody's. */
export interface Lease {
  readonly nowMs: number;
  /** An owner that said nothing for longer is gone. */
  readonly leaseMs: number;
}

/** Who takes a job, and under which conditions. */
export interface TakeJob {
  readonly owner: string;
  readonly token: Token;
  readonly nowMs: number;
  readonly locks: readonly LockWish[];
}

/** Takes a job that waits; undefined where there is nothing to take, or no lock is free. */
export function takeJob(kv: Kv, job: JobId, take: TakeJob): Promise<JobRecord | undefined> {
  return kv.transact(async (tx) => {
    const record = await readJob(tx, job);
    if (record === undefined || isFinal(record)) return undefined;
    if (record.token === take.token) return record;
    if (record.state !== "queued" || record.notBeforeMs > take.nowMs) return undefined;
    const locks = await findLocks(tx, job, take.locks);
    if (locks === undefined) return undefined;
    for (const lock of locks) tx.set(key.jobLock(lock), Buffer.from(job, "utf8"));
    const taken: JobRecord = {
      ...record,
      state: "running",
      owner: take.owner,
      token: take.token,
      startedMs: record.startedMs ?? take.nowMs,
      attempts: record.attempts + 1,
      locks,
    };
    writeJob(tx, job, taken);
    writeBeat(tx, job, take.nowMs);
    return taken;
  }, JOB);
}

/**
 * Gives back a job whose coordinator is gone, also where nobody can take it now: what it had locked is free, and one that is to
 * be stopped has stopped. The record afterwards; undefined where somebody works on it.
 */
export function releaseAbandoned(
  kv: Kv,
  job: JobId,
  lease: Lease,
  cancelled: JobError,
): Promise<JobRecord | undefined> {
  return kv.transact(async (tx) => {
    const record = await readJob(tx, job);
    if (record?.state !== "running") return record;
    if (!(await isAbandoned(tx, job, lease))) return undefined;
    for (const lock of record.locks) tx.clear(key.jobLock(lock));
    tx.clear(key.jobBeat(job));
    const free = { ...record, token: undefined, locks: [] };
    const released: JobRecord = record.isCancelled
      ? { ...free, state: "cancelled", endedMs: lease.nowMs, error: cancelled }
      : { ...free, state: "queued" };
    writeJob(tx, job, released);
    return released;
  }, JOB);
}

async function isAbandoned(
  tx: KvTransaction,
  job: JobId,
  { nowMs, leaseMs }: Lease,
): Promise<boolean> {
  const value = await tx.get(key.jobBeat(job));
  if (value === undefined) return true;
  return nowMs - decodeRecord<HeartbeatRecord>(value).atMs > leaseMs;
}

/** A free place of each, or undefined. A lock counts for as long as the job that has it runs. */
async function findLocks(
  tx: KvTransaction,
  job: JobId,
  wishes: readonly LockWish[],
): Promise<string[] | undefined> {
  const found: string[] = [];
  for (const { name, places } of wishes) {
    let free: string | undefined;
    for (let place = 0; place < places && free === undefined; place += 1) {
      const lock = `${name}#${place}`;
      const holder = (await tx.get(key.jobLock(lock)))?.toString("utf8") as JobId | undefined;
      const other = holder === undefined || holder === job ? undefined : await readJob(tx, holder);
      const isHeld = other?.state === "running" && other.locks.includes(lock);
      if (!isHeld) free = lock;
    }
    if (free === undefined) return undefined;
    found.push(free);
  }
  return found;
}

function writeBeat(tx: KvTransaction, job: JobId, atMs: number): void {
  const beat: HeartbeatRecord = { atMs };
  tx.set(key.jobBeat(job), encodeRecord(beat));
}

/** Says that a job is still worked on. */
export function beatJob(
  kv: Kv,
  job: JobId,
  token: Token,
  nowMs: number,
): Promise<"ours" | "cancelled" | "lost"> {
  return kv.transact(async (tx) => {
    const record = await readJob(tx, job);
    if (record?.state !== "running" || record.token !== token) return "lost";
    writeBeat(tx, job, nowMs);
    return record.isCancelled ? "cancelled" : "ours";
  }, JOB);
}

/**
 * Keeps the time of a scrub's cycle for later tries of its job. The one that an earlier try has kept, where there is one; undefined
 * where the job is somebody else's by now.
 */
export function keepCycle(
  kv: Kv,
  job: JobId,
  token: Token,
  cycleMs: number,
): Promise<number | undefined> {
  return kv.transact(async (tx) => {
    const record = await readJob(tx, job);
    if (record?.state !== "running" || record.token !== token) return undefined;
    if (record.cycleMs !== undefined) return record.cycleMs;
    writeJob(tx, job, { ...record, cycleMs });
    return cycleMs;
  }, JOB);
}

/** What has become of a job. */
export type JobOutcome =
  | { readonly state: "done"; readonly result: Readonly<Record<string, unknown>> }
  | { readonly state: "failed" | "cancelled"; readonly error: JobError }
  /** It is tried again. */
  | { readonly state: "queued"; readonly error: JobError; readonly notBeforeMs: number };

/**
 * Records the outcome; false where the job is somebody else's by now.
 * @param options.hook somebody is to be told when it has failed
 */
export function endJob(
  kv: Kv,
  job: JobId,
  token: Token,
  outcome: JobOutcome,
  nowMs: number,
  options: { readonly hook?: boolean } = {},
): Promise<boolean> {
  return kv.transact(async (tx) => {
    const record = await readJob(tx, job);
    if (record === undefined || record.token !== token) return false;
    // It has landed before.
    if (record.state !== "running") return true;
    const isOver = outcome.state !== "queued";
    // Whoever wants it stopped does not want it tried again.
    const state = isOver ? outcome.state : record.isCancelled ? "cancelled" : "queued";
    const ended: JobRecord = {
      ...record,
      state,
      // Whoever takes it next is somebody else.
      token: state === "queued" ? undefined : token,
      endedMs: state === "queued" ? undefined : nowMs,
      notBeforeMs: isOver ? 0 : outcome.notBeforeMs,
      result: outcome.state === "done" ? outcome.result : undefined,
      error: outcome.state === "done" ? undefined : outcome.error,
    };
    for (const lock of record.locks) tx.clear(key.jobLock(lock));
    tx.clear(key.jobBeat(job));
    if (state === "failed" && options.hook === true) requestHook(tx, job);
    writeJob(tx, job, { ...ended, locks: [] });
    return true;
  }, JOB);
}

/** Stops a job: at once where nobody runs it. The record afterwards; undefined where there is no such job. */
export function cancelJob(
  kv: Kv,
  job: JobId,
  nowMs: number,
  error: JobError,
): Promise<JobRecord | undefined> {
  return kv.transact(async (tx) => {
    const record = await readJob(tx, job);
    if (record === undefined || isFinal(record) || record.isCancelled) return record;
    const cancelled: JobRecord =
      record.state === "queued"
        ? { ...record, isCancelled: true, state: "cancelled", endedMs: nowMs, error }
        : { ...record, isCancelled: true };
    writeJob(tx, job, cancelled);
    return cancelled;
  }, JOB);
}

/** One job. */
export async function getJob(kv: Kv, job: JobId): Promise<JobRecord | undefined> {
  return kv.read((reader) => readJob(reader, job));
}

/** Jobs that are not over, the oldest first. */
export async function* listOpenJobs(kv: Kv): AsyncGenerator<JobEntry> {
  let { start } = range.openJobs();
  const { end } = range.openJobs();
  for (;;) {
    const entries = await kv.read(async (reader) => {
      const page = await reader.range({ start, end, limit: PAGE });
      const jobs = page.map((entry) => parse.openJob(entry.key));
      const values = await reader.getMany(jobs.map((job) => key.job(job)));
      return { page, jobs, values };
    });
    for (const [index, job] of entries.jobs.entries()) {
      const value = entries.values[index];
      if (value !== undefined) yield { job, record: decodeRecord<JobRecord>(value) };
    }
    const last = entries.page.at(-1);
    if (last === undefined || entries.page.length < PAGE) return;
    start = keyAfter(last.key);
  }
}

/** The history, the newest first. */
export async function listJobs(
  kv: Kv,
  options: { readonly limit: number; readonly before?: JobId },
): Promise<JobEntry[]> {
  const { limit, before } = options;
  const entries = await kv.read((reader) =>
    reader.range({ ...range.jobs(before), limit, reverse: true }),
  );
  return entries.map((entry) => ({
    job: parse.job(entry.key),
    record: decodeRecord<JobRecord>(entry.value),
  }));
}

/** Forgets jobs that ended before; gives how many. In bounded steps. */
export async function forgetJobs(kv: Kv, beforeMs: number): Promise<number> {
  let { start } = range.jobs();
  const { end } = range.jobs();
  let count = 0;
  for (;;) {
    const step = await kv.transact(
      async (tx) => {
        const page = await tx.range({ start, end, limit: PAGE });
        let forgotten = 0;
        let isDone = page.length < PAGE;
        for (const entry of page) {
          const record = decodeRecord<JobRecord>(entry.value);
          if (record.submittedMs >= beforeMs) isDone = true;
          if (!isFinal(record) || (record.endedMs ?? record.submittedMs) >= beforeMs) continue;
          tx.clear(entry.key);
          tx.clear(key.jobHook(parse.job(entry.key)));
          if (record.key !== undefined) tx.clear(key.jobKey(record.key));
          forgotten += 1;
        }
        return { forgotten, isDone, last: page.at(-1)?.key };
      },
      { label: "free:jobs" },
    );
    count += step.forgotten;
    if (step.isDone || step.last === undefined) return count;
    start = keyAfter(step.last);
  }
}
