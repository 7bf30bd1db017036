import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BlockId } from "#lib/core/ids.ts";
import { listVerify } from "#lib/repository/transactions/verify.ts";
import { removeVersion } from "#lib/repository/transactions/version.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { allRecords, assertExact, restoreFrom } from "#test/fixtures/tiny-checks.ts";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { openTiny, type TinyBlock, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import { findBlastRadius } from "./blast-radius.ts";

const MANY: TinyBlock[] = Array.from({ length: 600 }, (_, at) => `b${at}`);

/** Reads of objects, by name. */
function countReads(tiny: TinyRepository, index: number): Map<string, number> {
  const reads = new Map<string, number>();
  tiny.store(index).faults = {
    before: ({ kind, name }) => {
      if (kind === "get") reads.set(name, (reads.get(name) ?? 0) + 1);
      return "none";
    },
  };
  return reads;
}

const order = async (tiny: TinyRepository, index: number): Promise<BlockId[]> =>
  (await listVerify(tiny.kv, tiny.id(index), undefined, 10_000)).copies.map(({ id }) => id);

describe("scrub", () => {
  it("reads every copy once in a cycle, whatever the clock does", async () => {
    for (const jump of [0, -86_400_000, 86_400_000]) {
      const tiny = await openTiny({ storages: 1 });
      await tiny.backup(["a", "b", "c"]);
      const { clock } = tiny.shared;
      clock.setNow(clock.now() + jump);
      for (let cycle = 1; cycle <= 2; cycle += 1) {
        const reads = countReads(tiny, 0);
        const result = await tiny.context.upkeep.scrub({ deep: true });
        assert.deepEqual([...reads.values()], [1, 1, 1, 1]);
        assert.equal(result.storages[0]?.checked, 4);
        assert.deepEqual(result.damaged, []);
      }
    }
  });

  it("starts with the oldest verification, and goes on where its budget ended", async () => {
    const tiny = await openTiny({ storages: 1, blockBytes: 2_000_000 });
    await tiny.backup(MANY.slice(0, 40));
    await tiny.shared.clock.advance(1000);
    const before = await order(tiny, 0);
    const first = await tiny.context.upkeep.scrub({ deep: true, budget: { bytes: 2000 } });
    assert.ok(first.budgetSpent);
    const done = first.storages[0]?.checked ?? 0;
    assert.ok(done > 0 && done < 41, `${done} of 41`);
    const seen = new Set(before.slice(0, done));
    assert.deepEqual(
      (await order(tiny, 0)).slice(0, 41 - done).filter((id) => seen.has(id)),
      [],
    );
    const reads = countReads(tiny, 0);
    await tiny.context.upkeep.scrub({ deep: true, budget: { bytes: 1 } });
    assert.equal(reads.size, 1, "what is under way counts");
    const [name] = reads.keys();
    assert.ok(name?.includes(before[done] as string));
  });

  it("stops when its time is up", async () => {
    const tiny = await openTiny({ storages: 1, blockBytes: 2_000_000 });
    await tiny.backup(MANY.slice(0, 40));
    tiny.store(0).faults = {
      before: async ({ kind }): Promise<BlobFault> => {
        if (kind === "get") await tiny.shared.clock.advance(1000);
        return "none";
      },
    };
    const result = await tiny.context.upkeep.scrub({ deep: true, budget: { ms: 1500 } });
    assert.ok(result.budgetSpent);
    assert.ok((result.storages[0]?.checked ?? 0) < 20);
  });

  it("finds a flipped bit, a cut, a swapped and a missing object, heals them, and names what they hit", async () => {
    const tiny = await openTiny();
    const { uid } = await tiny.backup(["a", "b", "c", "d", "a", undefined, "e"]);
    const { objects } = tiny.store(0);
    const names = await Promise.all(
      ["a", "b", "c", "d"].map((text) => tiny.nameAt(tiny.blockId(text), 0)),
    );
    const [a, b, c, d] = names as [string, string, string, string];
    tiny.damage(0, a);
    objects.set(b, (objects.get(b) as Buffer).subarray(0, 100));
    objects.set(c, objects.get(await tiny.nameAt(tiny.blockId("e"), 0)) as Buffer);
    objects.delete(d);
    const result = await tiny.context.upkeep.scrub({ deep: true });
    const told = new Map(result.damaged.map((one) => [one.name, one]));
    assert.deepEqual([...told.keys()].toSorted(), names.toSorted());
    assert.match(told.get(a)?.reason ?? "", /checksum/);
    assert.match(told.get(b)?.reason ?? "", /truncated/);
    assert.match(told.get(c)?.reason ?? "", /another object in its place/);
    assert.match(told.get(d)?.reason ?? "", /missing/);
    assert.ok(
      result.damaged.every(
        ({ healed, kind, storage }) => healed && kind === "block" && storage === tiny.id(0),
      ),
    );
    assert.deepEqual(told.get(a)?.versions, [{ uid, offsets: [0, 256], length: 64, more: false }]);
    assert.deepEqual(told.get(d)?.versions, [{ uid, offsets: [192], length: 64, more: false }]);
    assert.deepEqual(restoreFrom(tiny, 1, uid), restoreFrom(tiny, 1, uid));
    assert.deepEqual((await tiny.context.upkeep.scrub({ deep: true })).damaged, []);
    await collectGarbage(tiny.context);
    await assertExact(tiny);
    assert.deepEqual(restoreFrom(tiny, 0, uid), ["a", "b", "c", "d", "a", undefined, "e"]);
  });

  it("heals nodes", async () => {
    const tiny = await openTiny();
    const { uid, root } = await tiny.backup(MANY);
    assert.ok(root !== undefined);
    tiny.damage(1, await tiny.nameAt(root, 1));
    const result = await tiny.context.upkeep.scrub({ deep: true });
    const [one] = result.damaged;
    assert.deepEqual([one?.kind, one?.healed], ["node", true]);
    assert.deepEqual(one?.versions, [{ uid, offsets: [0], length: 65_536 * 64, more: false }]);
    await collectGarbage(tiny.context);
    assert.deepEqual(restoreFrom(tiny, 1, uid), MANY);
  });

  it("marks versions invalid when no copy is left, and valid when a false alarm verifies", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a", "b"]);
    const id = tiny.blockId("a");
    const name = await tiny.nameAt(id, 0);
    const bytes = tiny.store(0).objects.get(name) as Buffer;
    tiny.store(0).objects.delete(name);
    const first = await tiny.context.upkeep.scrub({ deep: true });
    assert.deepEqual(
      first.damaged.map(({ healed }) => healed),
      [false],
    );
    assert.equal((await tiny.version(uid))?.state, "invalid");
    assert.equal(await tiny.states(id), "bad+owed");
    // Still bad: told again, shallow or deep.
    assert.equal((await tiny.context.upkeep.scrub({ deep: false })).damaged.length, 1);
    assert.equal((await tiny.context.upkeep.scrub({ deep: true })).damaged.length, 1);
    await collectGarbage(tiny.context);
    // It was never deleted, and comes back: only a cable.
    tiny.store(0).objects.set(name, bytes);
    const again = await tiny.context.upkeep.scrub({ deep: true });
    assert.deepEqual(again.damaged, []);
    assert.equal(again.storages[0]?.restored, 1);
    assert.equal(await tiny.states(id), "placed");
    assert.equal((await tiny.version(uid))?.state, "valid");
    await collectGarbage(tiny.context);
    await assertExact(tiny);
  });

  it("never judges by a storage that is away", async () => {
    const tiny = await openTiny();
    await tiny.backup(["a", "b"]);
    tiny.store(1).faults = {
      before: ({ kind }) => {
        if (kind === "get") tiny.store(1).away = true;
        return "none";
      },
    };
    const result = await tiny.context.upkeep.scrub({ deep: true });
    assert.deepEqual(result.damaged, []);
    assert.deepEqual(
      result.storages.map(({ checked }) => checked),
      [3, 0],
    );
    assert.match(result.storages[1]?.reason ?? "", /away/);
    assert.equal(
      [...(await allRecords(tiny)).values()].every(({ copies }) =>
        copies.every(({ state }) => state === "placed"),
      ),
      true,
    );
    tiny.store(1).faults = {};
    assert.match(
      (await tiny.context.upkeep.scrub({ deep: false })).storages[1]?.reason ?? "",
      /away/,
    );
  });

  it("does not judge what was removed and deleted while it was read", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a"]);
    const other = tiny.reopen();
    let busy = false;
    tiny.store(0).faults = {
      before: async ({ kind }): Promise<BlobFault> => {
        if (kind !== "get" || busy) return "none";
        busy = true;
        await removeVersion(tiny.kv, uid);
        await collectGarbage(other.context);
        return "none";
      },
    };
    const result = await tiny.context.upkeep.scrub({ deep: true });
    assert.deepEqual(result.damaged, []);
    assert.equal(tiny.store(0).objects.size, 1, "a stamp");
  });

  it("shallow: finds what is missing or cut, and leaves the queue to the deep one", async () => {
    const tiny = await openTiny();
    await tiny.backup(["a", "b", "c"]);
    await tiny.shared.clock.advance(1000);
    const queue = () => listVerify(tiny.kv, tiny.id(0), undefined, 100);
    const before = await queue();
    const { objects } = tiny.store(0);
    const [b, c] = [
      await tiny.nameAt(tiny.blockId("b"), 0),
      await tiny.nameAt(tiny.blockId("c"), 0),
    ];
    assert.deepEqual((await tiny.context.upkeep.scrub({ deep: false })).damaged, []);
    assert.deepEqual(await queue(), before);
    objects.delete(b);
    objects.set(c, (objects.get(c) as Buffer).subarray(1));
    tiny.damage(0, await tiny.nameAt(tiny.blockId("a"), 0));
    const result = await tiny.context.upkeep.scrub({ deep: false });
    assert.deepEqual(result.damaged.map(({ name }) => name).toSorted(), [b, c].toSorted());
    assert.ok(result.damaged.every(({ healed }) => healed));
  });

  it("opens an object whose size is not the record's before it judges", async () => {
    const tiny = await openTiny({ storages: 1, blockBytes: 4096 });
    await tiny.backup(["a"]);
    const id = tiny.blockId("a");
    const name = await tiny.nameAt(id, 0);
    const { createSealer } = await import("#lib/repository/sealing.ts");
    const plain = tiny.plain("a");
    const other = createSealer(tiny.shared.keys, { compression: "lz4" }).seal({
      kind: "block",
      id,
      plain,
    });
    assert.notEqual(other.length, tiny.store(0).objects.get(name)?.length);
    tiny.store(0).objects.set(name, other);
    assert.deepEqual((await tiny.context.upkeep.scrub({ deep: false })).damaged, []);
  });

  it("scrubs single versions, each object once", async () => {
    const tiny = await openTiny({ storages: 1 });
    const one = await tiny.backup([...MANY, "b1", "b1"]);
    const two = await tiny.backup([...MANY, "x"]);
    await tiny.backup(["other"]);
    const reads = countReads(tiny, 0);
    const result = await tiny.context.upkeep.scrub({ deep: true, versions: [one.uid, two.uid] });
    // 600 blocks and x; five leaves, two of them shared, and two roots.
    assert.equal(result.storages[0]?.checked, 601 + 2 + 2 + 2);
    assert.ok([...reads.values()].every((count) => count === 1));
    assert.ok(![...reads.keys()].some((name) => name.includes(tiny.blockId("other"))));
    const shallow = await tiny.context.upkeep.scrub({ deep: false, versions: [one.uid] });
    assert.ok((shallow.storages[0]?.checked ?? 0) >= 604);
    // One that is removed while the scrub is under way is passed over.
    await removeVersion(tiny.kv, one.uid);
    await tiny.shared.clock.advance(1);
    const rest = await tiny.context.upkeep.scrub({ deep: false, versions: [one.uid, two.uid] });
    assert.ok((rest.storages[0]?.checked ?? 0) > 0);
  });

  it("samples, and takes the storages that it is given", async () => {
    const tiny = await openTiny();
    await tiny.backup(MANY);
    const result = await tiny.context.upkeep.scrub({
      deep: true,
      samplePercent: 10,
      storages: [tiny.id(1)],
    });
    assert.equal(result.storages.length, 1);
    const checked = result.storages[0]?.checked ?? 0;
    assert.ok(checked > 20 && checked < 130, `${checked}`);
  });

  it("reads objects whose record has a wrong size", async () => {
    const tiny = await openTiny({ storages: 1, blockBytes: 300_000 });
    // A slot has room for 4 MiB in all; the record is told that the block is tiny.
    Object.assign(tiny.repo.config, { blockBytes: 64 });
    const session = await tiny.start();
    const plain = Buffer.from(tiny.repo.random.bytes(3_000_000));
    const id = tiny.hasher.hashBlock(plain).toString("hex") as BlockId;
    const copies = await session.claim("block", id, 10);
    const put = await session.put("block", id, plain, copies ?? []);
    const { storeBlocks } = await import("#lib/repository/transactions/store.ts");
    await storeBlocks(tiny.kv, 1, [{ id, ...put }]);
    const result = await tiny.context.upkeep.scrub({ deep: true });
    assert.deepEqual([result.damaged.length, result.storages[0]?.checked], [0, 1]);
    tiny
      .store(0)
      .objects.set(
        put.done.map(({ generation }) => `blocks/${id}.${generation}`)[0] as string,
        Buffer.alloc(4_000_000),
      );
    assert.equal((await tiny.context.upkeep.scrub({ deep: true })).damaged.length, 1);
  });

  it("stops at its signal, and keeps what it has verified", async () => {
    const tiny = await openTiny({ storages: 1, blockBytes: 2_000_000 });
    await tiny.backup(MANY.slice(0, 20));
    const stop = new AbortController();
    let gets = 0;
    tiny.store(0).faults = {
      before: ({ kind }) => {
        if (kind === "get") gets += 1;
        if (gets === 8) stop.abort(new Error("stop"));
        return "none";
      },
    };
    const before = await order(tiny, 0);
    await assert.rejects(tiny.context.upkeep.scrub({ deep: true, signal: stop.signal }), /stop/);
    await tiny.verifying.stop();
    assert.notDeepEqual(await order(tiny, 0), before);
  });
});

