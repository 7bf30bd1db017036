// A metadata store with no room left but what it keeps back: who may use that gets on, and nobody else.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode, isNoSpace } from "#lib/core/errors.ts";
import type { JobId, Token } from "#lib/core/ids.ts";
import type { MemoryBlobStore } from "#lib/drivers/memory/memory-blob-store.ts";
import { openMemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { range } from "#lib/repository/keyspace.ts";
import { removeVersion } from "#lib/repository/transactions/version.ts";
import { cancelJob, endJob, submitJob, takeJob } from "#lib/repository/transactions/job.ts";
import { BLOCK_BYTES, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import { runBackup } from "./backup-job.ts";
import { collectGarbage } from "./gc-job.ts";
import { runRestore } from "./restore-job.ts";

interface Full {
  readonly process: OneProcess;
  /** Ordinary transactions fail from here on, or do not any more. */
  readonly fill: (isFull: boolean) => void;
}

async function openFillable(): Promise<Full> {
  let isFull = false;
  const kv = openMemoryKv({
    faults: {
      beforeCommit: (label) => {
        if (!isFull || label.startsWith("free:")) return "ok";
        throw new AshlarError(ErrorCode.Io, "the store is full", { details: { errno: "ENOSPC" } });
      },
    },
  });
  return { process: await openOneProcess({ kv }), fill: (full) => void (isFull = full) };
}

describe("metadata without room", () => {
  it("restores, removes and collects", async () => {
    const { process, fill } = await openFillable();
    const { context } = process;
    const random = seededRandom(5);
    const kept = random.bytes(16 * BLOCK_BYTES);
    process.device("disk", kept);
    const { uid } = await runBackup(context, { source: "disk", volume: "kept" });
    process.device("disk", random.bytes(16 * BLOCK_BYTES));
    const doomed = await runBackup(context, { source: "disk", volume: "doomed" });

    // It fills up in the middle of a backup, whose session stays behind.
    const large = process.device("disk", random.bytes(64 * BLOCK_BYTES));
    large.onRead = (offset) => fill(offset > 0);
    await assert.rejects(runBackup(context, { source: "disk", volume: "large" }), isNoSpace);
    fill(true);

    // What it finds to be lost on the way is recorded.
    const { objects } = process.stores[0] as MemoryBlobStore;
    for (const name of objects.keys()) if (name.startsWith("blocks/")) objects.delete(name);
    const { data: held } = process.device("target", Buffer.alloc(kept.length));
    await runRestore(context, { uid, target: "target", force: true });
    assert.ok(held.equals(kept), "the version is restored");
    const owed = await process.repo.kv.read((reader) =>
      reader.range({ ...range.owed(), limit: 1 }),
    );
    assert.equal(owed.length, 1, "the storage is owed what it lost");

    await removeVersion(process.repo.kv, doomed.uid);
    const collected = await collectGarbage(context, { abandon: true });
    assert.ok(collected.blocksRemoved >= 16, `removed ${collected.blocksRemoved}`);
    const deleted = collected.storages.map((storage) => storage.deleted);
    assert.ok(
      deleted.every((count) => count > 0),
      `room is made at every storage: ${deleted.join()}`,
    );
    assert.match(collected.storages.flatMap(({ reasons }) => reasons).join(), /full/);

    fill(false);
    delete large.onRead;
    await runBackup(context, { source: "disk", volume: "large" });
    await process.close();
  });

  it("takes jobs", async () => {
    const { process, fill } = await openFillable();
    const { kv } = process.repo;
    fill(true);
    const job = "j1" as JobId;
    const token = "t1" as Token;
    const about = { kind: "remove", spec: {}, submitter: undefined, key: undefined, nowMs: 1 };
    await submitJob(kv, { job, ...about });
    const taken = await takeJob(kv, job, { owner: "o", token, nowMs: 2, locks: [] });
    assert.equal(taken?.state, "running");
    assert.ok(await endJob(kv, job, token, { state: "done", result: {} }, 3));
    const other = "j2" as JobId;
    await submitJob(kv, { job: other, ...about });
    const error = { code: ErrorCode.Cancelled, message: "stopped" };
    assert.equal((await cancelJob(kv, other, 4, error))?.state, "cancelled");
    await process.close();
  });
});
