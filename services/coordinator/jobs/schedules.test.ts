import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { newJobId } from "#lib/core/ids.ts";
import { memoryLog } from "#test/fakes/memory-log.ts";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { openOneProcess } from "#test/fixtures/one-process.ts";
import { endJob, getJob, listJobs, takeJob } from "#lib/repository/transactions/job.ts";
import { fireSchedule, listSchedules } from "#lib/repository/transactions/schedule.ts";
import { newToken } from "#lib/repository/repository.ts";
import type { CoordinatorContext } from "../context.ts";
import { fireDue, nextAfter, parseSchedule, schedule, unschedule } from "./schedules.ts";

const HOUR_MS = 3_600_000;
const NIGHTLY = {
  name: "nightly",
  cron: "30 2 * * *",
  job: { kind: "gc", sweep: true },
};

/** A coordinator whose clock stands still until it is moved. */
async function setUp() {
  const process = await openOneProcess({ storages: 1 });
  const clock = virtualClock();
  const log = memoryLog([]);
  const context: CoordinatorContext = {
    ...process.context,
    repo: { ...process.repo, clock, log },
  };
  return { process, clock, context, kv: process.repo.kv };
}

describe("a schedule", () => {
  it("is due as cron says, in its time zone, also when clocks change", () => {
    const at = (text: string): number => Date.parse(text);
    assert.equal(
      nextAfter("30 2 * * *", "UTC", at("2026-11-26T02:30:00Z")),
      at("2026-11-27T02:30:00Z"),
    );
    assert.equal(
      nextAfter("0 6 * * 1", "Europe/Berlin", at("2026-07-01T00:00:00Z")),
      at("2026-07-06T04:00:00Z"),
    );
    // The hour from 2 to 3 is missing there on that day.
    const spring = nextAfter("30 2 * * *", "Europe/Berlin", at("2026-03-28T12:00:00Z"));
    assert.ok(spring >= at("2026-03-29T00:30:00Z") && spring <= at("2026-03-29T01:30:00Z"));
    assert.equal(
      nextAfter("@daily", "UTC", at("2026-01-01T00:00:00Z")),
      at("2026-01-02T00:00:00Z"),
    );
  });

  it("that is none is refused, with the field at fault", () => {
    const wrong: readonly [object, string][] = [
      [{ ...NIGHTLY, name: "a b" }, "name"],
      [{ ...NIGHTLY, cron: "30 2 * *" }, "cron"],
      [{ ...NIGHTLY, cron: "* 30 2 * * *" }, "cron"],
      [{ ...NIGHTLY, cron: "61 2 * * *" }, "cron"],
      [{ ...NIGHTLY, cron: "H 2 * * *" }, "cron"],
      [{ ...NIGHTLY, cron: 5 }, "cron"],
      [{ ...NIGHTLY, timezone: "Mars/Base" }, "timezone"],
      [{ ...NIGHTLY, job: { kind: "gcc" } }, "kind"],
      [{ ...NIGHTLY, job: { kind: "gc", swep: true } }, "swep"],
      [{ ...NIGHTLY, job: { kind: "gc", key: "k" } }, "key"],
      [{ ...NIGHTLY, job: undefined }, "job"],
      [{ ...NIGHTLY, crom: "" }, "crom"],
    ];
    for (const [request, field] of wrong) {
      assert.throws(
        () => parseSchedule(JSON.stringify(request)),
        (error) => isErrorCode(error, ErrorCode.Usage) && error.details["field"] === field,
        field,
      );
    }
  });

  it("submits its job once, whichever coordinators look, and makes up for what was missed once", async () => {
    const { process, clock, context, kv } = await setUp();
    await schedule(context, parseSchedule(JSON.stringify(NIGHTLY)));
    assert.equal(await fireDue(context), 0);
    await clock.advance(80 * HOUR_MS);
    const counts = await Promise.all([1, 2, 3].map(() => fireDue(context)));
    assert.equal(
      counts.reduce((sum, count) => sum + count, 0),
      1,
    );
    const [only, ...others] = await listJobs(kv, { limit: 10 });
    assert.equal(others.length, 0);
    assert.deepEqual([only?.record.kind, only?.record.spec], ["gc", { sweep: true }]);
    const [entry] = await listSchedules(kv);
    assert.equal(entry?.record.lastJob, only?.job);
    assert.ok((entry?.record.nextMs ?? 0) > clock.now());
    await process.close();
  });

  it("submits once also where the transaction lands twice", async () => {
    const { process, clock, context, kv } = await setUp();
    await schedule(context, parseSchedule(JSON.stringify(NIGHTLY)));
    const [entry] = await listSchedules(kv);
    const dueMs = entry!.record.nextMs;
    const job = newJobId(dueMs, Buffer.alloc(4, 1));
    const fire = { dueMs, nextMs: dueMs + 24 * HOUR_MS, nowMs: dueMs, job };
    assert.deepEqual(await fireSchedule(kv, "nightly", fire), { job });
    assert.deepEqual(await fireSchedule(kv, "nightly", fire), { job });
    const other = { ...fire, job: newJobId(dueMs, Buffer.alloc(4, 2)) };
    assert.equal(await fireSchedule(kv, "nightly", other), "not due");
    assert.equal((await listJobs(kv, { limit: 10 })).length, 1);
    assert.ok(clock.now() >= 0);
    await process.close();
  });

  it("leaves a run out while the one before has not ended", async () => {
    const { process, clock, context, kv } = await setUp();
    await schedule(context, parseSchedule(JSON.stringify(NIGHTLY)));
    await clock.advance(30 * HOUR_MS);
    assert.equal(await fireDue(context), 1);
    await clock.advance(24 * HOUR_MS);
    assert.equal(await fireDue(context), 0);
    const [skipped] = await listSchedules(kv);
    assert.ok(skipped !== undefined);
    assert.equal(skipped.record.skipped, 1);
    const job = skipped.record.lastJob!;
    const token = newToken(context.repo.random);
    await takeJob(kv, job, { owner: "c", token, nowMs: clock.now(), locks: [] });
    await endJob(kv, job, token, { state: "done", result: {} }, clock.now());
    await clock.advance(24 * HOUR_MS);
    assert.equal(await fireDue(context), 1);
    assert.equal((await listSchedules(kv))[0]?.record.skipped, 0);
    await process.close();
  });

  it("is replaced by one of its name, and removed", async () => {
    const { process, context, kv } = await setUp();
    await schedule(context, parseSchedule(JSON.stringify(NIGHTLY)));
    const second = { ...NIGHTLY, cron: "0 5 * * *", timezone: "Asia/Tokyo" };
    const document = await schedule(context, parseSchedule(JSON.stringify(second)));
    assert.equal(document.cron, "0 5 * * *");
    assert.equal(new Date(document.next).getUTCHours(), 20);
    assert.equal((await listSchedules(kv)).length, 1);
    await unschedule(context, "nightly");
    await assert.rejects(unschedule(context, "nightly"), (error) =>
      isErrorCode(error, ErrorCode.NotFound),
    );
    assert.deepEqual(await listSchedules(kv), []);
    assert.equal(await getJob(kv, newJobId(0, Buffer.alloc(4))), undefined);
    await process.close();
  });
});
