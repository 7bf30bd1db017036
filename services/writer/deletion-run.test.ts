import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { queueTrash } from "#lib/repository/ledger.ts";
import { key } from "#lib/repository/keyspace.ts";
import { readStamps } from "#lib/repository/transactions/storage.ts";
import { removeVersion } from "#lib/repository/transactions/version.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { collect } from "#services/coordinator/collection.ts";
import { assertExact, objectsAt } from "#test/fixtures/tiny-checks.ts";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { openTiny, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import { runDeletions } from "./deletion-run.ts";
import { checkStamps, guardStorages } from "./guard.ts";
import { putOwedHeads } from "./heads.ts";

/** A repository with one version left and one removed and collected, its objects in trash. */
async function withTrash(storages = 1): Promise<TinyRepository> {
  const tiny = await openTiny({ storages });
  await tiny.backup(["a", "b"]);
  const { uid } = await tiny.backup(["b", "c"]);
  await removeVersion(tiny.kv, uid);
  await putOwedHeads(tiny.repo);
  await collect(tiny.kv);
  return tiny;
}

const refused = (error: unknown): boolean => isErrorCode(error, ErrorCode.Refused);

describe("runDeletions", () => {
  it("deletes trash, and nothing else", async () => {
    const tiny = await withTrash();
    const outcome = await runDeletions(tiny.repo, tiny.id(0));
    // A block, a leaf, and the heads of the removed version: its first and its last revision.
    assert.deepEqual(
      { ...outcome, storage: undefined },
      {
        storage: undefined,
        run: 1,
        headsPut: 0,
        deleted: 4,
        waiting: 0,
        failed: 0,
        reason: undefined,
      },
    );
    await assertExact(tiny);
  });

  it("shows a confirmed stamp before anything goes", async () => {
    const tiny = await withTrash();
    let stamps: string[] = [];
    tiny.store(0).faults = {
      before: async ({ kind }): Promise<BlobFault> => {
        if (kind === "delete" && stamps.length === 0) {
          stamps = [...tiny.store(0).objects.keys()].filter((name) => name.startsWith("stamps/"));
          const known = await readStamps(tiny.kv, tiny.id(0));
          assert.deepEqual([...known], [[stamps[0], { run: 1, confirmed: true }]]);
        }
        return "none";
      },
    };
    await runDeletions(tiny.repo, tiny.id(0));
    assert.equal(stamps.length, 1);
  });

  it("leaves the trash of its own run to the next one", async () => {
    const tiny = await openTiny({ storages: 1 });
    tiny.store(0).objects.set("blocks/late", Buffer.of(1));
    tiny.store(0).faults = {
      after: async ({ kind, name }) => {
        if (kind !== "put" || !name.startsWith("stamps/")) return;
        await tiny.kv.transact((tx) => queueTrash(tx, tiny.id(0), "blocks/late"));
      },
    };
    assert.equal((await runDeletions(tiny.repo, tiny.id(0))).deleted, 0);
    tiny.store(0).faults = {};
    assert.equal((await runDeletions(tiny.repo, tiny.id(0))).deleted, 1);
  });

  it("deletes as many batches at once as the storage may be asked to, and no more", async () => {
    const tiny = await openTiny({ storages: 1 });
    const names = Array.from({ length: 1000 }, (_, index) => `blocks/late${index}`);
    for (const name of names) tiny.store(0).objects.set(name, Buffer.of(1));
    await tiny.kv.transact(async (tx) => {
      for (const name of names) await queueTrash(tx, tiny.id(0), name);
    });
    let underWay = 0;
    let most = 0;
    tiny.store(0).faults = {
      // A batch is deleted name by name.
      before: async ({ kind }): Promise<BlobFault> => {
        if (kind !== "delete") return "none";
        underWay += 1;
        most = Math.max(most, underWay);
        await setImmediate();
        underWay -= 1;
        return "none";
      },
    };
    const { deleted } = await runDeletions(tiny.repo, tiny.id(0));
    assert.equal(deleted, names.length);
    assert.equal(most, tiny.repo.storages.removalsMax(tiny.id(0)));
    await assertExact(tiny);
  });

  it("keeps an entry that was written again while its object was deleted", async () => {
    const tiny = await openTiny({ storages: 1 });
    const requeue = (): Promise<void> =>
      tiny.kv.transact((tx) => queueTrash(tx, tiny.id(0), "blocks/late"));
    await requeue();
    tiny.store(0).faults = {
      after: async ({ kind }) => {
        if (kind !== "delete") return;
        // A put of that name arrives late, and its writer finds it unnamed.
        tiny.store(0).objects.set("blocks/late", Buffer.of(1));
        await requeue();
      },
    };
    await runDeletions(tiny.repo, tiny.id(0));
    tiny.store(0).faults = {};
    await runDeletions(tiny.repo, tiny.id(0));
    assert.equal(tiny.store(0).objects.has("blocks/late"), false);
  });

  it("may stop after every step and be run again", async () => {
    for (let stop = 1; ; stop += 1) {
      const tiny = await withTrash();
      let calls = 0;
      const crash = (): void => {
        calls += 1;
        if (calls === stop) throw new Error("killed");
      };
      tiny.store(0).faults = { before: () => (crash(), "none"), after: crash };
      let finished = false;
      try {
        const { failed } = await runDeletions(tiny.repo, tiny.id(0));
        finished = failed === 0;
      } catch (error) {
        assert.match((error as Error).message, /killed/);
      }
      tiny.store(0).faults = {};
      await runDeletions(tiny.reopen().repo, tiny.id(0));
      await assertExact(tiny);
      if (finished) return;
      assert.ok(stop < 100);
    }
  });

  it("refuses where the metadata were put back, and deletes nothing", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a"]);
    const old = await tiny.clone();
    await tiny.backup(["b"]);
    await removeVersion(old.kv, uid);
    await collect(old.kv);
    const before = objectsAt(tiny, 0);
    await assert.rejects(runDeletions(old.repo, tiny.id(0)), refused);
    assert.deepEqual(objectsAt(tiny, 0), before);
  });

  /** A version that is removed and collected, and a clone that has looked at the storage before and still has it. */
  async function withClone(): Promise<{ tiny: TinyRepository; clone: TinyRepository }> {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a"]);
    const clone = await tiny.clone();
    await guardStorages(clone.repo, clone.shared.ids);
    await removeVersion(tiny.kv, uid);
    await putOwedHeads(tiny.repo);
    await collect(tiny.kv);
    return { tiny, clone };
  }

  /** The clone relies on what is in trash, puts its head, and looks at the stamps before it acknowledges. */
  async function acknowledge(clone: TinyRepository): Promise<void> {
    const session = await clone.start();
    const { uid } = await session.finish(await session.bringTree(["a"]), 1);
    const [heads] = await putOwedHeads(clone.repo, { uid });
    assert.equal(heads?.put, 1);
    await checkStamps(clone.repo, clone.shared.ids);
  }

  it("sees the head of a clone that has acknowledged", async () => {
    const { tiny, clone } = await withClone();
    await acknowledge(clone);
    const before = objectsAt(tiny, 0);
    await assert.rejects(runDeletions(tiny.repo, tiny.id(0)), refused);
    assert.deepEqual(objectsAt(tiny, 0), before);
  });

  it("shows its stamp to a clone whose head it has not seen", async () => {
    for (const moment of ["list", "delete"]) {
      const { tiny, clone } = await withClone();
      let met = false;
      tiny.store(0).faults = {
        after: async ({ kind, name }) => {
          if (met || kind !== moment || !(moment === "delete" || name === "heads/")) return;
          // The first look at the heads is the guard's, before the stamp.
          if (![...tiny.store(0).objects.keys()].some((at) => at.startsWith("stamps/"))) return;
          met = true;
          await assert.rejects(acknowledge(clone), refused);
        },
      };
      await runDeletions(tiny.repo, tiny.id(0));
      assert.ok(met);
    }
  });

  it("refuses where the storage was put back", async () => {
    const tiny = await withTrash();
    const old = tiny.store(0).snapshot();
    await runDeletions(tiny.repo, tiny.id(0));
    tiny.store(0).restore(old);
    await tiny.kv.transact((tx) => queueTrash(tx, tiny.id(0), "blocks/any"));
    await assert.rejects(runDeletions(tiny.repo, tiny.id(0)), refused);
  });

  it("puts owed heads first, and deletes nothing when one could not be put", async () => {
    const tiny = await withTrash();
    const session = await tiny.start();
    await session.finish(await session.bringTree(["d"]), 1);
    tiny.store(0).faults = {
      before: ({ kind, name }) => (kind === "put" && name.startsWith("heads/") ? "late" : "none"),
      landing: () => Promise.reject(new Error("it never does")),
    };
    const held = await runDeletions(tiny.repo, tiny.id(0));
    assert.equal(held.deleted, 0);
    assert.match(held.reason ?? "", /does not answer/);
    tiny.store(0).faults = {};
    const outcome = await runDeletions(tiny.repo, tiny.id(0));
    assert.deepEqual([outcome.headsPut, outcome.deleted], [1, 4]);
  });

  it("deletes nothing where a head's root is not held", async () => {
    const tiny = await withTrash();
    const { uid, root } = await tiny.backup(["e"]);
    assert.ok(root !== undefined);
    await tiny.kv.transact(async (tx) => {
      tx.clear(key.block(root));
      await Promise.resolve();
    });
    const outcome = await runDeletions(tiny.repo, tiny.id(0));
    assert.equal(outcome.deleted, 0);
    assert.match(outcome.reason ?? "", new RegExp(uid));
    assert.match(outcome.reason ?? "", /rebuild/);
  });

  it("decides nothing by a listing that lacks its own stamp, or that may lag", async () => {
    const tiny = await withTrash();
    const store = tiny.store(0);
    const list = store.list.bind(store);
    store.list = async function* lagging(prefix, options) {
      for await (const entry of list(prefix, options)) {
        if (!entry.name.startsWith("stamps/")) yield entry;
      }
    };
    const outcome = await runDeletions(tiny.repo, tiny.id(0));
    assert.equal(outcome.deleted, 0);
    assert.match(outcome.reason ?? "", /own stamp/);
    Object.assign(store, { list, capabilities: { createOnly: true, consistentListing: false } });
    const lagging = await runDeletions(tiny.repo, tiny.id(0));
    assert.deepEqual([lagging.run, lagging.deleted], [undefined, 0]);
    assert.match(lagging.reason ?? "", /lag/);
  });

  it("leaves a storage alone that is away, and reports what could not be deleted", async () => {
    const tiny = await withTrash();
    tiny.store(0).away = true;
    assert.match((await runDeletions(tiny.repo, tiny.id(0))).reason ?? "", /away/);
    tiny.store(0).away = false;
    tiny.store(0).faults = {
      before: ({ kind, name }) => {
        if (kind === "delete" && name.startsWith("blocks/")) throw new Error("no permission");
        return "none";
      },
    };
    const outcome = await runDeletions(tiny.repo, tiny.id(0));
    assert.deepEqual([outcome.deleted, outcome.failed], [3, 1]);
    assert.match(outcome.reason ?? "", /no permission/);
    tiny.store(0).faults = {};
    assert.equal((await runDeletions(tiny.repo, tiny.id(0))).deleted, 1);
    await assertExact(tiny);
  });

  it("never leaves an older head of a removed version without its last revision", async () => {
    const tiny = await withTrash();
    tiny.store(0).faults = {
      before: ({ kind, name }) => {
        if (kind === "delete" && /^heads\/[0-9a-f]+\.1\./.test(name)) throw new Error("stuck");
        return "none";
      },
    };
    await runDeletions(tiny.repo, tiny.id(0));
    const left = objectsAt(tiny, 0).filter((name) => name.startsWith("heads/"));
    assert.equal(left.filter((name) => /\.2\./.test(name)).length, 1);
    tiny.store(0).faults = {};
    await runDeletions(tiny.repo, tiny.id(0));
    await assertExact(tiny);
  });

  it("leaves trash alone that is written for a name after a power failure lost the removal", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a"]);
    await removeVersion(tiny.kv, uid);
    await putOwedHeads(tiny.repo);
    await collect(tiny.kv);
    // The run flushes before its stamp, so a power failure at its first delete cannot bring the record back.
    tiny.store(0).faults = {
      before: ({ kind }) => {
        if (kind === "delete") tiny.kv.losePower();
        return "none";
      },
    };
    await runDeletions(tiny.repo, tiny.id(0));
    tiny.store(0).faults = {};
    await collectGarbage(tiny.context);
    await assertExact(tiny);
    assert.deepEqual(objectsAt(tiny, 0), []);
  });
});
