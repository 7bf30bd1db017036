import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode } from "#lib/core/errors.ts";
import { newJobId, type JobId, type Token } from "#lib/core/ids.ts";
import { openTestKv } from "#test/fixtures/test-kv.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { newToken } from "../repository.ts";
import {
  beatJob,
  cancelJob,
  endJob,
  forgetJobs,
  getJob,
  keepCycle,
  listJobs,
  listOpenJobs,
  releaseAbandoned,
  submitJob,
  takeJob,
  type LockWish,
} from "./job.ts";

const random = seededRandom(1);
const LEASE_MS = 1000;
const CANCELLED = { code: ErrorCode.Cancelled, message: "it was cancelled" };
const FAILED = { code: ErrorCode.Io, message: "broken" };

function submit(kv: Kv, nowMs: number, key?: string): Promise<JobId> {
  return submitJob(kv, {
    job: newJobId(nowMs, random.bytes(4)),
    kind: "backup",
    spec: { volume: "v" },
    submitter: undefined,
    key,
    nowMs,
  });
}

async function take(
  kv: Kv,
  job: JobId,
  nowMs: number,
  locks: readonly LockWish[] = [],
): Promise<Token | undefined> {
  const token = newToken(random);
  await releaseAbandoned(kv, job, { nowMs, leaseMs: LEASE_MS }, CANCELLED);
  const taken = await takeJob(kv, job, { owner: "c", token, nowMs, locks });
  return taken === undefined ? undefined : token;
}

async function openJobs(kv: Kv): Promise<JobId[]> {
  const jobs: JobId[] = [];
  for await (const { job } of listOpenJobs(kv)) jobs.push(job);
  return jobs;
}

