// What an interrupted backup is gone on with, and what not: a node is taken over only where the same content is read again.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { newJobId, type VersionUid } from "#lib/core/ids.ts";
import { asVersionUid } from "#lib/core/uid.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { key } from "#lib/repository/keyspace.ts";
import { encodeRecord } from "#lib/repository/records.ts";
import { newToken } from "#lib/repository/repository.ts";
import { listSessions, markDead } from "#lib/repository/transactions/session.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { BLOCK_BYTES, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import { runBackup } from "./backup-job.ts";
import type { CoordinatorContext } from "./context.ts";
import type { BackupJob, BackupResult } from "./jobs.ts";
import { removeVersions } from "./remove-job.ts";
import { runRestore } from "./restore-job.ts";

const B = BLOCK_BYTES;
const JOB: BackupJob = { source: "disk", volume: "v" };
const noise = (seed: number, blocks: number): Buffer => seededRandom(seed).bytes(blocks * B);

async function assertRestores(process: OneProcess, uid: VersionUid, data: Buffer): Promise<void> {
  await runRestore(process.context, { uid, target: "target", force: true });
  assert.ok(process.devices.get("target")?.data.equals(data), "restored what was read");
}

/** Fails when it has read all but the last block. */
async function interrupt(process: OneProcess, data: Buffer, job: BackupJob): Promise<void> {
  process.device(job.source, data).badOffset = data.length - B;
  await assert.rejects(runBackup(process.context, job), isFault(ErrorCode.Io));
}

const isFault =
  (code: ErrorCode) =>
  (error: unknown): boolean =>
    isErrorCode(error, code);

/** A run over a device, with how many reads it took. */
async function run(
  process: OneProcess,
  data: Buffer,
  job: BackupJob,
): Promise<BackupResult & { readonly reads: number }> {
  const device = process.device(job.source, data);
  const result = await runBackup(process.context, job);
  return { ...result, reads: device.reads };
}

describe("an interrupted backup of a snapshot", () => {
  const job = { ...JOB, snapshot: "nightly" };

  it("is gone on with where the same snapshot is read again", async () => {
    const process = await openOneProcess({ storages: 1 });
    const data = noise(1, 600);
    const { reads: all } = await run(process, data, { ...job, volume: "w" });
    await interrupt(process, data, job);
    const { uid, resumed, reads } = await run(process, data, job);
    assert.ok(resumed && reads < all, `${reads} reads of ${all}`);
    await assertRestores(process, uid, data);
    await process.close();
  });

  it("takes nothing over from another snapshot of the same name, nor from a smaller one", async () => {
    for (const blocks of [600, 700]) {
      const process = await openOneProcess({ storages: 1 });
      await interrupt(process, noise(1, 600), job);
      const data = Buffer.concat([noise(2, 600), noise(3, blocks - 600)]);
      const { uid, resumed } = await run(process, data, job);
      assert.ok(resumed);
      await assertRestores(process, uid, data);
      await process.close();
    }
  });

  it("takes nothing over of two readings that came one after the other", async () => {
    const process = await openOneProcess({ storages: 1 });
    await interrupt(process, noise(1, 600), job);
    // The second one brings the first leaf only: the others are still the first one's.
    const data = noise(2, 600);
    process.device("disk", data).badOffset = 300 * B;
    await assert.rejects(runBackup(process.context, job), isFault(ErrorCode.Io));
    const { uid } = await run(process, data, job);
    await assertRestores(process, uid, data);
    await process.close();
  });

  it("takes nothing over of what wrong hints gave", async () => {
    const process = await openOneProcess({ storages: 1 });
    const before = noise(1, 1000);
    const { uid: base } = await run(process, before, JOB);
    const data = noise(2, 1000);
    process.device("disk", data);
    process.device("hints", Buffer.from("[]"));
    const hinted = { ...job, base, hints: "hints", strictHints: true };
    await assert.rejects(runBackup(process.context, hinted), isFault(ErrorCode.Damaged));
    const { uid } = await run(process, data, job);
    await assertRestores(process, uid, data);
    await process.close();
  });

  it("takes nothing over of wrong hints when it is fenced while it reads everything", async () => {
    const process = await openOneProcess({ storages: 1 });
    const { uid: base } = await run(process, noise(1, 1000), JOB);
    const data = noise(2, 1000);
    process.device("hints", Buffer.from("[]"));
    const device = process.device("disk", data);
    let isFenced = false;
    device.onRead = async (offset) => {
      if (offset < 900 * B || isFenced) return;
      isFenced = true;
      await fence(process);
    };
    const { uid } = await runBackup(process.context, { ...job, base, hints: "hints" });
    assert.ok(isFenced);
    await assertRestores(process, uid, data);
    await process.close();
  });

  it("has the labels and the date of the run that ends it", async () => {
    const process = await openOneProcess({ storages: 1 });
    const data = noise(1, 600);
    await interrupt(process, data, { ...job, labels: { a: "1", b: "1" } });
    const fromMs = process.repo.clock.now();
    const { uid, resumed } = await run(process, data, { ...job, labels: { b: "2", c: "2" } });
    const version = await process.repo.kv.read((reader) => readVersion(reader, uid));
    assert.ok(resumed);
    assert.deepEqual(version?.labels, { a: "1", b: "2", c: "2" });
    assert.ok(version.createdMs >= fromMs);
    await process.close();
  });

  it("is not gone on with when it died longer ago than the window, whenever that is noticed", async () => {
    const process = await openOneProcess({ storages: 1 });
    const data = noise(1, 600);
    await interrupt(process, data, job);
    const longAgo = process.repo.clock.now() - 2 * process.context.settings.resumeWindowMs;
    const [entry] = await listSessions(process.repo.kv);
    const { session, record } = entry!;
    await process.repo.kv.transact((tx) => {
      const live = { ...record, state: "live", startedMs: longAgo, endedMs: undefined };
      tx.set(key.session(session), encodeRecord(live));
      tx.set(key.heartbeat(session), encodeRecord({ atMs: longAgo }));
      return Promise.resolve();
    });
    process.device(job.source, data);
    const { resumed } = await runBackup({ ...process.context, isOwnerAlive: () => false }, job);
    assert.equal(resumed, false);
    await process.close();
  });
});

