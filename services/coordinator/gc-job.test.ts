import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { SessionId } from "#lib/core/ids.ts";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import type { CommitFault } from "#lib/drivers/memory/memory-kv.ts";
import { readEpoch, readSession } from "#lib/repository/ledger.ts";
import { range } from "#lib/repository/keyspace.ts";
import { keepAlive, resumeSession } from "#lib/repository/transactions/session.ts";
import { storeBlocks } from "#lib/repository/transactions/store.ts";
import { changeVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import {
  allRecords,
  assertClosed,
  assertExact,
  objectsAt,
  restoreFrom,
} from "#test/fixtures/tiny-checks.ts";
import { openTiny, type TinyBlock, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import { collectGarbage, planCollection } from "./gc-job.ts";

const stateOf = async (tiny: TinyRepository, session: SessionId): Promise<string | undefined> =>
  (await tiny.kv.read((reader) => readSession(reader, session)))?.state;

/** Everything that ever waits in a queue. */
async function queued(tiny: TinyRepository): Promise<number> {
  const ranges = [
    range.unreferenced(),
    range.condemned(),
    range.rechecks(),
    range.trash(),
    range.owed(),
  ];
  let count = 0;
  for (const each of ranges) {
    count += (await tiny.kv.read((reader) => reader.range({ ...each, limit: 1000 }))).length;
  }
  return count;
}

describe("collectGarbage", () => {
  it("leaves exactly what the versions need, after one run", async () => {
    const tiny = await openTiny();
    const kept = await tiny.backup(["a", "b", undefined, "c"]);
    const { uid } = await tiny.backup(["b", "d", "e"]);
    await changeVersion(tiny.kv, kept.uid, { protected: true });
    await removeVersion(tiny.kv, uid);
    const result = await collectGarbage(tiny.context);
    assert.deepEqual([result.blocksRemoved, result.nodesRemoved, result.heldBy], [2, 1, []]);
    assert.deepEqual(
      result.storages.map(({ deleted, owed, reasons }) => ({ deleted, owed, reasons })),
      [
        // Two blocks, a leaf, both heads of the removed version and the first head of the kept one.
        { deleted: 6, owed: 0, reasons: [] },
        { deleted: 6, owed: 0, reasons: [] },
      ],
    );
    await assertExact(tiny);
    await assertClosed(tiny);
    assert.equal(await queued(tiny), 0);
    assert.deepEqual(restoreFrom(tiny, 1, kept.uid), ["a", "b", undefined, "c"]);
    const again = await collectGarbage(tiny.context);
    assert.deepEqual([again.passes, again.bytesFreed, again.storages[0]?.deleted], [0, 0, 0]);
  });

  it("removes whole trees, a pass a level, the epoch rising once a pass", async () => {
    const tiny = await openTiny({ storages: 1 });
    const blocks: TinyBlock[] = Array.from({ length: 600 }, (_, at) => `b${at}`);
    const { uid } = await tiny.backup(blocks);
    await removeVersion(tiny.kv, uid);
    const before = await tiny.kv.read(readEpoch);
    const result = await collectGarbage(tiny.context);
    assert.deepEqual([result.blocksRemoved, result.nodesRemoved], [600, 4]);
    assert.equal((await tiny.kv.read(readEpoch)) - before, result.passes);
    assert.equal((await allRecords(tiny)).size, 0);
    assert.deepEqual(objectsAt(tiny, 0), []);
  });

  it("keeps what a live backup was told is known, and says who holds it up", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a", "b"]);
    const session = await tiny.start();
    assert.equal(await session.claim("block", tiny.blockId("a"), 64), undefined, "known");
    await removeVersion(tiny.kv, uid);
    const held = await collectGarbage(tiny.context, { abandon: true });
    // Condemned, block by block as their leaf... which itself waits for the horizon.
    assert.equal(held.blocksRemoved + held.nodesRemoved, 0);
    assert.deepEqual(
      held.heldBy.map(({ session: id, state }) => [id, state]),
      [[session.session, "live"]],
    );
    // It goes on, and commits what it was told is known.
    const version = await session.finish(await session.bringTree(["a", "c"]), 2);
    await session.settle();
    const result = await collectGarbage(tiny.context);
    assert.deepEqual([result.blocksRemoved, result.nodesRemoved, result.heldBy], [1, 1, []]);
    assert.deepEqual(restoreFrom(tiny, 0, version.uid), ["a", "c"]);
    await assertExact(tiny);
  });

  it("goes on when a live backup's horizon has moved", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a", "b"]);
    const session = await tiny.start();
    await removeVersion(tiny.kv, uid);
    for (let round = 0; round < 4; round += 1) {
      await collectGarbage(tiny.context);
      const epoch = await tiny.kv.read(readEpoch);
      await keepAlive(tiny.kv, session.session, session.record.token, 1, epoch);
    }
    assert.equal((await allRecords(tiny)).size, 0);
    await session.die();
  });

  it("never ends a live session; an interrupted one stays resumable, for a while", async () => {
    const tiny = await openTiny({ storages: 1 });
    const live = await tiny.start({ volume: "one" });
    await live.bringBlock("x");
    const dead = await tiny.start({ volume: "two" });
    await dead.bringBlock("y");
    await dead.bringNode(0, 0, [tiny.blockId("y")]);
    dead.vanish();
    const first = await collectGarbage(tiny.context);
    assert.deepEqual(
      [await stateOf(tiny, live.session), await stateOf(tiny, dead.session)],
      ["live", "dead"],
    );
    assert.equal(first.blocksRemoved, 0);
    assert.deepEqual(
      first.heldBy.map(({ session, state }) => [session, state]),
      [[dead.session, "dead"]],
    );
    await tiny.shared.clock.advance(90_000_000);
    const second = await collectGarbage(tiny.context);
    assert.equal(await stateOf(tiny, dead.session), undefined);
    assert.equal(await stateOf(tiny, live.session), "live");
    assert.equal(second.sessionsEnded, 1);
    assert.ok((await tiny.version(dead.record.uid)) === undefined, "the unfinished version goes");
    // The live session's horizon is that of its start.
    assert.equal(second.heldBy[0]?.session, live.session);
    live.vanish();
    await collectGarbage(tiny.context, { abandon: true });
    assert.equal((await allRecords(tiny)).size, 0);
    await assertExact(tiny);
  });

  it("abandons at once when told to, and leaves no orphan", async () => {
    const tiny = await openTiny();
    await tiny.backup(["a"]);
    const session = await tiny.start();
    await session.bringBlock("b");
    // Claimed and put, but never recorded.
    const id = tiny.blockId("c");
    const copies = await session.claim("block", id, 64);
    await session.put("block", id, tiny.plain("c"), copies ?? []);
    session.vanish();
    await collectGarbage(tiny.context, { abandon: true });
    await assertExact(tiny);
    assert.equal(await queued(tiny), 0);
    await assert.rejects(session.bringBlock("d"), /gone|ended/);
  });

  it("finds a block that was claimed twice while one of its puts was late", async () => {
    const tiny = await openTiny();
    const session = await tiny.start();
    const id = tiny.blockId("a");
    const copies = (await session.claim("block", id, 64)) ?? [];
    const put = await session.put("block", id, tiny.plain("a"), copies.slice(0, 1));
    await storeBlocks(tiny.kv, 1, [{ id, ...put, pending: [] }]);
    assert.equal(await session.claim("block", id, 64), undefined, "known by now");
    session.vanish();
    await collectGarbage(tiny.context, { abandon: true });
    assert.equal((await allRecords(tiny)).size, 0);
    await assertExact(tiny);
  });

  it("ends a dead session whose volume has a newer version", async () => {
    const tiny = await openTiny({ storages: 1 });
    const session = await tiny.start();
    await session.bringBlock("b");
    session.vanish();
    await tiny.shared.clock.advance(1000);
    await tiny.backup(["a"], { volume: "other" });
    assert.equal((await collectGarbage(tiny.context)).sessionsEnded, 0);
    await tiny.backup(["a"]);
    assert.equal((await collectGarbage(tiny.context)).sessionsEnded, 1);
    await assertExact(tiny);
  });

  it("does not end a session that is resumed meanwhile", async () => {
    const tiny = await openTiny({ storages: 1 });
    const session = await tiny.start();
    await session.die();
    let resumed = false;
    tiny.kvFaults.beforeCommit = async (label): Promise<CommitFault> => {
      if (resumed || label !== "free:end") return "ok";
      resumed = true;
      const token = tiny.repo.random.bytes(8).toString("hex") as typeof session.record.token;
      await resumeSession(tiny.kv, session.session, { host: "h", lock: "l", token, nowMs: 1 });
      return "ok";
    };
    await collectGarbage(tiny.context, { abandon: true });
    assert.ok(resumed);
    assert.equal(await stateOf(tiny, session.session), "live");
  });

  it("sweeps when asked to", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(["a"]);
    const orphan = `blocks/${tiny.blockId("z")}.00000000000000aa`;
    tiny.store(0).objects.set(orphan, Buffer.of(1));
    await collectGarbage(tiny.context);
    assert.ok(tiny.store(0).objects.has(orphan));
    const result = await collectGarbage(tiny.context, { sweep: true });
    assert.deepEqual([result.storages[0]?.orphans, result.storages[0]?.deleted], [1, 1]);
    await assertExact(tiny);
  });

  it("catches up a storage that was away, and says what stays owed", async () => {
    const tiny = await openTiny();
    tiny.store(1).away = true;
    const { uid } = await tiny.backup(["a", "b"]);
    const gone = await tiny.backup(["c"]);
    await removeVersion(tiny.kv, gone.uid);
    const first = await collectGarbage(tiny.context);
    assert.ok((first.storages[1]?.owed ?? 0) > 0);
    assert.match(first.storages[1]?.reasons.join() ?? "", /away/);
    assert.equal(first.storages[1]?.refused, undefined);
    tiny.store(1).away = false;
    const second = await collectGarbage(tiny.context);
    assert.equal(second.storages[1]?.owed, 0);
    assert.deepEqual(restoreFrom(tiny, 1, uid), ["a", "b"]);
    await collectGarbage(tiny.context);
    await assertExact(tiny);
    assert.equal(await queued(tiny), 0);
  });

  it("leaves a suspect storage alone and tends the others", async () => {
    const tiny = await openTiny();
    await tiny.backup(["a"]);
    const before = tiny.store(1).snapshot();
    const { uid } = await tiny.backup(["b"]);
    await removeVersion(tiny.kv, uid);
    tiny.store(1).restore(before);
    const result = await collectGarbage((await tiny.clone()).context);
    assert.equal(result.storages[0]?.refused, undefined);
    assert.match(result.storages[1]?.refused?.remedy ?? "", /rebuild --from memory:s1/);
    assert.deepEqual([...tiny.store(1).objects.keys()], [...before.keys()]);
    // A block, a leaf, and the first head; the last revision stays until s1 has it, too.
    assert.equal(result.storages[0]?.deleted, 3);
  });

  it("may be killed at any transaction or storage call, and be run again", async () => {
    for (let stop = 1; ; stop += 2) {
      const tiny = await openTiny();
      const kept = await tiny.backup(["a", "b"]);
      tiny.store(1).away = true;
      const gone = await tiny.backup(["b", "c"]);
      tiny.store(1).away = false;
      const session = await tiny.start();
      await session.bringBlock("d");
      session.vanish();
      await removeVersion(tiny.kv, gone.uid);
      let calls = 0;
      const crash = (): void => {
        calls += 1;
        if (calls === stop) throw new Error("killed");
      };
      const hooks = { before: (): BlobFault => (crash(), "none"), after: crash };
      for (const at of [0, 1]) tiny.store(at).faults = hooks;
      tiny.kvFaults.beforeCommit = () => (crash(), "ok");
      let finished = true;
      try {
        await collectGarbage(tiny.context, { abandon: true });
      } catch (error) {
        assert.match((error as Error).message, /killed/);
        finished = false;
      }
      for (const at of [0, 1]) tiny.store(at).faults = {};
      delete tiny.kvFaults.beforeCommit;
      // A killed process is not there to clean up; a power failure takes what was not flushed.
      tiny.kv.losePower();
      await assertClosed(tiny);
      const again = tiny.reopen();
      again.gone.add(session.session);
      await collectGarbage(again.context, { abandon: true, sweep: true });
      await collectGarbage(again.context, { abandon: true });
      await assertExact(tiny);
      assert.equal(await queued(tiny), 0);
      for (const at of [0, 1]) assert.deepEqual(restoreFrom(tiny, at, kept.uid), ["a", "b"]);
      if (finished && calls < stop) return;
      assert.ok(stop < 600);
    }
  });

  it("changes nothing more when its transactions land twice", async () => {
    const tiny = await openTiny();
    await tiny.backup(["a", "b"]);
    const { uid } = await tiny.backup(["b", "c"]);
    await removeVersion(tiny.kv, uid);
    const landed = new Map<string, number>();
    tiny.kvFaults.beforeCommit = (label) => {
      const count = (landed.get(label) ?? 0) + 1;
      landed.set(label, count);
      return count % 2 === 1 ? "unknown-committed" : "ok";
    };
    await collectGarbage(tiny.context);
    delete tiny.kvFaults.beforeCommit;
    await collectGarbage(tiny.context);
    await assertExact(tiny);
    assert.equal(await queued(tiny), 0);
  });

  it("plans what it would free, and changes nothing for that", async () => {
    const tiny = await openTiny();
    await tiny.backup(["a"]);
    const session = await tiny.start();
    await session.bringBlock("b");
    await session.bringNode(0, 0, [tiny.blockId("a"), tiny.blockId("b")]);
    await session.bringBlock("c");
    session.vanish();
    const none = await planCollection(tiny.context);
    assert.equal(none.total.blocks, 0);
    const plan = await planCollection(tiny.context, { abandon: true });
    assert.deepEqual([plan.total.blocks, plan.total.nodes, plan.total.objects], [2, 1, 6]);
    assert.equal(await stateOf(tiny, session.session), "live");
    const result = await collectGarbage(tiny.context, { abandon: true });
    assert.deepEqual(
      [result.blocksRemoved, result.nodesRemoved, result.bytesFreed],
      [plan.total.blocks, plan.total.nodes, plan.total.storedBytes],
    );
  });
});
