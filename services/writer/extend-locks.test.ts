import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlobFault, MemoryBlobStore } from "#lib/drivers/memory/memory-blob-store.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { parse, range } from "#lib/repository/keyspace.ts";
import { nextDue, nextLook } from "#lib/repository/storage-lock.ts";
import {
  listDueLocks,
  lockWalkStep,
  readLockStatus,
  setStorageLock,
  settleLocks,
} from "#lib/repository/transactions/lock.ts";
import { adoptAccessKeys } from "#lib/repository/transactions/access-keys.ts";
import { placeFilled } from "#lib/repository/transactions/fill.ts";
import { storeBlocks } from "#lib/repository/transactions/store.ts";
import { markBad, markVerified } from "#lib/repository/transactions/verify.ts";
import { changeVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { assertExact, objectsAt } from "#test/fixtures/tiny-checks.ts";
import { openTiny, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import { extendLocks } from "./extend-locks.ts";
import { putOwedHeads } from "./heads.ts";

const DAY_MS = 86_400_000;
const LOCK_MS = 8 * DAY_MS;
const LOCK = { mode: "governance", periodMs: LOCK_MS } as const;
const MARKER = "";
const KEY_NAME = "keys/0123456789abcdef";

/** With a storage that has locked its objects from the beginning. */
async function openLocked(): Promise<TinyRepository> {
  const tiny = await openTiny({ storages: 1, lockMs: LOCK_MS });
  await tiny.store(0).put(KEY_NAME, Buffer.from("key"), { mode: "create", unlocked: true });
  assert.equal((await extendLocks(tiny.repo, tiny.id(0))).reason, undefined);
  return tiny;
}

/** How often each object's lock is extended from now on. */
function countExtensions(store: MemoryBlobStore): Map<string, number> {
  const counts = new Map<string, number>();
  store.faults = {
    before: ({ kind, name }): BlobFault => {
      if (kind === "extend") counts.set(name, (counts.get(name) ?? 0) + 1);
      return "none";
    },
  };
  return counts;
}

async function queued(tiny: TinyRepository): Promise<string[]> {
  const entries = await tiny.kv.read((reader) =>
    reader.range({ ...range.locks(tiny.id(0)), limit: 1000 }),
  );
  return entries.map(({ key }) => parse.lock(key).name).toSorted();
}

describe("when a lock is due", () => {
  it("is between a quarter and three quarters of a period away, and half a period later again", () => {
    const random = seededRandom(7);
    let sumMs = 0;
    for (let at = 0; at < 1000; at += 1) {
      const name = `blocks/x.${random.bytes(8).toString("hex")}`;
      const nowMs = 1_767_225_600_000 + at * 7919;
      const dueMs = nextDue(name, nowMs, LOCK_MS);
      assert.ok(dueMs > nowMs + LOCK_MS / 4 && dueMs <= nowMs + (LOCK_MS * 3) / 4);
      assert.equal(nextDue(name, dueMs, LOCK_MS), dueMs + LOCK_MS / 2);
      // Whoever is late by less than a quarter comes to the same time.
      assert.equal(nextDue(name, dueMs + LOCK_MS / 4 - 1, LOCK_MS), dueMs + LOCK_MS / 2);
      const lookMs = nextLook(name, nowMs, LOCK_MS);
      assert.ok(lookMs > nowMs && lookMs <= nowMs + LOCK_MS / 4);
      sumMs += dueMs - nowMs;
    }
    assert.ok(Math.abs(sumMs / 1000 - LOCK_MS / 2) < LOCK_MS / 50, "half a period in the mean");
    for (const name of ["x", "", "blocks/not-hex-at-all"]) {
      assert.ok(nextDue(name, 5, 1000) > 5 && nextDue(name, 0, 2) > 0);
    }
  });
});

describe("extendLocks", () => {
  it("keeps all that is needed locked for ever, at one request an object for half a period", async () => {
    const tiny = await openLocked();
    const { clock } = tiny.shared;
    const kept = await tiny.backup(["a", "b", "c"]);
    await changeVersion(tiny.kv, kept.uid, { labels: { a: "1" } });
    await putOwedHeads(tiny.repo);
    const { uid } = await tiny.backup(["c", "d"]);
    const removed = objectsAt(tiny, 0);
    await collectGarbage(tiny.context);
    const counts = countExtensions(tiny.store(0));
    const rounds = 64;
    for (let round = 0; round < rounds; round += 1) {
      clock.setNow(clock.now() + LOCK_MS / 16);
      if (round === 3) {
        await removeVersion(tiny.kv, uid);
        await putOwedHeads(tiny.repo);
      }
      await collectGarbage(tiny.context);
      const { locks, objects } = tiny.store(0);
      for (const name of await queued(tiny)) {
        const leftMs = (locks.get(name) ?? 0) - clock.now();
        const isNeeded = objects.has(name) && (await isConfirmedOrNamed(tiny, name));
        assert.ok(!isNeeded || leftMs >= LOCK_MS / 4 - LOCK_MS / 16, `${name}: ${leftMs / DAY_MS}`);
      }
    }
    // Four periods: everything that the removed version had alone is gone, and what stayed was extended all the time.
    tiny.store(0).objects.delete(KEY_NAME);
    await assertExact(tiny);
    const left = objectsAt(tiny, 0);
    assert.ok(left.length < removed.length);
    assert.deepEqual(await queued(tiny), left);
    const halves = (rounds / 16) * 2;
    for (const name of [...left, KEY_NAME, MARKER]) {
      const count = counts.get(name) ?? 0;
      assert.ok(count >= halves - 1 && count <= halves + 1, `${name} was extended ${count} times`);
    }
  });

  it("extends nothing that was removed", async () => {
    const tiny = await openLocked();
    const { uid } = await tiny.backup(["a", "b"]);
    await removeVersion(tiny.kv, uid);
    const counts = countExtensions(tiny.store(0));
    // Neither while nobody has collected it (what is below its root is still referred to), nor in trash.
    tiny.shared.clock.setNow(tiny.shared.clock.now() + (LOCK_MS * 3) / 4);
    const outcome = await extendLocks(tiny.repo, tiny.id(0));
    assert.deepEqual([outcome.failed, outcome.reason], [0, undefined]);
    const names = [...counts.keys()].filter((name) => name !== KEY_NAME && name !== MARKER);
    assert.ok(names.length > 0 && names.every((name) => !name.startsWith("nodes/")), names.join());
    await putOwedHeads(tiny.repo);
    await collectGarbage(tiny.context);
    tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS * 2);
    await collectGarbage(tiny.context);
    await collectGarbage(tiny.context);
    assert.deepEqual(objectsAt(tiny, 0), [KEY_NAME]);
    assert.deepEqual(await queued(tiny), []);
  });

  it("extends the keys, but for those that were removed", async () => {
    const tiny = await openLocked();
    const [name, removed] = [KEY_NAME, "keys/00000000000000ff"];
    const record = { label: "", capability: "full", createdMs: 1 } as const;
    const object = Buffer.from("key");
    await adoptAccessKeys(tiny.kv, [
      { accessId: name.slice(5), record: { ...record, object } },
      { accessId: removed.slice(5), record: { ...record, object: undefined, removedMs: 2 } },
    ]);
    await tiny.store(0).put(removed, object, { mode: "create", unlocked: true });
    tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS / 2);
    const counts = countExtensions(tiny.store(0));
    await extendLocks(tiny.repo, tiny.id(0));
    assert.deepEqual([counts.get(name), counts.get(removed)], [1, undefined]);
  });

  it("takes up again what nothing needed for a while", async () => {
    const tiny = await openLocked();
    const session = await tiny.start();
    const id = await session.bringBlock("a");
    const name = await tiny.nameAt(id, 0);
    const counts = countExtensions(tiny.store(0));
    for (let round = 0; round < 4; round += 1) {
      tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS / 4);
      await extendLocks(tiny.repo, tiny.id(0));
    }
    assert.deepEqual([counts.get(name), await queued(tiny)], [undefined, [name]]);
    await session.bringNode(0, 0, [id]);
    tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS / 4);
    await extendLocks(tiny.repo, tiny.id(0));
    assert.equal(counts.get(name), 1);
    assert.equal(tiny.store(0).locks.get(name), tiny.shared.clock.now() + LOCK_MS);
  });

  it("makes due at once what an earlier try had put, and what was bad", async () => {
    const tiny = await openLocked();
    const { clock } = tiny.shared;
    const session = await tiny.start();
    const id = tiny.blockId("a");
    const [copy] = (await session.claim("block", id, 64)) ?? [];
    assert.ok(copy !== undefined);
    const put = await session.put("block", id, tiny.plain("a"), [copy]);
    // Its record comes to know of it only when the lock has run out.
    await storeBlocks(tiny.kv, clock.now(), [{ id, ...put, done: [], pending: [copy] }]);
    clock.setNow(clock.now() + LOCK_MS);
    const filled = { ...copy, id, kind: "block" as const, storedBytes: 1 };
    assert.equal(await placeFilled(tiny.kv, clock.now(), { ...filled, wasThere: true }), "placed");
    const dueNow = async (): Promise<string[]> => {
      const { due } = await listDueLocks(tiny.kv, tiny.id(0), clock.now(), undefined);
      return due.map(({ name }) => name);
    };
    const name = await tiny.nameAt(id, 0);
    assert.deepEqual(await dueNow(), [name]);
    await session.bringNode(0, 0, [id]);
    await extendLocks(tiny.repo, tiny.id(0));
    assert.equal(tiny.store(0).locks.get(name), clock.now() + LOCK_MS);
    assert.deepEqual(await dueNow(), []);
    await markBad(tiny.kv, tiny.repo.random, { id, ...copy });
    await markVerified(tiny.kv, clock.now(), { id, ...copy });
    assert.deepEqual(await dueNow(), [name]);
  });

  it("extends once more where it died before that was noted, and has lost nothing", async () => {
    const tiny = await openLocked();
    await tiny.backup(["a", "b"]);
    tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS);
    const counts = countExtensions(tiny.store(0));
    tiny.kvFaults.beforeCommit = (label) => {
      if (label === "free:lock") throw new AshlarError(ErrorCode.Io, "died");
      return "ok";
    };
    assert.match((await extendLocks(tiny.repo, tiny.id(0))).reason ?? "", /died/);
    delete tiny.kvFaults.beforeCommit;
    await extendLocks(tiny.repo, tiny.id(0));
    const twice = [...counts].filter(([, count]) => count === 2).map(([name]) => name);
    assert.ok(twice.includes(KEY_NAME), twice.join());
    const { locks } = tiny.store(0);
    for (const name of objectsAt(tiny, 0)) {
      assert.equal(locks.get(name), tiny.shared.clock.now() + LOCK_MS, name);
    }
    assert.deepEqual(
      await queued(tiny),
      objectsAt(tiny, 0).filter((name) => name !== KEY_NAME),
    );
  });

  it("leaves due what could not be extended, and tells why", async () => {
    const tiny = await openLocked();
    await tiny.backup(["a", "b"]);
    tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS);
    const [first = ""] = await queued(tiny);
    tiny.store(0).faults = {
      before: ({ kind, name }): BlobFault => {
        if (kind === "extend" && name === first)
          throw new AshlarError(ErrorCode.Refused, "not allowed");
        return "none";
      },
    };
    const outcome = await extendLocks(tiny.repo, tiny.id(0));
    assert.deepEqual([outcome.failed, outcome.reason], [1, "not allowed"]);
    const { due } = await listDueLocks(tiny.kv, tiny.id(0), tiny.shared.clock.now(), undefined);
    assert.deepEqual(
      due.map(({ name, verdict }) => [name, verdict]),
      [[first, "keep"]],
    );
    const collected = await collectGarbage(tiny.context);
    assert.deepEqual(collected.storages[0]?.reasons, ["not allowed"]);
    tiny.store(0).faults = {};
    assert.equal((await extendLocks(tiny.repo, tiny.id(0))).extended, 1);
  });

  it("settles nothing twice, whatever lands late", async () => {
    const tiny = await openLocked();
    await tiny.backup(["a"]);
    tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS);
    const nowMs = tiny.shared.clock.now();
    const session = await tiny.start();
    const idle = await tiny.nameAt(await session.bringBlock("idle"), 0);
    tiny.shared.clock.setNow(tiny.shared.clock.now() + LOCK_MS);
    const { due } = await listDueLocks(tiny.kv, tiny.id(0), nowMs + LOCK_MS, undefined);
    assert.ok(due.some(({ name, verdict }) => name === idle && verdict === "idle"));
    const all = new Set(due.flatMap(({ name, verdict }) => (verdict === "keep" ? [name] : [])));
    await settleLocks(tiny.kv, tiny.id(0), due, all, nowMs);
    const before = await tiny.kv.read((reader) =>
      reader.range({ ...range.locks(tiny.id(0)), limit: 100 }),
    );
    assert.equal(before.length, due.length);
    // It comes again, and another process comes with it that has extended nothing.
    await settleLocks(tiny.kv, tiny.id(0), due, all, nowMs + LOCK_MS / 2);
    await settleLocks(tiny.kv, tiny.id(0), due, new Set(), nowMs + LOCK_MS / 2);
    const after = await tiny.kv.read((reader) =>
      reader.range({ ...range.locks(tiny.id(0)), limit: 100 }),
    );
    assert.deepEqual(after, before);
  });
});

