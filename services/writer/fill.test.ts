import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { oweChildren } from "#lib/repository/transactions/fill.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import { markBad } from "#lib/repository/transactions/verify.ts";
import {
  allRecords,
  assertClosed,
  assertExact,
  objectsAt,
  restoreFrom,
} from "#test/fixtures/tiny-checks.ts";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { openTiny, type TinyBlock, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import { runDeletions } from "./deletion-run.ts";
import { fillOwed } from "./fill.ts";

/** Enough for a tree of two levels. */
const MANY: TinyBlock[] = Array.from({ length: 600 }, (_, at) =>
  at % 3 === 1 ? undefined : `b${at}`,
);

/** A version that storage 1 missed; it is there again. */
async function missed(blocks: TinyBlock[], tiny?: TinyRepository): Promise<TinyRepository> {
  const at = tiny ?? (await openTiny());
  at.store(1).away = true;
  await at.backup(blocks);
  at.store(1).away = false;
  return at;
}

describe("fillOwed", () => {
  it("brings a whole tree, children before parents, and then the head", async () => {
    const tiny = await openTiny();
    tiny.store(1).away = true;
    const { uid } = await tiny.backup(MANY);
    tiny.store(1).away = false;
    const kinds: string[] = [];
    tiny.store(1).faults = {
      before: ({ kind, name }) => {
        if (kind === "put") kinds.push(name.slice(0, 5));
        return "none";
      },
      after: () => assertClosed(tiny),
    };
    const filled = await fillOwed(tiny.repo, tiny.id(1));
    assert.deepEqual(
      [filled.filled, filled.owed, filled.headsPut, filled.reason],
      [404, 0, 1, undefined],
    );
    assert.equal(filled.filled, 400 + 4);
    assert.equal(kinds.at(-1), "heads");
    assert.deepEqual(restoreFrom(tiny, 1, uid), MANY);
    await assertExact(tiny);
  });

  it("copies the sealed bytes as they are, under the name that the record gives here", async () => {
    const tiny = await missed(["a"]);
    await fillOwed(tiny.repo, tiny.id(1));
    const id = tiny.blockId("a");
    const at0 = tiny.store(0).objects.get(await tiny.nameAt(id, 0));
    const at1 = tiny.store(1).objects.get(await tiny.nameAt(id, 1));
    assert.deepEqual(at1, at0);
  });

  it("owes the whole subtree to a storage that comes to a version by its root alone", async () => {
    const tiny = await openTiny({ storages: 3 });
    await tiny.backup(["x", "b0"], { storages: [2] });
    // Shared with another policy: known at the quorum, so only the root is owed to storage 1.
    await tiny.backup(MANY, { storages: [0] });
    const { uid } = await tiny.backup(MANY, { storages: [0, 1] });
    const filled = await fillOwed(tiny.repo, tiny.id(1));
    assert.equal(filled.owed, 0);
    assert.deepEqual(restoreFrom(tiny, 1, uid), MANY);
    await assertClosed(tiny);
  });

  it("takes an object that an earlier try left, after reading it, and replaces a broken one", async () => {
    for (const broken of [false, true]) {
      const tiny = await missed(["a"]);
      const id = tiny.blockId("a");
      const record = await tiny.record(id);
      const owed = record?.copies.find(({ state }) => state === "owed");
      const name = `blocks/${id}.${owed?.generation}`;
      const sealed = tiny.repo.sealer.seal({ kind: "block", id, plain: tiny.plain("a") });
      tiny.store(1).objects.set(name, sealed);
      if (broken) tiny.damage(1, name);
      const gets: string[] = [];
      tiny.store(0).faults = {
        before: ({ kind, name: read }) => {
          if (kind === "get" && read.startsWith("blocks/")) gets.push(read);
          return "none";
        },
      };
      await fillOwed(tiny.repo, tiny.id(1));
      assert.equal(gets.length, broken ? 1 : 0);
      assert.equal(await tiny.states(id), "placed placed");
      assert.doesNotThrow(() =>
        tiny.repo.sealer.open({
          kind: "block",
          id,
          sealed: tiny.store(1).objects.get(name) as Buffer,
        }),
      );
    }
  });

  it("never places what does not open: a damaged source is judged, another one asked", async () => {
    const tiny = await openTiny({ storages: 3 });
    tiny.store(2).away = true;
    const { uid } = await tiny.backup(["a", "b"]);
    tiny.store(2).away = false;
    const id = tiny.blockId("a");
    tiny.damage(0, await tiny.nameAt(id, 0));
    tiny.store(1).objects.delete(await tiny.nameAt(tiny.blockId("b"), 1));
    const filled = await fillOwed(tiny.repo, tiny.id(2));
    assert.equal(filled.owed, 0);
    assert.ok(filled.damaged.length >= 1);
    assert.deepEqual(restoreFrom(tiny, 2, uid), ["a", "b"]);
    for (const { storage, id: bad } of filled.damaged) {
      const states = (await tiny.record(bad))?.copies
        .filter((copy) => copy.storage === storage)
        .map(({ state }) => state);
      assert.deepEqual(states?.toSorted(), ["bad", "owed"]);
    }
  });

  it("does not judge an object that was swapped by its record having moved on", async () => {
    const tiny = await openTiny();
    await tiny.backup(["a", "b"]);
    const [a, b] = [tiny.blockId("a"), tiny.blockId("b")];
    const { objects } = tiny.store(0);
    const [nameA, nameB] = [await tiny.nameAt(a, 0), await tiny.nameAt(b, 0)];
    const [bytesA, bytesB] = [objects.get(nameA) as Buffer, objects.get(nameB) as Buffer];
    objects.set(nameA, bytesB);
    objects.set(nameB, bytesA);
    const copy = (await tiny.record(a))?.copies.find(({ storage }) => storage === tiny.id(1));
    assert.ok(copy !== undefined);
    await markBad(tiny.kv, tiny.repo.random, {
      id: a,
      storage: tiny.id(1),
      generation: copy.generation,
    });
    const filled = await fillOwed(tiny.repo, tiny.id(1));
    assert.match(filled.reason ?? "", /another object in its place/);
    assert.equal(await tiny.states(a), "bad+owed bad+owed");
  });

  it("does not judge a copy that the record no longer names as placed", async () => {
    const tiny = await missed(["a"]);
    const id = tiny.blockId("a");
    const copy = (await tiny.record(id))?.copies.find(({ storage }) => storage === tiny.id(0));
    assert.ok(copy !== undefined);
    tiny.store(0).faults = {
      before: async ({ kind, name }): Promise<BlobFault> => {
        if (kind !== "get" || !name.startsWith("blocks/")) return "none";
        // Somebody else judges it first, and its object vanishes.
        tiny.store(0).faults = {};
        await markBad(tiny.kv, tiny.repo.random, {
          id,
          storage: tiny.id(0),
          generation: copy.generation,
        });
        tiny.store(0).objects.delete(name);
        return "none";
      },
    };
    const filled = await fillOwed(tiny.repo, tiny.id(1));
    assert.deepEqual(filled.damaged, []);
    assert.equal(filled.owed > 0, true);
  });

  it("stops at a target that is away or full, says why, and goes on later", async () => {
    const tiny = await missed(MANY);
    let puts = 0;
    tiny.store(1).faults = {
      before: ({ kind }) => {
        if (kind === "put") puts += 1;
        if (puts > 20) tiny.store(1).away = true;
        return "none";
      },
    };
    const stopped = await fillOwed(tiny.repo, tiny.id(1));
    assert.match(stopped.reason ?? "", /away/);
    assert.ok(stopped.filled >= 10 && stopped.owed > 0);
    tiny.store(1).faults = {};
    assert.match((await fillOwed(tiny.repo, tiny.id(1))).reason ?? "", /away/);
    tiny.store(1).away = false;
    assert.equal((await fillOwed(tiny.repo, tiny.id(1))).owed, 0);
    assert.equal((await fillOwed(tiny.repo, tiny.id(1))).reason, undefined);
  });

  it("skips a source that is away and fills the rest when it is there", async () => {
    const tiny = await missed(["a"]);
    tiny.store(0).away = true;
    const skipped = await fillOwed(tiny.repo, tiny.id(1));
    assert.equal(skipped.filled, 0);
    assert.match(skipped.reason ?? "", /s0: .*away/);
    assert.deepEqual(skipped.damaged, []);
    tiny.store(0).away = false;
    assert.equal((await fillOwed(tiny.repo, tiny.id(1))).owed, 0);
  });

  it("gives nothing new to a readonly storage, and nothing to one that does not know the metadata", async () => {
    const tiny = await missed(["a"]);
    await tiny.setState(1, "readonly");
    assert.match((await fillOwed(tiny.repo, tiny.id(1))).reason ?? "", /readonly/);
    await tiny.setState(1, "in-use");
    const old = await tiny.clone();
    await fillOwed(tiny.repo, tiny.id(1));
    await assert.rejects(fillOwed(old.repo, tiny.id(1)), (error) =>
      isErrorCode(error, ErrorCode.Refused),
    );
  });

  it("may be killed after every put and every transaction, and be run again", async () => {
    for (let stop = 1; ; stop += 3) {
      const tiny = await missed(["a", "b", "c"]);
      let calls = 0;
      const crash = (): void => {
        calls += 1;
        if (calls === stop) throw new Error("killed");
      };
      tiny.store(1).faults = { before: () => (crash(), "none"), after: crash };
      let finished = false;
      try {
        await fillOwed(tiny.repo, tiny.id(1));
        finished = true;
      } catch (error) {
        assert.match((error as Error).message, /killed/);
      }
      tiny.store(1).faults = {};
      await assertClosed(tiny);
      const again = tiny.reopen();
      await fillOwed(again.repo, tiny.id(1));
      await runDeletions(again.repo, tiny.id(1));
      await assertExact(tiny);
      if (finished) return;
      assert.ok(stop < 300);
    }
  });

  it("puts what is no longer named into trash", async () => {
    const tiny = await missed(["a"]);
    const id = tiny.blockId("a");
    tiny.store(1).faults = {
      before: async ({ kind, name }): Promise<BlobFault> => {
        if (kind !== "put" || !name.startsWith("blocks/")) return "none";
        tiny.store(1).faults = {};
        // A backup brings the block itself, under a new name: what was owed is replaced, and its trash is emptied before
        // the put arrives.
        const session = await tiny.start({ storages: [1] });
        await session.bringBlock("a");
        await session.die();
        assert.equal((await runDeletions(tiny.repo, tiny.id(1))).deleted, 1);
        return "none";
      },
    };
    await fillOwed(tiny.repo, tiny.id(1));
    assert.equal(await tiny.states(id), "placed placed");
    await runDeletions(tiny.repo, tiny.id(1));
    const names = objectsAt(tiny, 1).filter((name) => name.includes(id));
    assert.deepEqual(names, [await tiny.nameAt(id, 1)]);
  });

  it("lifts the marks that a repair makes untrue", async () => {
    const tiny = await openTiny();
    tiny.store(1).away = true;
    const { uid } = await tiny.backup(["a"]);
    tiny.store(1).away = false;
    await fillOwed(tiny.repo, tiny.id(1));
    const id = tiny.blockId("a");
    for (const { storage, generation } of (await tiny.record(id))?.copies ?? []) {
      await markBad(tiny.kv, tiny.repo.random, { id, storage, generation });
    }
    await drainRechecks(tiny.kv);
    assert.equal((await tiny.version(uid))?.state, "invalid");
    // The next backup that has the content repairs it.
    await tiny.backup(["a", "new"], { storages: [0] });
    await fillOwed(tiny.repo, tiny.id(1));
    await drainRechecks(tiny.kv);
    assert.equal((await tiny.version(uid))?.state, "valid");
    assert.equal(
      [...(await allRecords(tiny)).values()].some(({ damaged }) => damaged),
      false,
    );
  });

  it("owes what was coming from a session that is gone", async () => {
    const tiny = await openTiny();
    // A node over a block that is placed at storage 0 only.
    const { root } = await tiny.backup(["a"], { storages: [0] });
    assert.ok(root !== undefined);
    const second = await tiny.start({ storages: [1] });
    const id = tiny.blockId("a");
    await second.claim("block", id, 64);
    await second.die();
    await tiny.backup(["a"], { storages: [0, 1] });
    assert.equal(await tiny.states(id), "placed coming");
    const filled = await fillOwed(tiny.repo, tiny.id(1));
    assert.equal(filled.owed, 0);
    assert.equal(await tiny.states(id), "placed placed");
    assert.deepEqual(await oweChildren(tiny.kv, tiny.repo.random, root, tiny.id(1)), {
      missing: 0,
      added: 0,
    });
  });
});