describe("a job", () => {
  it("keeps the time of the cycle that its first try has begun, whoever has it", async () => {
    const kv = await openTestKv();
    const job = await submit(kv, 0);
    const first = await take(kv, job, 0);
    assert.ok(first !== undefined);
    assert.equal(await keepCycle(kv, job, first, 700), 700);
    assert.equal(await keepCycle(kv, job, first, 800), 700);
    const second = await take(kv, job, 2 * LEASE_MS);
    assert.ok(second !== undefined);
    assert.equal(await keepCycle(kv, job, first, 900), undefined, "it is somebody else's");
    assert.equal(await keepCycle(kv, job, second, 900), 700);
    await endJob(kv, job, second, { state: "done", result: {} }, 3000);
    assert.equal(await keepCycle(kv, job, second, 900), undefined);
  });

  it("is one coordinator's at a time", async () => {
    const kv = await openTestKv();
    const job = await submit(kv, 0);
    const tokens = await Promise.all([1, 2, 3, 4].map(() => take(kv, job, 10)));
    assert.equal(tokens.filter((token) => token !== undefined).length, 1);
  });

  it("is submitted once under a key, and gets back to it until it is forgotten", async () => {
    const kv = await openTestKv();
    const [first, second] = await Promise.all([submit(kv, 1, "k"), submit(kv, 2, "k")]);
    assert.equal(first, second);
    assert.notEqual(await submit(kv, 3), first);
    const token = await take(kv, first, 4);
    await endJob(kv, first, token!, { state: "done", result: {} }, 5);
    assert.equal(await submit(kv, 6, "k"), first);
    assert.equal(await forgetJobs(kv, 100), 1);
    assert.notEqual(await submit(kv, 101, "k"), first);
  });

  it("is taken over when its coordinator says nothing for longer than its lease", async () => {
    const kv = await openTestKv();
    const job = await submit(kv, 0);
    const first = await take(kv, job, 0);
    assert.equal(await beatJob(kv, job, first!, 900), "ours");
    assert.equal(await take(kv, job, 1900), undefined);
    const second = await take(kv, job, 1901);
    assert.ok(second !== undefined);
    assert.equal(await beatJob(kv, job, first!, 1902), "lost");
    assert.equal(await endJob(kv, job, first!, { state: "done", result: {} }, 1903), false);
    assert.equal((await getJob(kv, job))?.state, "running");
    assert.equal(await endJob(kv, job, second, { state: "done", result: { a: 1 } }, 1904), true);
    const record = await getJob(kv, job);
    assert.deepEqual([record?.state, record?.result, record?.attempts], ["done", { a: 1 }, 2]);
    assert.deepEqual(await openJobs(kv), []);
  });

  it("ends once, also when that lands twice", async () => {
    const kv = await openTestKv();
    const job = await submit(kv, 0);
    const token = await take(kv, job, 0);
    const end = () => endJob(kv, job, token!, { state: "done", result: {} }, 5);
    assert.deepEqual([await end(), await end()], [true, true]);
    const late = { state: "failed", error: FAILED } as const;
    assert.equal(await endJob(kv, job, token!, late, 6), true);
    assert.equal((await getJob(kv, job))?.state, "done");
    assert.equal(await take(kv, job, 10_000), undefined);
  });

  it("is tried again, not before its time and under another token", async () => {
    const kv = await openTestKv();
    const job = await submit(kv, 0);
    const token = await take(kv, job, 0);
    await endJob(kv, job, token!, { state: "queued", error: FAILED, notBeforeMs: 50 }, 5);
    assert.equal(await take(kv, job, 49), undefined);
    assert.equal(await beatJob(kv, job, token!, 49), "lost");
    assert.ok((await take(kv, job, 50)) !== undefined);
    assert.equal((await getJob(kv, job))?.attempts, 2);
  });

  it("that waits is cancelled at once; one that runs is told", async () => {
    const kv = await openTestKv();
    const waiting = await submit(kv, 0);
    const running = await submit(kv, 1);
    const token = await take(kv, running, 2);
    for (const job of [waiting, running, waiting]) await cancelJob(kv, job, 3, FAILED);
    assert.equal((await getJob(kv, waiting))?.state, "cancelled");
    assert.equal(await take(kv, waiting, 4), undefined);
    assert.equal(await beatJob(kv, running, token!, 4), "cancelled");
    await endJob(kv, running, token!, { state: "queued", error: FAILED, notBeforeMs: 0 }, 5);
    assert.equal((await getJob(kv, running))?.state, "cancelled");
  });

  it("waits for its locks, which count for as long as their holder runs", async () => {
    const kv = await openTestKv();
    const jobs = [await submit(kv, 0), await submit(kv, 1), await submit(kv, 2)];
    const locks = [{ name: "host/a", places: 2 }];
    const tokens = [];
    for (const job of jobs) tokens.push(await take(kv, job, 3, locks));
    assert.deepEqual(
      tokens.map((token) => token !== undefined),
      [true, true, false],
    );
    assert.equal(await take(kv, jobs[2]!, 4, [...locks, { name: "other", places: 1 }]), undefined);
    await endJob(kv, jobs[0]!, tokens[0]!, { state: "failed", error: FAILED }, 5);
    assert.ok((await take(kv, jobs[2]!, 6, locks)) !== undefined);
    // Whoever takes a job over has its locks.
    assert.ok((await take(kv, jobs[1]!, 5000, locks)) !== undefined);
  });

  it("of a coordinator that is gone is given back with its locks, and ends where it was to be stopped", async () => {
    const kv = await openTestKv();
    const jobs = [await submit(kv, 0), await submit(kv, 1)];
    const locks = [{ name: "volume/v", places: 1 }];
    const token = await take(kv, jobs[0]!, 10, locks);
    const release = (nowMs: number) =>
      releaseAbandoned(kv, jobs[0]!, { nowMs, leaseMs: LEASE_MS }, CANCELLED);
    assert.equal(await release(10 + LEASE_MS), undefined);
    assert.equal(await take(kv, jobs[1]!, 10 + LEASE_MS, locks), undefined);
    assert.equal((await release(11 + LEASE_MS))?.state, "queued");
    assert.equal(await beatJob(kv, jobs[0]!, token!, 2000), "lost");
    assert.equal(await endJob(kv, jobs[0]!, token!, { state: "done", result: {} }, 2000), false);
    // Nobody can take it now, and yet another one of its volume goes on.
    assert.ok((await take(kv, jobs[1]!, 2000, locks)) !== undefined);
    assert.equal(await take(kv, jobs[0]!, 2000, locks), undefined);

    const stopped = await submit(kv, 2);
    await take(kv, stopped, 2000);
    await cancelJob(kv, stopped, 2100, FAILED);
    const ended = await releaseAbandoned(
      kv,
      stopped,
      { nowMs: 9000, leaseMs: LEASE_MS },
      CANCELLED,
    );
    assert.deepEqual([ended?.state, ended?.error], ["cancelled", CANCELLED]);
    assert.ok(!(await openJobs(kv)).includes(stopped));
  });

  it("may have locks and keys with names of any length", async () => {
    const kv = await openTestKv();
    const name = `target/hv1//${"ü".repeat(4000)}`;
    const job = await submit(kv, 0, name);
    assert.equal(await submit(kv, 1, name), job);
    assert.ok((await take(kv, job, 3, [{ name, places: 1 }])) !== undefined);
  });

  it("is in the history, the newest first", async () => {
    const kv = await openTestKv();
    const jobs = [];
    for (let at = 0; at < 5; at += 1) jobs.push(await submit(kv, at * 1000));
    const first = await listJobs(kv, { limit: 2 });
    assert.deepEqual(
      first.map(({ job }) => job),
      [jobs[4], jobs[3]],
    );
    const rest = await listJobs(kv, { limit: 10, before: first[1]!.job });
    assert.deepEqual(
      rest.map(({ job }) => job),
      [jobs[2], jobs[1], jobs[0]],
    );
    assert.deepEqual(await openJobs(kv), jobs);
  });
});
