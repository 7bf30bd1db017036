import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { parse, range } from "#lib/repository/keyspace.ts";
import { headPrefix } from "#lib/repository/head-names.ts";
import { queueTrash } from "#lib/repository/ledger.ts";
import {
  measureWaiting,
  releaseWaiting,
  waitForLocks,
} from "#lib/repository/transactions/locked-trash.ts";
import { narrowPolicy } from "#lib/repository/transactions/policy.ts";
import { forgetStep, retireStorage } from "#lib/repository/transactions/retire.ts";
import { currentRun } from "#lib/repository/transactions/storage.ts";
import { changeVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import { queueAllLeaving } from "#services/coordinator/leaving.ts";
import { collect } from "#services/coordinator/collection.ts";
import { runFsck } from "#services/coordinator/fsck/fsck.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { readStatus } from "#services/coordinator/status.ts";
import { measureStorages } from "#services/coordinator/usage.ts";
import { assertExact, objectsAt } from "#test/fixtures/tiny-checks.ts";
import { openTiny, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import { runDeletions } from "./deletion-run.ts";
import { putOwedHeads } from "./heads.ts";

const DAY_MS = 86_400_000;
const LOCK_MS = 10 * DAY_MS;

/** A repository with one version left and one removed a day later, at a storage that locks for ten days. */
async function withLocked(): Promise<TinyRepository> {
  const tiny = await openTiny({ storages: 1, lockMs: LOCK_MS });
  await tiny.backup(["a", "b"]);
  const { uid } = await tiny.backup(["b", "c"]);
  tiny.shared.clock.setNow(tiny.shared.clock.now() + DAY_MS);
  await removeVersion(tiny.kv, uid);
  await putOwedHeads(tiny.repo);
  return tiny;
}

function countCalls(tiny: TinyRepository): { deletes: number; puts: number } {
  const calls = { deletes: 0, puts: 0 };
  tiny.store(0).faults = {
    before: ({ kind }): BlobFault => {
      if (kind === "delete") calls.deletes += 1;
      if (kind === "put") calls.puts += 1;
      return "none";
    },
  };
  return calls;
}

async function trashNames(tiny: TinyRepository): Promise<string[]> {
  const entries = await tiny.kv.read((reader) => reader.range({ ...range.trash(), limit: 1000 }));
  return entries.map(({ key }) => parse.trash(key).name);
}

async function fsckIsClean(tiny: TinyRepository): Promise<void> {
  const { findings, counts } = await runFsck(tiny.repo, { storages: true });
  assert.deepEqual([findings, counts.orphans], [[], 0]);
}

describe("trash that is locked", () => {
  it("waits, is told, is not asked for again, and goes when its lock has run out", async () => {
    const tiny = await withLocked();
    const { clock } = tiny.shared;
    const putMs = clock.now() - DAY_MS;
    const first = await collectGarbage(tiny.context, { sweep: true });
    const [at] = first.storages;
    // A block, a leaf and the first head of the removed version; its last revision, put a day later, waits for that one.
    assert.deepEqual([at?.deleted, at?.deleteFailed, at?.reasons], [0, 0, []]);
    const waiting = await measureWaiting(tiny.kv, tiny.id(0));
    assert.deepEqual(at?.waiting, waiting);
    assert.deepEqual(
      [waiting.objects, waiting.firstMs, waiting.lastMs],
      [4, putMs + LOCK_MS, putMs + LOCK_MS],
    );
    const sizes = objectsAt(tiny, 0).map((name) => tiny.store(0).objects.get(name)?.length ?? 0);
    assert.ok(waiting.bytes > 0 && waiting.bytes < sizes.reduce((sum, size) => sum + size, 0));
    const usage = await measureStorages(tiny.kv);
    assert.deepEqual([usage[0]?.blocks, usage[0]?.waiting], [2, waiting]);
    const { storages } = await readStatus(tiny.kv, () => true, DAY_MS);
    assert.deepEqual([storages[0]?.waiting, storages[0]?.trash.count], [waiting, 0]);

    const run = await currentRun(tiny.kv, tiny.id(0));
    const calls = countCalls(tiny);
    clock.setNow(clock.now() + DAY_MS);
    const again = await collectGarbage(tiny.context, { sweep: true });
    assert.deepEqual([again.storages[0]?.waiting, again.storages[0]?.orphans], [waiting, 0]);
    // Nothing is asked for, and no stamp is put for nothing.
    assert.deepEqual(calls, { deletes: 0, puts: 0 });
    assert.equal(await currentRun(tiny.kv, tiny.id(0)), run);
    await fsckIsClean(tiny);

    clock.setNow(clock.now() + LOCK_MS - 2 * DAY_MS);
    const third = await collectGarbage(tiny.context);
    assert.deepEqual([third.storages[0]?.deleted, third.storages[0]?.waiting?.objects], [3, 1]);
    clock.setNow(clock.now() + DAY_MS);
    const last = await collectGarbage(tiny.context);
    assert.deepEqual([last.storages[0]?.deleted, last.storages[0]?.waiting], [1, undefined]);
    await assertExact(tiny);
    await fsckIsClean(tiny);
  });

  it("is deleted only by runs that are later than what wrote it", async () => {
    const tiny = await withLocked();
    await collect(tiny.kv);
    await runDeletions(tiny.repo, tiny.id(0));
    tiny.shared.clock.setNow(tiny.shared.clock.now() + 2 * LOCK_MS);
    // Trash that is written while a run deletes is left to the next one, also where its name waits.
    const entries = await tiny.kv.read((reader) =>
      reader.range({ ...range.waiting(tiny.id(0)), limit: 10 }),
    );
    const waits = entries.map(({ key }) => parse.waiting(key).name);
    const block = waits.find((each) => each.startsWith("blocks/")) ?? "";
    tiny.store(0).faults = {
      after: async (operation) => {
        if (operation.kind !== "put" || !operation.name.startsWith("stamps/")) return;
        await tiny.kv.transact((tx) => queueTrash(tx, tiny.id(0), block));
      },
    };
    assert.equal((await runDeletions(tiny.repo, tiny.id(0))).deleted, 3);
    assert.deepEqual(await trashNames(tiny), [block]);
    tiny.store(0).faults = {};
    assert.equal((await runDeletions(tiny.repo, tiny.id(0))).deleted, 1);
    await assertExact(tiny);
  });

  it("keeps the last revision of a head for as long as an older one is locked", async () => {
    const tiny = await openTiny({ storages: 1, lockMs: LOCK_MS });
    const { uid } = await tiny.backup(["a"]);
    await changeVersion(tiny.kv, uid, { labels: { a: "1" } });
    await putOwedHeads(tiny.repo);
    const { clock } = tiny.shared;
    const heads = (): string[] => objectsAt(tiny, 0).filter((name) => name.startsWith("heads/"));
    const [first = "", second = ""] = heads();
    // Whatever has locked it, and at whatever time.
    tiny.store(0).locks.set(first, clock.now() + 3 * LOCK_MS);
    await removeVersion(tiny.kv, uid);
    await collectGarbage(tiny.context);
    assert.equal(heads().length, 3);
    clock.setNow(clock.now() + 2 * LOCK_MS);
    await collectGarbage(tiny.context);
    const left = heads();
    assert.ok(left.includes(first) && !left.includes(second) && left.length === 2, String(left));
    clock.setNow(clock.now() + LOCK_MS);
    await collectGarbage(tiny.context);
    assert.deepEqual(objectsAt(tiny, 0), []);
    await assertExact(tiny);
    assert.equal((await measureWaiting(tiny.kv, tiny.id(0))).objects, 0);
  });

  it("waits longer where the storage says so, and comes to nobody's harm when steps are repeated", async () => {
    const tiny = await withLocked();
    let commits = 0;
    tiny.kvFaults.beforeCommit = (label) => {
      if (label === "free:trash") commits += 1;
      return label === "free:trash" && commits % 2 === 1 ? "unknown-committed" : "ok";
    };
    await collectGarbage(tiny.context);
    const before = await measureWaiting(tiny.kv, tiny.id(0));
    assert.equal(before.objects, 4);
    // Somebody has made the locks longer meanwhile.
    const { locks } = tiny.store(0);
    for (const [name, untilMs] of locks) locks.set(name, untilMs + DAY_MS);
    tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS - DAY_MS / 2);
    await collectGarbage(tiny.context);
    const after = await measureWaiting(tiny.kv, tiny.id(0));
    assert.deepEqual([after.objects, after.bytes], [4, before.bytes]);
    assert.equal(after.firstMs, (before.firstMs ?? 0) + DAY_MS);
    await fsckIsClean(tiny);
    tiny.shared.clock.setNow(tiny.shared.clock.now() + 2 * DAY_MS);
    await collectGarbage(tiny.context);
    await assertExact(tiny);
  });

  it("changes nothing where its steps land late", async () => {
    const tiny = await openTiny({ storages: 1 });
    const storage = tiny.id(0);
    const locked = [{ name: "blocks/x", untilMs: 1000, sizeBytes: 7 }];
    await waitForLocks(tiny.kv, storage, 5, locked);
    assert.equal((await measureWaiting(tiny.kv, storage)).objects, 0);
    await tiny.kv.transact((tx) => queueTrash(tx, storage, "blocks/x"));
    // It was written in this very run, and may be of a put that came later.
    await waitForLocks(tiny.kv, storage, 0, locked);
    assert.deepEqual(await trashNames(tiny), ["blocks/x"]);
    await waitForLocks(tiny.kv, storage, 1, locked);
    await waitForLocks(tiny.kv, storage, 1, [{ ...locked[0]!, untilMs: 9000 }]);
    assert.deepEqual(await measureWaiting(tiny.kv, storage), {
      objects: 1,
      bytes: 7,
      more: false,
      firstMs: 1000,
      lastMs: 1000,
    });
    assert.equal(await releaseWaiting(tiny.kv, storage, 999), false);
    assert.deepEqual(await trashNames(tiny), []);
    for (let times = 0; times < 2; times += 1) await releaseWaiting(tiny.kv, storage, 1000);
    assert.deepEqual(await trashNames(tiny), ["blocks/x"]);
    assert.equal((await measureWaiting(tiny.kv, storage)).objects, 0);
  });

  it("keeps what a head names that is still shown, when a version leaves a storage", async () => {
    const tiny = await openTiny({ storages: 2, lockMs: LOCK_MS });
    const { uid, root } = await tiny.backup(["a", "b"]);
    assert.ok(root !== undefined);
    const [storage] = tiny.shared.ids;
    assert.ok(storage !== undefined);
    await narrowPolicy(tiny.kv, {
      uid,
      storage,
      headPrefix: headPrefix(tiny.repo.keys, uid),
      isLost: false,
    });
    await putOwedHeads(tiny.repo);
    await queueAllLeaving(tiny.repo, storage);
    for (let round = 0; objectsAt(tiny, 0).length > 0; round += 1) {
      assert.ok(round < 12, objectsAt(tiny, 0).join());
      const { storages } = await collectGarbage(tiny.context);
      assert.deepEqual(storages[0]?.reasons, []);
      const heads = objectsAt(tiny, 0).filter((name) => name.startsWith("heads/"));
      if (heads.length > 0) assert.match(await tiny.states(root), /^placed/);
      if ((await measureWaiting(tiny.kv, storage)).objects > 0) {
        await assert.rejects(retireStorage(tiny.kv, storage, false), /is not empty/);
      }
      tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS / 2);
    }
    await retireStorage(tiny.kv, storage, false);
    while (await forgetStep(tiny.kv, storage, (each) => headPrefix(tiny.repo.keys, each)));
    assert.equal((await measureWaiting(tiny.kv, storage)).objects, 0);
  });

  it("keeps a bad copy's object, while a good one takes its place", async () => {
    const tiny = await openTiny({ storages: 2, lockMs: LOCK_MS });
    await tiny.backup(["a", "b"]);
    const block = objectsAt(tiny, 0).find((name) => name.startsWith("blocks/")) ?? "";
    tiny.store(0).objects.set(block, Buffer.from("rotten"));
    await tiny.context.upkeep.scrub({ deep: true });
    await collectGarbage(tiny.context);
    assert.ok(tiny.store(0).objects.has(block));
    assert.equal((await measureWaiting(tiny.kv, tiny.id(0))).objects, 1);
    await fsckIsClean(tiny);
    tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS);
    await collectGarbage(tiny.context);
    await assertExact(tiny);
  });
});
