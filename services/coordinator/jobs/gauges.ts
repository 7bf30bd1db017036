// What a coordinator tells of the whole repository, so that somebody is woken before it is too late: jobs that wait, what storages
// are owed, and how old the last good backup of each volume is.
import type { Clock } from "#lib/ports/clock.ts";
import { readLockStatus } from "#lib/repository/transactions/lock.ts";
import { measureWaiting } from "#lib/repository/transactions/locked-trash.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";
import { listOpenJobs } from "#lib/repository/transactions/job.ts";
import { listVerify } from "#lib/repository/transactions/verify.ts";
import { listVersions } from "#lib/repository/transactions/version.ts";
import type { CoordinatorContext } from "../context.ts";
import { countOwed } from "../status.ts";

/** How often, in ms: it reads all versions. */
const EVERY_MS = 60_000;
/** Of so many volumes at most: each is a series of its own. */
const VOLUMES_MAX = 10_000;

/** Tells it from now on. */
export function startGauges(context: CoordinatorContext): { stop(): Promise<void> } {
  const { clock, log } = context.repo;
  const stopped = new AbortController();
  const telling = (async () => {
    while (!stopped.signal.aborted) {
      try {
        await tellGauges(context);
      } catch (error) {
        log.warn("the state of the repository could not be measured", { error });
      }
      await sleep(clock, stopped.signal);
    }
  })();
  return {
    stop: () => {
      stopped.abort();
      return telling;
    },
  };
}

function sleep(clock: Clock, signal: AbortSignal): Promise<void> {
  return clock.sleep(EVERY_MS, signal).catch(() => undefined);
}

/** Tells it once. */
export async function tellGauges({ repo }: CoordinatorContext): Promise<void> {
  const { kv, clock, telemetry } = repo;
  const jobs = { queued: 0, running: 0 };
  for await (const { record } of listOpenJobs(kv)) {
    if (record.state === "queued" || record.state === "running") jobs[record.state] += 1;
  }
  for (const [state, count] of Object.entries(jobs)) {
    telemetry.gauge("ashlar.jobs.open", count, { state });
  }
  for (const { storage, record } of await listStorages(kv)) {
    const { copies, heads } = await countOwed(kv, storage);
    telemetry.gauge("ashlar.owed.copies", copies, { storage: record.name });
    telemetry.gauge("ashlar.owed.heads", heads, { storage: record.name });
    const { objects, bytes } = await measureWaiting(kv, storage);
    telemetry.gauge("ashlar.waiting.objects", objects, { storage: record.name });
    telemetry.gauge("ashlar.waiting.bytes", bytes, { storage: record.name });
    const lock = await readLockStatus(kv, storage);
    if (lock?.firstDueMs !== undefined) {
      telemetry.gauge("ashlar.locks.due", lock.firstDueMs / 1000, { storage: record.name });
    }
    const [oldest] = (await listVerify(kv, storage, undefined, 1)).copies;
    if (oldest === undefined) continue;
    telemetry.gauge("ashlar.storage.verified_since", oldest.lastMs / 1000, {
      storage: record.name,
    });
  }
  const latest = new Map<string, number>();
  for await (const { volume, state, createdMs } of listVersions(kv, {})) {
    if (state !== "valid" || (latest.size >= VOLUMES_MAX && !latest.has(volume))) continue;
    latest.set(volume, Math.max(latest.get(volume) ?? 0, createdMs));
  }
  // Points in time, not ages: a series that is told no more must not look young.
  for (const [volume, createdMs] of latest) {
    telemetry.gauge("ashlar.volume.last_backup", createdMs / 1000, { volume });
  }
  telemetry.gauge("ashlar.measured", clock.now() / 1000);
}