describe("findBlastRadius", () => {
  it("tells every version and offset, through all levels", async () => {
    const tiny = await openTiny({ storages: 1 });
    const one = await tiny.backup([...MANY, "hit"]);
    const two = await tiny.backup(["hit", "x"]);
    const gone = await tiny.backup(["hit", "y"]);
    await removeVersion(tiny.kv, gone.uid);
    const radius = await findBlastRadius(tiny.kv, tiny.blockId("hit"), "block");
    assert.deepEqual(radius, {
      versions: [
        { uid: one.uid, offsets: [600 * 64], length: 64, more: false },
        { uid: two.uid, offsets: [0], length: 64, more: false },
      ],
      more: false,
    });
    assert.deepEqual(await findBlastRadius(tiny.kv, tiny.blockId("nowhere"), "block"), {
      versions: [],
      more: false,
    });
  });

  it("is bounded for a block that is everywhere", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(Array.from({ length: 1000 }, () => "same"));
    const radius = await findBlastRadius(tiny.kv, tiny.blockId("same"), "block");
    assert.equal(radius.versions.length, 1);
    assert.equal(radius.versions[0]?.uid, uid);
    assert.equal(radius.versions[0]?.offsets.length, 16);
    assert.equal(radius.versions[0]?.more, true);
  });

  it("sees the storages, and so does filling: neither asks for what a cache has kept", async () => {
    const tiny = await openTiny({ storages: 2 });
    await tiny.backup(["a", "b"]);
    const asked: (string | undefined)[] = [];
    for (const index of [0, 1]) {
      const store = tiny.store(index);
      const get = store.get.bind(store);
      store.get = (name, options) => {
        asked.push(options?.cached);
        return get(name, options);
      };
    }
    for (const name of tiny.store(0).objects.keys()) {
      if (name.startsWith("blocks/")) tiny.store(0).objects.set(name, Buffer.alloc(100));
    }
    const { damaged } = await tiny.context.upkeep.scrub({ deep: true });
    assert.deepEqual(
      damaged.map(({ healed }) => healed),
      [true, true],
    );
    assert.ok(asked.length >= 8, `${asked.length} reads`);
    assert.deepEqual(new Set(asked), new Set([undefined]));
  });
});
