// That somebody is to be told of a failed job: recorded with the failure, and claimed by one coordinator at a time.
import type { JobId } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import type { JobRecord } from "../job-record.ts";
import { key, parse, range } from "../keyspace.ts";
import { decodeRecord, encodeRecord } from "../records.ts";

/** `job hook/<id>`. */
interface HookRecord {
  readonly tries: number;
  /** Somebody is at it until then. */
  readonly notBeforeMs: number;
}

const PAGE = 100;

/** To be told, in the transaction that records the failure. */
export function requestHook(tx: KvTransaction, job: JobId): void {
  tx.set(key.jobHook(job), encodeRecord({ tries: 0, notBeforeMs: 0 } satisfies HookRecord));
}

/** The first failed jobs of which nobody was told yet. */
export async function listHooks(kv: Kv): Promise<JobId[]> {
  const entries = await kv.read((reader) => reader.range({ ...range.jobHooks(), limit: PAGE }));
  return entries.map((entry) => parse.jobHook(entry.key));
}

/** Takes it on for `forMs`; undefined where it was told, or somebody else is at it. */
export function claimHook(
  kv: Kv,
  job: JobId,
  nowMs: number,
  forMs: number,
): Promise<{ readonly record: JobRecord; readonly tries: number } | undefined> {
  return kv.transact(
    async (tx) => {
      const value = await tx.get(key.jobHook(job));
      const hook = value === undefined ? undefined : decodeRecord<HookRecord>(value);
      const record = await tx.get(key.job(job));
      if (hook === undefined || hook.notBeforeMs > nowMs) return undefined;
      if (record === undefined) {
        tx.clear(key.jobHook(job));
        return undefined;
      }
      const tries = hook.tries + 1;
      const claimed: HookRecord = { tries, notBeforeMs: nowMs + forMs };
      tx.set(key.jobHook(job), encodeRecord(claimed));
      return { record: decodeRecord<JobRecord>(record), tries };
    },
    { label: "free:hook" },
  );
}

/** It was told. */
export function clearHook(kv: Kv, job: JobId): Promise<void> {
  return kv.transact(async (tx) => tx.clear(key.jobHook(job)), { label: "free:hook" });
}
