import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { VersionUid } from "#lib/core/ids.ts";
import { queueUnreferenced } from "#lib/repository/ledger.ts";
import { removeVersion } from "#lib/repository/transactions/version.ts";
import { assertExact } from "#test/fixtures/tiny-checks.ts";
import { openTiny, type TinyBlock, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import { collectGarbage, planCollection } from "./gc-job.ts";
import { planRemoval } from "./plan-removal.ts";

/** Blocks and nodes on a storage, with their bytes. */
function dataAt(tiny: TinyRepository, index: number): { objects: number; bytes: number } {
  let objects = 0;
  let bytes = 0;
  for (const [name, { length }] of tiny.store(index).objects) {
    if (!name.startsWith("blocks/") && !name.startsWith("nodes/")) continue;
    objects += 1;
    bytes += length;
  }
  return { objects, bytes };
}

/** Removes and collects, and compares with the plan: what the records say went, and what lies on the storages. */
async function removeAsPlanned(tiny: TinyRepository, uids: readonly VersionUid[]): Promise<void> {
  // Whatever is owed is there first, or filling would hide what goes.
  await collectGarbage(tiny.context);
  const plan = await planRemoval(tiny.repo, uids);
  const before = tiny.shared.ids.map((_, index) => dataAt(tiny, index));
  for (const uid of uids) await removeVersion(tiny.kv, uid);
  const result = await collectGarbage(tiny.context);
  assert.deepEqual(
    [result.blocksRemoved, result.nodesRemoved, result.bytesFreed],
    [plan.total.blocks, plan.total.nodes, plan.total.storedBytes],
  );
  for (const [index, storage] of tiny.shared.ids.entries()) {
    const planned = plan.total.storages.find((at) => at.storage === storage);
    const after = dataAt(tiny, index);
    assert.deepEqual(
      {
        objects: (before[index]?.objects ?? 0) - after.objects,
        bytes: (before[index]?.bytes ?? 0) - after.bytes,
      },
      {
        objects: (planned?.blocks ?? 0) + (planned?.nodes ?? 0),
        bytes: planned?.storedBytes ?? 0,
      },
    );
  }
}

describe("planRemoval", () => {
  it("counts what only these versions need", async () => {
    const tiny = await openTiny();
    await tiny.backup(["a", "b", "c"]);
    const { uid } = await tiny.backup(["b", "d", "d", undefined, "e"]);
    const plan = await planRemoval(tiny.repo, [uid]);
    assert.deepEqual(plan.garbage, await planRemoval(tiny.repo, []).then(({ total }) => total));
    const { blocks, nodes, objects, blockBytes } = plan.removal;
    assert.deepEqual(
      { blocks, nodes, objects, blockBytes },
      { blocks: 2, nodes: 1, objects: 6, blockBytes: 128 },
    );
    assert.deepEqual(
      plan.removal.storages.map(({ blocks: at, nodes: above }) => [at, above]),
      [
        [2, 1],
        [2, 1],
      ],
    );
    await removeAsPlanned(tiny, [uid]);
  });

  it("counts nothing where another version has the same tree", async () => {
    const tiny = await openTiny({ storages: 1 });
    const one = await tiny.backup(["a"]);
    const two = await tiny.backup(["a"]);
    assert.equal((await planRemoval(tiny.repo, [one.uid])).total.objects, 0);
    assert.equal((await planRemoval(tiny.repo, [one.uid, two.uid])).total.objects, 2);
    assert.equal((await planRemoval(tiny.repo, ["none" as VersionUid])).total.objects, 0);
  });

  it("tells apart what was garbage already", async () => {
    const tiny = await openTiny({ storages: 1 });
    const one = await tiny.backup(["shared", "x"]);
    const two = await tiny.backup(["shared", "y"]);
    await removeVersion(tiny.kv, one.uid);
    const plan = await planRemoval(tiny.repo, [two.uid]);
    // What the two share goes only now that the second one goes, too.
    assert.deepEqual([plan.garbage.blocks, plan.removal.blocks, plan.total.blocks], [1, 2, 3]);
    await removeVersion(tiny.kv, two.uid);
    assert.equal((await collectGarbage(tiny.context)).bytesFreed, plan.total.storedBytes);
  });

  it("counts nothing twice that lies in several queues", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid, root } = await tiny.backup(["a"]);
    assert.ok(root !== undefined);
    const holder = await tiny.start();
    const ended = await tiny.start();
    const loose = await ended.bringBlock("loose");
    await ended.settle();
    await removeVersion(tiny.kv, uid);
    await collectGarbage(tiny.context);
    assert.notEqual((await tiny.record(loose))?.condemnedEpoch, undefined);
    // A hold that is cleared, say, queues what is condemned already.
    await tiny.kv.transact(async (tx) => {
      queueUnreferenced(tx, root);
      queueUnreferenced(tx, loose);
      await Promise.resolve();
    });
    const session = await tiny.start();
    await session.bringBlock("late");
    await session.bringBlock("later");
    await tiny.kv.transact(async (tx) => {
      queueUnreferenced(tx, tiny.blockId("late"));
      await Promise.resolve();
    });
    for (const each of [holder, session]) each.vanish();
    const plan = await planCollection(tiny.context, { abandon: true });
    assert.deepEqual([plan.total.blocks, plan.total.nodes], [4, 1]);
    const result = await collectGarbage(tiny.context, { abandon: true });
    assert.deepEqual([result.blocksRemoved, result.nodesRemoved], [4, 1]);
    assert.equal(result.bytesFreed, plan.total.storedBytes);
  });

  it("leaves out what a running backup brings", async () => {
    const tiny = await openTiny();
    const { uid } = await tiny.backup(["a", "b"]);
    const away = await tiny.start({ storages: [1], quorum: 1 });
    void away;
    tiny.store(1).away = true;
    const other = await tiny.backup(["c"], { storages: [0] });
    tiny.store(1).away = false;
    const session = await tiny.start({ storages: [1] });
    await session.claim("block", tiny.blockId("c"), 64);
    assert.equal((await planRemoval(tiny.repo, [other.uid])).total.blocks, 0);
    assert.equal((await planRemoval(tiny.repo, [uid])).total.blocks, 2);
  });

  it("equals what is freed, for random versions and removals", async () => {
    for (let seed = 1; seed <= 12; seed += 1) {
      const tiny = await openTiny({ seed, storages: 2 });
      const { random } = tiny.shared;
      const uids: VersionUid[] = [];
      let blocks: TinyBlock[] = Array.from({ length: 520 }, (_, at) =>
        at < 40 ? `b${at}` : undefined,
      );
      for (let round = 0; round < 6; round += 1) {
        blocks = blocks.map((block, at) => {
          if (at >= 60 && at < 500) return block;
          const dice = random.below(10);
          if (dice === 0) return undefined;
          return dice === 1 ? `r${random.below(30)}` : block;
        });
        // What is known somewhere is known at the first: a tree whose parts are apart would have to be brought together.
        const storages = random.below(2) === 0 ? [0, 1] : [0];
        uids.push((await tiny.backup(blocks, { storages })).uid);
      }
      while (uids.length > 0) {
        const count = 1 + random.below(Math.min(3, uids.length));
        const chosen = Array.from(
          { length: count },
          () => uids.splice(random.below(uids.length), 1)[0] as VersionUid,
        );
        await removeAsPlanned(tiny, chosen);
        await assertExact(tiny);
      }
    }
  });
});
