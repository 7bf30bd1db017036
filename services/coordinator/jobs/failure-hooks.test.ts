import assert from "node:assert/strict";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { newJobId, type JobId } from "#lib/core/ids.ts";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { runHook } from "#lib/process/run-hook.ts";
import { newToken } from "#lib/repository/repository.ts";
import { listHooks } from "#lib/repository/transactions/job-hook.ts";
import { endJob, submitJob, takeJob } from "#lib/repository/transactions/job.ts";
import { openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import { FailureHooks, type FailureHook } from "./failure-hooks.ts";

async function failed({ repo }: OneProcess, kv: Kv, at: number): Promise<JobId> {
  const job = newJobId(at, repo.random.bytes(4));
  const submission = { submitter: undefined, key: undefined, nowMs: at };
  await submitJob(kv, { job, kind: "gc", spec: {}, ...submission });
  const token = newToken(repo.random);
  await takeJob(kv, job, { owner: "c", token, nowMs: at, locks: [] });
  const error = { code: ErrorCode.Io, message: "broken" };
  // It lands twice.
  for (let times = 0; times < 2; times += 1) {
    await endJob(kv, job, token, { state: "failed", error }, at, { hook: true });
  }
  return job;
}

describe("failed jobs", () => {
  it("are told once, and again where telling fails, up to five times", async () => {
    const process = await openOneProcess({ storages: 1 });
    const { kv } = process.repo;
    const clock = virtualClock();
    const context = { ...process.context, repo: { ...process.repo, clock } };
    const told: string[] = [];
    let isBroken = false;
    const hook: FailureHook = async ({ job, record }) => {
      told.push(`${job} ${record.error?.message}`);
      if (isBroken) throw new Error("no mail today");
    };
    const hooks = [new FailureHooks(context, hook), new FailureHooks(context, hook)];
    const job = await failed(process, kv, 1000);
    for (const each of [...hooks, ...hooks]) await each.look();
    assert.deepEqual(told, [`${job} broken`]);
    isBroken = true;
    await failed(process, kv, 2000);
    for (let round = 0; round < 8; round += 1) {
      for (const each of hooks) await each.look();
      await clock.advance(130_000);
    }
    assert.equal(told.length, 1 + 5);
    assert.deepEqual(await listHooks(kv), []);
    for (const each of hooks) await each.stop();
    await process.close();
  });

  it("are nobody's where there is no hook", async () => {
    const process = await openOneProcess({ storages: 1 });
    const hooks = new FailureHooks(process.context, undefined);
    await failed(process, process.repo.kv, 1000);
    await hooks.look();
    assert.equal((await listHooks(process.repo.kv)).length, 1);
    await hooks.stop();
    await process.close();
  });
});

describe("a hook", () => {
  it("gets the job as JSON, and its name in the environment", async (test) => {
    const folder = await mkdtemp(path.join(tmpdir(), "ashlar-hook-"));
    test.after(() => rm(folder, { recursive: true }));
    const script = async (text: string): Promise<string> => {
      const file = path.join(folder, "hook");
      await writeFile(file, `#!/bin/sh\n${text}\n`);
      await chmod(file, 0o755);
      return file;
    };
    const { signal } = new AbortController();
    const out = path.join(folder, "out");
    const good = await script(`echo "$ASHLAR_JOB" >${out}; cat >>${out}`);
    await runHook(good, { state: "failed" }, { ASHLAR_JOB: "0123" }, signal);
    assert.equal(await readFile(out, "utf8"), '0123\n{"state":"failed"}\n');
    const bad = await script("echo no mail today >&2; exit 3");
    await assert.rejects(
      runHook(bad, {}, {}, signal),
      (error) =>
        isErrorCode(error, ErrorCode.Io) && /exit code 3: no mail today/.test(error.message),
    );
    // It leaves something running that holds its output open.
    const leaving = await script("sleep 30 & exit 0");
    await runHook(leaving, {}, {}, signal);
    const stop = AbortSignal.timeout(100);
    const slow = await script("sleep 30");
    await assert.rejects(runHook(slow, {}, {}, stop), (error) => isErrorCode(error, ErrorCode.Io));
    await assert.rejects(runHook(path.join(folder, "missing"), {}, {}, signal), (error) =>
      isErrorCode(error, ErrorCode.Io),
    );
  });
});
