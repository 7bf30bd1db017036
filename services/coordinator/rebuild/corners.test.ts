// Corners of rebuilding that a missing line of code would get wrong: each test here fails without one.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlockId, VersionUid } from "#lib/core/ids.ts";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { key, objectName, range } from "#lib/repository/keyspace.ts";
import { decodeRecord, encodeRecord, type SessionRecord } from "#lib/repository/records.ts";
import { condemnStep } from "#lib/repository/transactions/collect.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import { currentRun } from "#lib/repository/transactions/storage.ts";
import { markBad } from "#lib/repository/transactions/verify.ts";
import { changeVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { guardStorages } from "#services/writer/guard.ts";
import { putOwedHeads } from "#services/writer/heads.ts";
import { assertExact } from "#test/fixtures/tiny-checks.ts";
import { openTiny, type TinyBlock, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import {
  bringLeaf,
  isClean,
  readBack,
  rebuildAt,
  rebuildFresh,
  stopping,
  withoutMetadata,
} from "#test/fixtures/tiny-rebuild.ts";

const A: TinyBlock[] = ["a", "b", undefined, "c"];

async function openRepository(
  storages = 2,
): Promise<{ tiny: TinyRepository; a: VersionUid; root: BlockId }> {
  const tiny = await openTiny({ storages });
  await tiny.kv.transact((tx) =>
    Promise.resolve(tx.set(key.config, encodeRecord(tiny.repo.config))),
  );
  const { uid: a, root } = await tiny.backup(A);
  return { tiny, a, root: root as BlockId };
}

/** Names of a version's heads at a storage. */
function headsOf(tiny: TinyRepository, index: number, uid: VersionUid): string[] {
  const prefix = `heads/${tiny.hasher.headName(uid)}.`;
  return [...tiny.store(index).objects.keys()].filter((name) => name.startsWith(prefix)).toSorted();
}

async function isOwedHead(tiny: TinyRepository, index: number, uid: VersionUid): Promise<boolean> {
  const at = key.owedHead(tiny.id(index), uid);
  return (await tiny.kv.read((reader) => reader.get(at))) !== undefined;
}

describe("rebuild, what a head tells", () => {
  /** Two clones of the metadata that both wrote to all storages, unnoticed. */
  async function openClones(): Promise<{
    ours: TinyRepository;
    theirs: TinyRepository;
    a: VersionUid;
  }> {
    const { tiny, a } = await openRepository();
    const theirs = await tiny.clone();
    for (const each of [tiny, theirs]) await guardStorages(each.repo, each.shared.ids);
    return { ours: tiny, theirs, a };
  }

  it("keeps a version that one clone removed and the other labelled", async () => {
    for (const pick of ["ours", "theirs", "fresh"] as const) {
      const clones = await openClones();
      const { ours, theirs, a } = clones;
      await removeVersion(ours.kv, a);
      await changeVersion(theirs.kv, a, { labels: { kept: "yes" } });
      for (const each of [ours, theirs]) await putOwedHeads(each.repo);
      const into = pick === "fresh" ? await withoutMetadata(ours) : clones[pick];
      await rebuildAt(into, [0, 1], { fresh: pick === "fresh" });
      const version = await into.version(a);
      assert.deepEqual([version?.state, version?.revision], ["valid", 3], pick);
      assert.deepEqual(version?.labels, { kept: "yes" });
      assert.ok(await isOwedHead(into, 0, a));
      assert.deepEqual(await readBack(into, a), A);
      await isClean(into);
    }
  });

  it("raises the revision where two clones made the same one", async () => {
    const { ours, theirs, a } = await openClones();
    await changeVersion(ours.kv, a, { labels: { of: "ours" } });
    await changeVersion(theirs.kv, a, { labels: { of: "theirs" } });
    for (const each of [ours, theirs]) await putOwedHeads(each.repo);
    const { fresh } = await rebuildFresh(ours, [0, 1]);
    assert.equal((await fresh.version(a))?.revision, 3);
    assert.ok((await isOwedHead(fresh, 0, a)) && (await isOwedHead(fresh, 1, a)));
    await isClean(fresh);
  });

  it("goes beyond a revision that cannot be read", async () => {
    const { tiny, a } = await openRepository();
    await changeVersion(tiny.kv, a, { labels: { later: "1" } });
    await putOwedHeads(tiny.repo);
    for (const index of [0, 1]) tiny.damage(index, headsOf(tiny, index, a).at(-1) as string);
    const { fresh, result } = await rebuildFresh(tiny, [0, 1]);
    const version = await fresh.version(a);
    assert.deepEqual([version?.revision, version?.labels], [3, {}]);
    assert.equal(result.problems.length, 2);
    await isClean(fresh);
  });

  it("does not take the head of one revision for that of another", async () => {
    const { tiny, a } = await openRepository(1);
    const [name] = headsOf(tiny, 0, a);
    const bytes = tiny.store(0).objects.get(name as string) as Buffer;
    tiny.store(0).objects.set((name as string).replace(".1.", ".5."), bytes);
    const { fresh, result } = await rebuildFresh(tiny, [0]);
    assert.equal((await fresh.version(a))?.revision, 6);
    assert.match(result.problems.join(), /another version or revision/);
    await isClean(fresh);
  });

  it("removes what was removed after the metadata's copy was made", async () => {
    const { tiny, a } = await openRepository();
    const older = await tiny.clone();
    tiny.store(1).away = true;
    await removeVersion(tiny.kv, a);
    await putOwedHeads(tiny.repo);
    tiny.store(1).away = false;
    await rebuildAt(older, [0, 1]);
    assert.equal((await older.version(a))?.state, "removed");
    await isClean(older);
    await collectGarbage(older.context, { sweep: true });
    await collectGarbage(older.context, { sweep: true });
    await isClean(older);
    await assertExact(older);
  });

  it("lets last revisions go once all storages have them", async () => {
    const { tiny, a } = await openRepository();
    await removeVersion(tiny.kv, a);
    await putOwedHeads(tiny.repo);
    assert.equal(headsOf(tiny, 0, a).length, 2);
    const { fresh } = await rebuildFresh(tiny, [0, 1]);
    for (let round = 0; round < 2; round += 1) {
      await collectGarbage(fresh.context, { sweep: true });
    }
    assert.deepEqual([...headsOf(tiny, 0, a), ...headsOf(tiny, 1, a)], []);
    await isClean(fresh);
  });

  it("owes a lost last revision again", async () => {
    const { tiny, a } = await openRepository();
    tiny.store(1).away = true;
    await removeVersion(tiny.kv, a);
    await putOwedHeads(tiny.repo);
    tiny.store(1).away = false;
    for (const name of headsOf(tiny, 0, a)) tiny.store(0).objects.delete(name);
    assert.ok(!(await isOwedHead(tiny, 0, a)));
    await rebuildAt(tiny, [0]);
    assert.ok(await isOwedHead(tiny, 0, a));
    await isClean(tiny);
  });

  it("ends the session of a version that the metadata saw unfinished", async () => {
    const { tiny } = await openRepository();
    const session = await tiny.start();
    const tree = await session.bringTree(["x"]);
    const older = await tiny.clone();
    await changeVersion(older.kv, session.record.uid, { labels: { early: "1" } });
    const { uid } = await session.finish(tree, 1);
    await putOwedHeads(tiny.repo);
    await rebuildAt(older, [0, 1]);
    assert.equal((await older.version(uid))?.state, "valid");
    const value = await older.kv.read((reader) => reader.get(key.session(session.session)));
    assert.equal(decodeRecord<SessionRecord>(value as Buffer).state, "ended");
    await isClean(older);
    await collectGarbage(older.context);
    await isClean(older);
    assert.deepEqual(await readBack(older, uid), ["x"]);
  });

  it("takes in a tree for each storage that shows a version over it", async () => {
    const { tiny, a, root } = await openRepository();
    await tiny.backup(A, { storages: [0] });
    await tiny.backup(A, { storages: [1] });
    // Each storage shows another version over the same tree.
    for (const index of [0, 1]) {
      for (const name of headsOf(tiny, index, a)) tiny.store(index).objects.delete(name);
    }
    tiny.store(1).objects.delete(await tiny.nameAt(tiny.blockId("a"), 1));
    const { fresh } = await rebuildFresh(tiny, [0, 1]);
    assert.equal(await fresh.states(root), "placed placed");
    assert.equal(await fresh.states(tiny.blockId("a")), "placed bad+owed");
    await isClean(fresh);
  });
});

describe("rebuild, copies", () => {
  it("counts a version with fewer storages than its quorum, for the others may be lost", async () => {
    const { tiny } = await openRepository();
    const { uid } = await tiny.backup(["q"], { quorum: 2 });
    const { fresh } = await rebuildFresh(tiny, [0]);
    assert.equal((await fresh.version(uid))?.state, "valid");
    await isClean(fresh);
  });

  it("lifts the condemnation of what it refers to", async () => {
    const { tiny, a, root } = await openRepository(1);
    await removeVersion(tiny.kv, a);
    const older = await tiny.clone();
    await condemnStep(older.kv, undefined);
    assert.notEqual((await older.record(root))?.condemnedEpoch, undefined);
    const { uid } = await tiny.backup(A);
    await rebuildAt(older, [0]);
    for (const id of [root, ...["a", "b", "c"].map((block) => older.blockId(block))]) {
      assert.equal((await older.record(id))?.condemnedEpoch, undefined);
    }
    assert.deepEqual(await readBack(older, uid), A);
  });

  it("tells whoever holds a block that it was found", async () => {
    const { tiny } = await openRepository(1);
    const session = await tiny.start();
    const leaf = await bringLeaf(session, ["a", "held"]);
    await session.die();
    const id = tiny.blockId("a");
    const copy = (await tiny.record(id))?.copies[0];
    assert.ok(copy !== undefined);
    // A false alarm: it is there, and right.
    await markBad(tiny.kv, tiny.repo.random, { ...copy, id });
    await drainRechecks(tiny.kv);
    assert.equal((await tiny.record(leaf))?.damaged, true);
    await rebuildAt(tiny, [0]);
    assert.equal(await tiny.states(id), "placed");
    assert.equal((await tiny.record(leaf))?.damaged, false);
    const pending = await tiny.kv.read((reader) => reader.range({ ...range.rechecks(), limit: 1 }));
    assert.deepEqual(pending, []);
    await isClean(tiny);
  });

  it("does not take for good again what is still bad", async () => {
    const { tiny } = await openRepository(1);
    const id = tiny.blockId("a");
    const copy = (await tiny.record(id))?.copies[0];
    assert.ok(copy !== undefined);
    tiny.damage(0, await tiny.nameAt(id, 0));
    await markBad(tiny.kv, tiny.repo.random, { ...copy, id });
    await rebuildAt(tiny, [0]);
    assert.equal(await tiny.states(id), "bad+owed");
    await isClean(tiny);
  });

  it("looks up by name what a listing lacks, before it counts as lost", async () => {
    const { tiny } = await openRepository();
    const name = await tiny.nameAt(tiny.blockId("a"), 0);
    const list = tiny.store(0).list.bind(tiny.store(0));
    tiny.store(0).list = async function* lagging(prefix, options) {
      for await (const entry of list(prefix, options)) if (entry.name !== name) yield entry;
    };
    const result = await rebuildAt(tiny, [0, 1]);
    assert.deepEqual(
      result.storages.map(({ lost }) => lost),
      [0, 0],
    );
    assert.equal(await tiny.states(tiny.blockId("a")), "placed placed");
  });

  it("takes a placed object that was cut for lost", async () => {
    const { tiny } = await openRepository();
    tiny.store(0).objects.set(await tiny.nameAt(tiny.blockId("a"), 0), Buffer.alloc(20));
    await rebuildAt(tiny, [0]);
    assert.equal(await tiny.states(tiny.blockId("a")), "bad+owed placed");
  });

  it("prefers the object that the metadata were to get", async () => {
    const { tiny, root } = await openRepository();
    // Owed under a name that is there already: a fill that did not come to its end.
    const id = tiny.blockId("a");
    const before = (await tiny.record(id))?.copies.find(({ storage }) => storage === tiny.id(1));
    const sealed = tiny.store(1).objects.get(await tiny.nameAt(id, 1)) as Buffer;
    assert.ok(before !== undefined);
    await markBad(tiny.kv, tiny.repo.random, { ...before, id });
    const owed = (await tiny.record(id))?.copies.find(({ state }) => state === "owed");
    assert.ok(owed !== undefined);
    tiny.store(1).objects.set(objectName("block", id, owed.generation), sealed);
    await rebuildAt(tiny, [1]);
    const placed = (await tiny.record(id))?.copies.find(({ storage }) => storage === tiny.id(1));
    assert.deepEqual([placed?.state, placed?.generation], ["placed", owed.generation]);
    void root;
    await isClean(tiny);
  });
});

describe("rebuild, runs of it", () => {
  it("goes on with run numbers where the storage's last KV stopped", async () => {
    const { tiny, a } = await openRepository(1);
    await removeVersion(tiny.kv, a);
    for (let round = 0; round < 3; round += 1) {
      await removeVersion(tiny.kv, (await tiny.backup([`n${round}`])).uid);
      await collectGarbage(tiny.context);
    }
    const before = await currentRun(tiny.kv, tiny.id(0));
    assert.ok(before >= 3);
    const { fresh } = await rebuildFresh(tiny, [0]);
    assert.equal(await currentRun(fresh.kv, tiny.id(0)), before + 1);
  });

  it("stops when another one has taken over, also one that did not come to its end", async () => {
    const { tiny } = await openRepository();
    const fresh = await withoutMetadata(tiny);
    let second: Promise<unknown> | undefined;
    tiny.store(0).faults = {
      before: async ({ kind, name }): Promise<BlobFault> => {
        if (kind !== "list" || name !== "blocks/" || second !== undefined) return "none";
        second = rebuildAt(fresh, [0], { fresh: true, kv: stopping(fresh.kv, 3, false) });
        await assert.rejects(second, /killed/);
        return "none";
      },
    };
    await assert.rejects(rebuildAt(fresh, [0], { fresh: true }), (error) =>
      isErrorCode(error, ErrorCode.TryAgain),
    );
  });

  it("does not believe what an earlier one listed", async () => {
    const { tiny, a } = await openRepository(1);
    const fresh = await withoutMetadata(tiny);
    const kv = stopping(fresh.kv, 4, true);
    await assert.rejects(rebuildAt(fresh, [0], { fresh: true, kv }), /killed/);
    tiny.store(0).objects.delete(await tiny.nameAt(tiny.blockId("a"), 0));
    const result = await rebuildAt(fresh, [0], { fresh: true });
    assert.deepEqual(
      result.versions.map(({ uid, state }) => [uid, state]),
      [[a, "invalid"]],
    );
  });
});
