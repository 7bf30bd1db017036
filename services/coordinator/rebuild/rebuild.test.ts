import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BlockId, VersionUid } from "#lib/core/ids.ts";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import type { KvTransaction } from "#lib/ports/kv.ts";
import { key, objectName, parse, range } from "#lib/repository/keyspace.ts";
import {
  decodeRecord,
  encodeRecord,
  type RepositoryRecord,
  type SessionRecord,
} from "#lib/repository/records.ts";
import { measureWaiting, waitForLocks } from "#lib/repository/transactions/locked-trash.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";
import { changeVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import { runFsck } from "#services/coordinator/fsck/fsck.ts";
import { collect } from "#services/coordinator/collection.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { guardStorages } from "#services/writer/guard.ts";
import { putOwedHeads } from "#services/writer/heads.ts";
import { assertClosed, assertExact } from "#test/fixtures/tiny-checks.ts";
import { openTiny, type TinyBlock, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import {
  isClean,
  readBack,
  rebuildAt,
  rebuildFresh,
  snapshotOf,
  withoutMetadata,
} from "#test/fixtures/tiny-rebuild.ts";

const A: TinyBlock[] = ["a", "b", undefined, "c"];
const B: TinyBlock[] = ["a", "x", "y"];
const isRefused = (error: unknown): boolean => isErrorCode(error, ErrorCode.Refused);

/** A repository with its config record, two versions in it. */
async function openRepository(
  storages = 2,
): Promise<{ tiny: TinyRepository; a: VersionUid; b: VersionUid }> {
  const tiny = await openTiny({ storages });
  await tiny.kv.transact(async (tx) => {
    tx.set(key.config, encodeRecord(tiny.repo.config));
    await Promise.resolve();
  });
  const { uid: a } = await tiny.backup(A);
  const { uid: b } = await tiny.backup(B);
  return { tiny, a, b };
}

/** The name of a version's head at the first storage. */
function headOf(tiny: TinyRepository, uid: VersionUid): string {
  const prefix = `heads/${tiny.hasher.headName(uid)}.`;
  return [...tiny.store(0).objects.keys()].find((name) => name.startsWith(prefix)) as string;
}

describe("rebuild into new metadata", () => {
  for (const from of [[0], [1], [0, 1]]) {
    it(`takes everything from s${from.join(" and s")}`, async () => {
      const { tiny, a, b } = await openRepository();
      await changeVersion(tiny.kv, b, { labels: { keep: "yes" }, protected: true });
      await putOwedHeads(tiny.repo);
      const { fresh, result } = await rebuildFresh(tiny, from);
      assert.deepEqual(
        result.versions
          .map(({ uid, state, adopted, missing }) => `${uid} ${state} ${adopted} ${missing.length}`)
          .toSorted(),
        [a, b].map((uid) => `${uid} valid true 0`),
      );
      assert.deepEqual(result.problems, []);
      assert.deepEqual(await readBack(fresh, a), A);
      assert.deepEqual(await readBack(fresh, b), B);
      const before = await tiny.version(b);
      const after = await fresh.version(b);
      assert.deepEqual({ ...after, rebuilt: undefined }, { ...before, rebuilt: undefined });
      await isClean(fresh);
      await assertClosed(fresh);
      const config = await fresh.kv.read((reader) => reader.get(key.config));
      assert.equal(decodeRecord<RepositoryRecord>(config as Buffer).blockBytes, 64);
    });
  }

  it("knows the storages that were not given, disabled, and says so", async () => {
    const { tiny, a } = await openRepository();
    const { fresh, result } = await rebuildFresh(tiny, [0]);
    assert.deepEqual(result.unknownStorages, [{ storage: tiny.id(1), versions: 2 }]);
    const states = (await listStorages(fresh.kv)).map(({ record }) => record.state);
    assert.deepEqual(states, ["in-use", "disabled"]);
    assert.equal(await fresh.states((await fresh.version(a))?.root as BlockId), "placed owed");
    // Once it is rebuilt from as well, it is complete, and nothing is owed.
    const again = await rebuildAt(fresh, [1]);
    assert.deepEqual(again.unknownStorages, []);
    assert.equal(await fresh.states((await fresh.version(a))?.root as BlockId), "placed placed");
    await isClean(fresh);
    await collectGarbage(fresh.context, { sweep: true });
    await assertExact(fresh);
  });

  it("goes on as a repository: backups, removal, collection, fsck", async () => {
    const { tiny, a, b } = await openRepository();
    const { fresh } = await rebuildFresh(tiny, [1, 0]);
    const { uid: c } = await fresh.backup(["a", "new", "c"]);
    await isClean(fresh);
    await removeVersion(fresh.kv, a);
    await collectGarbage(fresh.context, { sweep: true });
    await collectGarbage(fresh.context, { sweep: true });
    await isClean(fresh);
    await assertExact(fresh);
    assert.deepEqual(await readBack(fresh, b), B);
    assert.deepEqual(await readBack(fresh, c), ["a", "new", "c"]);
  });

  it("never has a new backup overwrite what an old one wrote", async () => {
    const { tiny, a, b } = await openRepository(1);
    const { fresh } = await rebuildFresh(tiny, [0]);
    const before = new Map(tiny.store(0).objects);
    for (let round = 0; round < 5; round += 1) await fresh.backup([`n${round}`, `m${round}`]);
    for (const [name, bytes] of before)
      assert.ok(bytes.equals(tiny.store(0).objects.get(name) as Buffer), name);
    assert.deepEqual(await readBack(fresh, a), A);
    assert.deepEqual(await readBack(fresh, b), B);
    // Metadata that were lost, and not rebuilt: the first thing that a backup does is to notice.
    const lost = await withoutMetadata(tiny);
    await lost.setState(0, "in-use");
    await assert.rejects(guardStorages(lost.repo, [tiny.id(0)]), isRefused);
  });

  it("keeps removed versions removed", async () => {
    const { tiny, a, b } = await openRepository();
    tiny.store(1).away = true;
    await removeVersion(tiny.kv, a);
    await collectGarbage(tiny.context);
    tiny.store(1).away = false;
    for (const from of [[0], [0, 1]]) {
      const { fresh, result } = await rebuildFresh(tiny, from);
      assert.equal(result.removed, 1);
      assert.equal((await fresh.version(a))?.state, "removed");
      await isClean(fresh);
      // The storage that has not heard of it is told.
      const owed = await fresh.kv.read((reader) => reader.get(key.owedHead(tiny.id(1), a)));
      assert.notEqual(owed, undefined);
    }
    const { fresh, result } = await rebuildFresh(tiny, [1]);
    assert.deepEqual(result.versions.map(({ uid }) => uid).toSorted(), [a, b]);
    assert.deepEqual(await readBack(fresh, a), A);
  });

  it("is the same when it is run again", async () => {
    const { tiny } = await openRepository();
    const { fresh } = await rebuildFresh(tiny, [0, 1]);
    const first = await snapshotOf(fresh);
    const result = await rebuildAt(fresh, [0, 1]);
    assert.deepEqual(await snapshotOf(fresh), first);
    assert.deepEqual(
      result.versions.map(({ adopted }) => adopted),
      [false, false],
    );
    assert.deepEqual(
      result.storages.map(({ adopted, lost }) => [adopted, lost]),
      [
        [0, 0],
        [0, 0],
      ],
    );
  });

  it("takes in a tree of several levels once, whatever versions share", async () => {
    const { tiny } = await openRepository(1);
    const wide: TinyBlock[] = Array.from({ length: 600 }, (_, index) =>
      index % 7 === 0 ? undefined : `w${index % 400}`,
    );
    const { uid: first } = await tiny.backup(wide);
    const { uid: second } = await tiny.backup([...wide.slice(0, 599), "other"]);
    let gets = 0;
    tiny.store(0).faults = {
      before: ({ kind, name }) => {
        if (kind === "get" && name.startsWith("nodes/")) gets += 1;
        return "none";
      },
    };
    const { fresh } = await rebuildFresh(tiny, [0]);
    // Two roots over three and one leaves more, and the leaves of two small versions.
    assert.equal(gets, 8);
    tiny.store(0).faults = {};
    assert.deepEqual(await readBack(fresh, first), wide);
    assert.deepEqual((await readBack(fresh, second)).at(-1), "other");
    await isClean(fresh);
  });

  it("refuses what is not its own", async () => {
    const { tiny } = await openRepository();
    const other = await openTiny();
    const { fresh } = await rebuildFresh(tiny, [0]);
    await assert.rejects(rebuildAt(fresh, [0], { keys: other.shared.keys }), isRefused);
    const empty = await withoutMetadata(tiny);
    await assert.rejects(rebuildAt(empty, [0]), (error) => isErrorCode(error, ErrorCode.NotFound));
    await assert.rejects(rebuildAt(fresh, []), (error) => isErrorCode(error, ErrorCode.Usage));
    await assert.rejects(rebuildAt(fresh, [0, 0]), (error) => isErrorCode(error, ErrorCode.Usage));
    await fresh.setState(0, "retired");
    await assert.rejects(rebuildAt(fresh, [0]), isRefused);
  });

  it("leaves alone what another rebuild has taken over", async () => {
    const { tiny } = await openRepository();
    const fresh = await withoutMetadata(tiny);
    let second: Promise<unknown> | undefined;
    tiny.store(0).faults = {
      before: async ({ kind, name }): Promise<BlobFault> => {
        if (kind !== "list" || name !== "blocks/" || second !== undefined) return "none";
        second = rebuildAt(fresh, [0], { fresh: true });
        await second;
        return "none";
      },
    };
    await assert.rejects(rebuildAt(fresh, [0], { fresh: true }), (error) =>
      isErrorCode(error, ErrorCode.TryAgain),
    );
    await isClean(fresh);
  });
});

describe("rebuild from damaged storages", () => {
  it("imports as invalid what is not complete, says what is missing, and a later backup mends it", async () => {
    const { tiny, a, b } = await openRepository(1);
    const name = await tiny.nameAt(tiny.blockId("c"), 0);
    tiny.store(0).objects.delete(name);
    const { fresh, result } = await rebuildFresh(tiny, [0]);
    const report = result.versions.find(({ uid }) => uid === a);
    assert.deepEqual(report, {
      uid: a,
      volume: "vol",
      state: "invalid",
      adopted: true,
      missing: [{ offset: 192, length: 64, kind: "block", id: tiny.blockId("c") }],
    });
    assert.equal(result.versions.find(({ uid }) => uid === b)?.state, "valid");
    assert.deepEqual(await readBack(fresh, b), B);
    assert.deepEqual(
      result.storages.map(({ lost }) => lost),
      [1],
    );
    await isClean(fresh);
    await collectGarbage(fresh.context, { sweep: true });
    await isClean(fresh);
    // Other content around it: the tree of the invalid version is not made again, only its block.
    await fresh.backup(["z", "c"]);
    await collectGarbage(fresh.context);
    assert.equal((await fresh.version(a))?.state, "valid");
    assert.deepEqual(await readBack(fresh, a), A);
    await isClean(fresh);
  });

  it("imports a version whose root is lost, and a later backup of the same mends it", async () => {
    const { tiny, a } = await openRepository(1);
    const root = (await tiny.version(a))?.root as BlockId;
    tiny.store(0).objects.delete(await tiny.nameAt(root, 0));
    const { fresh, result } = await rebuildFresh(tiny, [0]);
    assert.deepEqual(result.versions.find(({ uid }) => uid === a)?.missing, [
      { offset: 0, length: 256, kind: "node", id: root },
    ]);
    await isClean(fresh);
    // Its head does not hold up deletion for ever.
    await removeVersion(fresh.kv, (await fresh.backup(["tmp"])).uid);
    const gc = await collectGarbage(fresh.context);
    assert.ok(gc.storages.every(({ deleted }) => deleted > 0));
    await fresh.backup(A);
    await collectGarbage(fresh.context);
    assert.equal((await fresh.version(a))?.state, "valid");
    assert.deepEqual(await readBack(fresh, a), A);
    await isClean(fresh);
  });

  it("makes one whole version out of two storages that each lack something", async () => {
    const { tiny, a } = await openRepository();
    tiny.store(0).objects.delete(await tiny.nameAt(tiny.blockId("a"), 0));
    tiny.store(1).objects.delete(await tiny.nameAt(tiny.blockId("c"), 1));
    const root = (await tiny.version(a))?.root as BlockId;
    tiny.damage(1, await tiny.nameAt(root, 1));
    const { fresh, result } = await rebuildFresh(tiny, [0, 1]);
    assert.ok(result.versions.every(({ state }) => state === "valid"));
    assert.equal(await fresh.states(tiny.blockId("a")), "bad+owed placed");
    assert.equal(await fresh.states(root), "placed bad+owed");
    assert.deepEqual(await readBack(fresh, a), A);
    await isClean(fresh);
    await collectGarbage(fresh.context, { sweep: true });
    await collectGarbage(fresh.context, { sweep: true });
    await assertExact(fresh);
  });

  it("chooses the good one of several objects of a block", async () => {
    const { tiny, a } = await openRepository(1);
    const id = tiny.blockId("a");
    const good = await tiny.nameAt(id, 0);
    for (const generation of ["0000000000000001", "fffffffffffffff1"] as const) {
      const rotten = objectName("block", id, generation as never);
      tiny.store(0).objects.set(rotten, tiny.store(0).objects.get(good) as Buffer);
      tiny.damage(0, rotten);
    }
    const { fresh, result } = await rebuildFresh(tiny, [0]);
    assert.ok(result.versions.every(({ state }) => state === "valid"));
    assert.equal(await fresh.nameAt(id, 0), good);
    await collectGarbage(fresh.context, { sweep: true });
    await collectGarbage(fresh.context, { sweep: true });
    await assertExact(fresh);
    assert.deepEqual(await readBack(fresh, a), A);
  });

  it("takes an object that is too short for none", async () => {
    const { tiny } = await openRepository(1);
    const name = await tiny.nameAt(tiny.blockId("y"), 0);
    tiny.store(0).objects.set(name, Buffer.alloc(10));
    const { fresh, result } = await rebuildFresh(tiny, [0]);
    assert.equal(result.versions.filter(({ state }) => state === "invalid").length, 1);
    assert.equal(await fresh.states(tiny.blockId("y")), "bad+owed");
    await isClean(fresh);
  });

  it("does not lose a version over a head that cannot be read", async () => {
    const { tiny, a, b } = await openRepository();
    const head = headOf(tiny, a);
    tiny.damage(0, head);
    // Another storage tells, and this one gets its head again.
    const both = await rebuildFresh(tiny, [0, 1]);
    assert.deepEqual(both.result.versions.map(({ uid }) => uid).toSorted(), [a, b]);
    assert.equal(both.result.problems.length, 1);
    const owed = await both.fresh.kv.read((reader) => reader.get(key.owedHead(tiny.id(0), a)));
    assert.notEqual(owed, undefined);
    await isClean(both.fresh);
  });

  it("deletes nothing at a storage with a version of which no head can be read", async () => {
    const { tiny, a, b } = await openRepository();
    const head = headOf(tiny, a);
    tiny.damage(0, head);
    const { fresh, result } = await rebuildFresh(tiny, [0]);
    assert.deepEqual(
      result.versions.map(({ uid }) => uid),
      [b],
    );
    assert.equal(result.problems.length, 2);
    await removeVersion(fresh.kv, (await fresh.backup(["tmp"], { storages: [0] })).uid);
    const gc = await collectGarbage(fresh.context, { sweep: true });
    assert.ok(gc.storages[0]?.deleted === 0 && gc.storages[0].reasons.length > 0);
    // The other storage knows it, so it comes back whole.
    await rebuildAt(fresh, [0, 1]);
    assert.deepEqual(await readBack(fresh, a), A);
    await collectGarbage(fresh.context, { sweep: true });
    await collectGarbage(fresh.context, { sweep: true });
    await isClean(fresh);
    await assertExact(fresh);
  });
});

describe("rebuild of metadata that are there", () => {
  it("mends metadata that were put back from an older copy", async () => {
    const { tiny, a, b } = await openRepository();
    const session = await tiny.start();
    await session.bringBlock("half");
    const older = await tiny.clone();
    // Afterwards: the session finishes, a version is removed and collected, labels change, blocks move.
    const tree = await session.bringTree(["half", "done"]);
    const { uid: c } = await session.finish(tree, 2);
    await putOwedHeads(tiny.repo);
    await session.settle();
    await removeVersion(tiny.kv, a);
    await changeVersion(tiny.kv, b, { labels: { later: "1" } });
    await collectGarbage(tiny.context);
    await collectGarbage(tiny.context);
    const { uid: d } = await tiny.backup(["a", "d"]);
    await assert.rejects(guardStorages(older.repo, older.shared.ids), isRefused);
    const result = await rebuildAt(older, [0, 1]);
    assert.equal(result.sessionsStopped, 1);
    const adopted = result.versions.filter((version) => version.adopted).map(({ uid }) => uid);
    assert.deepEqual(adopted.toSorted(), [c, d]);
    assert.deepEqual(await readBack(older, b), B);
    assert.deepEqual(await readBack(older, c), ["half", "done"]);
    assert.deepEqual(await readBack(older, d), ["a", "d"]);
    assert.deepEqual((await older.version(b))?.labels, { later: "1" });
    // What was removed and deleted meanwhile is gone: invalid, for the user to remove.
    assert.equal((await older.version(a))?.state, "invalid");
    await isClean(older);
    await guardStorages(older.repo, older.shared.ids);
    await removeVersion(older.kv, a);
    await collectGarbage(older.context, { sweep: true, abandon: true });
    await collectGarbage(older.context, { sweep: true });
    await isClean(older);
    await assertExact(older);
    for (const [uid, blocks] of [
      [b, B],
      [c, ["half", "done"]],
      [d, ["a", "d"]],
    ] as const) {
      assert.deepEqual(await readBack(older, uid), blocks);
    }
    // And the metadata that were in use before are told.
    await assert.rejects(guardStorages(tiny.reopen().repo, tiny.shared.ids), isRefused);
  });

  it("takes what it adopts out of trash", async () => {
    const { tiny, a } = await openRepository(1);
    await removeVersion(tiny.kv, a);
    const older = await tiny.clone();
    // In the older copy the blocks of a are collected, in the other one a new backup revives them.
    await collect(older.kv);
    const trash = await older.kv.read((reader) => reader.range({ ...range.trash(), limit: 100 }));
    assert.ok(trash.length >= 3);
    // Some of it is locked there.
    const names = trash.map((entry) => parse.trash(entry.key).name);
    const locked = names.slice(0, 2).map((name) => ({ name, untilMs: 1, sizeBytes: 1 }));
    await waitForLocks(older.kv, older.id(0), 1, locked);
    const { uid: c } = await tiny.backup(A);
    await rebuildAt(older, [0]);
    assert.deepEqual(await readBack(older, c), A);
    await isClean(older);
    assert.equal((await measureWaiting(older.kv, older.id(0))).objects, 0);
    await collectGarbage(older.context, { sweep: true });
    await collectGarbage(older.context, { sweep: true });
    assert.deepEqual(await readBack(older, c), A);
    await isClean(older);
  });

  it("brings together what two clones of the metadata did", async () => {
    const { tiny, a, b } = await openRepository();
    const clone = await tiny.clone();
    // Both have looked at the storages before the other one wrote: nothing stops them.
    for (const each of [tiny, clone]) await guardStorages(each.repo, each.shared.ids);
    const { uid: c } = await tiny.backup(["a", "ours"]);
    const { uid: d } = await clone.backup(["a", "theirs", "ours"]);
    await changeVersion(tiny.kv, a, { labels: { of: "ours" } });
    await changeVersion(clone.kv, a, { labels: { of: "theirs" } });
    await removeVersion(clone.kv, b);
    for (const each of [tiny, clone]) await putOwedHeads(each.repo);
    await rebuildAt(clone, [0, 1]);
    for (const [uid, blocks] of [
      [a, A],
      [c, ["a", "ours"]],
      [d, ["a", "theirs", "ours"]],
    ] as const) {
      assert.deepEqual(await readBack(clone, uid), blocks);
      assert.equal((await clone.version(uid))?.state, "valid");
    }
    await isClean(clone);
    await collectGarbage(clone.context, { sweep: true });
    await collectGarbage(clone.context, { sweep: true });
    await assertExact(clone);
    await isClean(clone);
    await assert.rejects(guardStorages(tiny.reopen().repo, tiny.shared.ids), isRefused);
  });

  it("has a storage that was put back from an older copy filled again", async () => {
    const { tiny, a, b } = await openRepository();
    const { uid: gone } = await tiny.backup(["old"]);
    const older = tiny.store(1).snapshot();
    await removeVersion(tiny.kv, gone);
    await collectGarbage(tiny.context);
    const { uid: c } = await tiny.backup(["a", "later"]);
    const unreferenced = await tiny.start();
    await unreferenced.bringBlock("in flight");
    tiny.store(1).restore(older);
    await assert.rejects(guardStorages(tiny.reopen().repo, tiny.shared.ids), isRefused);
    const again = tiny.reopen();
    const result = await rebuildAt(again, [1]);
    assert.ok(result.versions.every(({ state }) => state === "valid"));
    assert.equal(await again.states(tiny.blockId("later")), "placed bad+owed");
    assert.equal(await again.states(tiny.blockId("in flight")), "placed bad+owed");
    await isClean(again, { storages: false });
    await guardStorages(again.repo, again.shared.ids);
    await collectGarbage(again.context, { sweep: true, abandon: true });
    await collectGarbage(again.context, { sweep: true });
    await collectGarbage(again.context, { sweep: true });
    await isClean(again);
    await assertExact(again);
    for (const [uid, blocks] of [
      [a, A],
      [b, B],
      [c, ["a", "later"]],
    ] as const) {
      const alone = await rebuildFresh(again, [1]);
      assert.deepEqual(await readBack(alone.fresh, uid), blocks);
    }
    assert.equal((await again.version(gone))?.state, "removed");
  });

  it("does not let a new backup count on a block that the storage lost", async () => {
    const { tiny } = await openRepository(1);
    const session = await tiny.start();
    const id = await session.bringBlock("lost");
    tiny.store(0).objects.delete(await tiny.nameAt(id, 0));
    await rebuildAt(tiny, [0]);
    const { uid } = await tiny.backup(["lost", "more"]);
    assert.deepEqual(await readBack(tiny, uid), ["lost", "more"]);
  });

  it("stops sessions, but leaves unfinished backups resumable", async () => {
    const { tiny } = await openRepository();
    const session = await tiny.start();
    await session.bringTree(["x", "y"]);
    await rebuildAt(tiny, [0, 1]);
    const value = await tiny.kv.read((reader) => reader.get(key.session(session.session)));
    assert.equal(decodeRecord<SessionRecord>(value as Buffer).state, "dead");
    await assert.rejects(session.bringBlock("z"), (error) => isErrorCode(error, ErrorCode.Fenced));
    await isClean(tiny);
  });

  const holes: Readonly<
    Record<
      string,
      (tiny: TinyRepository, tx: KvTransaction, uid: VersionUid, root: BlockId) => void
    >
  > = {
    "a block's record": (tiny, tx) => tx.clear(key.block(tiny.blockId("c"))),
    "a block's record that is there, but unreadable": (tiny, tx) =>
      tx.set(key.block(tiny.blockId("c")), Buffer.of(9)),
    "the root's record": (_, tx, __, root) => tx.clear(key.block(root)),
    "a node": (_, tx, __, root) => tx.clear(key.node(root)),
    "a node that is there, but another one": (_, tx, __, root) =>
      tx.set(key.node(root), Buffer.from("nonsense")),
    "a version": (_, tx, uid) => tx.clear(key.version(uid)),
    "a version that is there, but unreadable": (_, tx, uid) =>
      tx.set(key.version(uid), Buffer.of(0x81)),
  };
  for (const [what, hole] of Object.entries(holes)) {
    it(`mends what fsck cannot: ${what}`, async () => {
      const { tiny, a, b } = await openRepository();
      const root = (await tiny.version(a))?.root as BlockId;
      await tiny.kv.transact((tx) => Promise.resolve(hole(tiny, tx, a, root)));
      assert.ok((await runFsck(tiny.repo, { repair: true })).unrepairedCount > 0);
      await rebuildAt(tiny, [0, 1]);
      await runFsck(tiny.repo, { repair: true });
      await isClean(tiny);
      assert.deepEqual(await readBack(tiny, a), A);
      assert.deepEqual(await readBack(tiny, b), B);
      await collectGarbage(tiny.context, { sweep: true });
      await collectGarbage(tiny.context, { sweep: true });
      await isClean(tiny);
      await assertExact(tiny);
    });
  }
});