describe("a storage that locks from some time on", () => {
  it("has what lay there before taken in, wherever that is interrupted, and once", async () => {
    const tiny = await openTiny({ storages: 1, lockMs: LOCK_MS });
    const blocks = Array.from({ length: 150 }, (_, index) => `block ${index}`);
    await tiny.backup(blocks);
    assert.deepEqual(
      [await queued(tiny), await readLockStatus(tiny.kv, tiny.id(0))],
      [[], undefined],
    );
    tiny.store(0).locks.clear();
    assert.equal(await setStorageLock(tiny.kv, tiny.id(0), LOCK), true);
    assert.equal(await setStorageLock(tiny.kv, tiny.id(0), LOCK), false);
    const nowMs = tiny.shared.clock.now();
    assert.equal(await lockWalkStep(tiny.kv, tiny.id(0), nowMs), true);
    assert.equal((await readLockStatus(tiny.kv, tiny.id(0)))?.isTakingIn, true);
    // What is put meanwhile is queued by itself.
    await tiny.backup([...blocks, "one more"]);
    const outcome = await extendLocks(tiny.repo, tiny.id(0));
    assert.equal(outcome.reason, undefined);
    assert.deepEqual(await queued(tiny), objectsAt(tiny, 0));
    for (const name of objectsAt(tiny, 0)) assert.ok(tiny.store(0).locks.has(name), name);
    const status = await readLockStatus(tiny.kv, tiny.id(0));
    assert.deepEqual([status?.lockMs, status?.isTakingIn], [LOCK_MS, false]);
    assert.equal(await lockWalkStep(tiny.kv, tiny.id(0), nowMs), false);
  });

  it("is left to itself when it locks no more", async () => {
    const tiny = await openLocked();
    await tiny.backup(["a", "b"]);
    const { locking, ...rest } = tiny.store(0);
    assert.ok(locking !== undefined && (await queued(tiny)).length > 0);
    // Nor does who goes by an older record change it.
    const older = { ...locking, periodMs: LOCK_MS / 2, isInherited: true };
    Object.defineProperty(tiny.store(0), "locking", { value: older, configurable: true });
    await extendLocks(tiny.repo, tiny.id(0));
    assert.equal((await readLockStatus(tiny.kv, tiny.id(0)))?.lockMs, LOCK_MS);
    Object.defineProperty(tiny.store(0), "locking", { value: undefined });
    // Whoever does not know of the locks takes none off.
    const before = await queued(tiny);
    const unaware = await extendLocks(tiny.repo, tiny.id(0));
    assert.match(String(unaware.reason), /start it again/);
    assert.deepEqual([await queued(tiny), unaware.extended], [before, 0]);
    assert.equal((await readLockStatus(tiny.kv, tiny.id(0)))?.lockMs, LOCK_MS);
    Object.defineProperty(tiny.store(0), "locksNoMore", { value: true });
    const outcome = await extendLocks(tiny.repo, tiny.id(0));
    assert.deepEqual([outcome.extended, outcome.reason, await queued(tiny)], [0, undefined, []]);
    assert.equal(await readLockStatus(tiny.kv, tiny.id(0)), undefined);
    assert.ok(rest.objects.size > 0);
    await tiny.backup(["c"]);
    assert.deepEqual(await queued(tiny), []);
  });
});

/** Whether a version that is there needs the object. */
async function isConfirmedOrNamed(tiny: TinyRepository, name: string): Promise<boolean> {
  const { due } = await listDueLocks(tiny.kv, tiny.id(0), Number.MAX_SAFE_INTEGER - 1, undefined);
  return due.some((each) => each.name === name && each.verdict === "keep");
}