/** Another process takes the backup for dead. */
async function fence(process: OneProcess): Promise<void> {
  const sessions = await listSessions(process.repo.kv);
  const { session, record } = sessions.find((each) => each.record.state === "live")!;
  assert.ok(await markDead(process.repo.kv, session, record.token, 1));
}

describe("a backup of a stream", () => {
  it("that was taken for dead fails, and is no version of what was left", async () => {
    const process = await openOneProcess({ storages: 1 });
    const device = process.device("stream", noise(1, 600));
    device.isStream = true;
    device.onRead = async (offset) => {
      if (offset > 400 * B) device.data = Buffer.alloc(0);
      if (offset === 0) await fence(process);
    };
    const job = { source: "stream", volume: "v" };
    await assert.rejects(runBackup(process.context, job), isFault(ErrorCode.TryAgain));
    await process.close();
  });
});

describe("the sample of unchanged blocks", () => {
  it("rotates also over one base", async () => {
    const process = await openOneProcess({ storages: 1 });
    const data = noise(1, 600);
    const { uid: base } = await run(process, data, JOB);
    process.device("hints", Buffer.from("[]"));
    const rounds: (number | undefined)[] = [];
    for (let at = 0; at < 3; at += 1) {
      const { uid } = await run(process, data, { ...JOB, base, hints: "hints" });
      const version = await process.repo.kv.read((reader) => readVersion(reader, uid));
      rounds.push(version?.sampleRound);
      if (at === 0) await run(process, data, JOB);
    }
    assert.deepEqual(rounds, [1, 2, 3]);
    await process.close();
  });
});

describe("hints", () => {
  it("that take long to come are read once, however often they are asked for", async () => {
    const process = await openOneProcess({
      storages: 1,
      busFault: (where) => (where.startsWith("reader") ? "repeat" : "none"),
    });
    const data = noise(1, 600);
    const { uid: base } = await run(process, data, JOB);
    const hints = process.device("hints", Buffer.from("[]"));
    hints.onRead = () => sleep(50);
    const { uid } = await run(process, data, { ...JOB, base, hints: "hints" });
    assert.equal(hints.reads, 1);
    await assertRestores(process, uid, data);
    await process.close();
  });
});

describe("another try of a job", () => {
  const token = newToken(seededRandom(1));
  const attempt = (process: OneProcess, number: number): CoordinatorContext => ({
    ...process.context,
    run: { job: newJobId(1000, Buffer.alloc(4)), token },
    attempt: number,
  });

  it("finds the version that an earlier one has finished, and makes no second one", async () => {
    const process = await openOneProcess({ storages: 1 });
    process.device("disk", noise(1, 20));
    const { uid } = await runBackup(attempt(process, 1), JOB);
    const again = process.device("disk", noise(2, 20));
    assert.equal((await runBackup(attempt(process, 2), JOB)).uid, uid);
    assert.equal(again.reads, 0);
    const other = { ...attempt(process, 2), run: { job: newJobId(2000, Buffer.alloc(4)), token } };
    assert.notEqual((await runBackup(other, JOB)).uid, uid);
    await process.close();
  });

  it("says so where somebody has removed it again", async () => {
    const process = await openOneProcess({ storages: 1 });
    process.device("disk", noise(1, 20));
    const { uid } = await runBackup(attempt(process, 1), JOB);
    await removeVersions(process.repo.kv, [uid]);
    await assert.rejects(runBackup(attempt(process, 2), JOB), isFault(ErrorCode.NotFound));
    await process.close();
  });

  it("does not acknowledge what has been found damaged since", async () => {
    const process = await openOneProcess({ storages: 1 });
    process.device("disk", noise(1, 20));
    const { uid } = await runBackup(attempt(process, 1), JOB);
    await process.repo.kv.transact(async (tx) => {
      const version = await readVersion(tx, uid);
      assert.ok(version !== undefined);
      tx.set(key.version(uid), encodeRecord({ ...version, state: "invalid" }));
    });
    await assert.rejects(runBackup(attempt(process, 2), JOB), isFault(ErrorCode.Damaged));
    await process.close();
  });

  it("has the uid that was asked for, also where a base keeps it from going on", async () => {
    const process = await openOneProcess({ storages: 1 });
    const data = noise(1, 300);
    process.device("disk", data);
    const { uid: base } = await runBackup(process.context, JOB);
    const uid = asVersionUid("v-of-today");
    const job = { ...JOB, base, uid, hints: "hints" };
    const changed = Buffer.concat([noise(2, 200), data.subarray(200 * B)]);
    process.device("disk", changed).badOffset = 199 * B;
    process.device("hints", Buffer.from(hintsOf(changed.length)));
    await assert.rejects(runBackup(attempt(process, 1), job), isFault(ErrorCode.Io));
    process.device("disk", changed);
    assert.equal((await runBackup(attempt(process, 2), job)).uid, uid);
    await assertRestores(process, uid, changed);
    await process.close();
  });
});

/** Everything has changed. */
const hintsOf = (length: number): string => JSON.stringify([{ offset: 0, length, exists: "true" }]);
