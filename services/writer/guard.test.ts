import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { forgetStep, retireStorage } from "#lib/repository/transactions/retire.ts";
import { changeVersion } from "#lib/repository/transactions/version.ts";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { openTiny, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import { runDeletions } from "./deletion-run.ts";
import { checkStamps, guardStorages, inspectStorage } from "./guard.ts";
import { putOwedHeads } from "./heads.ts";

const suspects = async (tiny: TinyRepository, index = 0): Promise<readonly string[]> => {
  const inspection = await inspectStorage(tiny.repo, tiny.id(index));
  return inspection.kind === "suspect" ? inspection.problems : [];
};

const refused = (error: unknown): boolean => {
  assert.ok(error instanceof AshlarError && error.code === ErrorCode.Refused);
  assert.match(error.remedy ?? "", /rebuild --from memory:s0/);
  return true;
};

describe("guard", () => {
  it("finds nothing wrong in the ordinary course of things", async () => {
    const tiny = await openTiny();
    assert.deepEqual(await suspects(tiny), []);
    const { uid } = await tiny.backup(["a"]);
    await runDeletions(tiny.repo, tiny.id(0));
    await changeVersion(tiny.kv, uid, { labels: { a: "b" } });
    await putOwedHeads(tiny.repo);
    await runDeletions(tiny.repo, tiny.id(0));
    assert.deepEqual(await suspects(tiny.reopen()), []);
    const { ok } = await guardStorages(tiny.repo, tiny.shared.ids);
    assert.deepEqual(ok, tiny.shared.ids);
  });

  it("recognises metadata that were put back from an older copy", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(["a"]);
    const old = await tiny.clone();
    await tiny.backup(["b"]);
    assert.deepEqual(await suspects(old), ["metadata"]);
    await assert.rejects(guardStorages(old.repo, old.shared.ids), refused);
  });

  it("takes a storage that was removed for one that is away, whatever it shows", async () => {
    const tiny = await openTiny({ storages: 2 });
    await tiny.backup(["a", "b"]);
    await retireStorage(tiny.kv, tiny.id(0), true);
    while (await forgetStep(tiny.kv, tiny.id(0), (uid) => `heads/${uid}`));
    const { ok, away } = await guardStorages(tiny.repo, [tiny.id(0), tiny.id(1)]);
    assert.deepEqual(ok, [tiny.id(1)]);
    assert.match(String(away[0]?.error.message), /was removed from the repository/);
  });

  it("recognises metadata that were put back, by a stamp alone", async () => {
    const tiny = await openTiny({ storages: 1 });
    const old = await tiny.clone();
    await runDeletions(tiny.repo, tiny.id(0));
    assert.deepEqual(await suspects(old), ["metadata"]);
    await assert.rejects(checkStamps(old.repo, old.shared.ids), refused);
  });

  it("recognises a clone, whichever of the two comes second", async () => {
    const tiny = await openTiny({ storages: 1 });
    const clone = await tiny.clone();
    await clone.backup(["b"]);
    assert.deepEqual(await suspects(tiny), ["metadata"]);
    assert.deepEqual(await suspects(clone), []);
  });

  it("recognises a storage that was put back from an older copy", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(["a"]);
    const before = tiny.store(0).snapshot();
    await tiny.backup(["b"]);
    tiny.store(0).restore(before);
    assert.deepEqual(await suspects(tiny), ["storage"]);
    await assert.rejects(guardStorages(tiny.repo, tiny.shared.ids), refused);
  });

  it("recognises a storage that was put back, by a stamp alone", async () => {
    const tiny = await openTiny({ storages: 1 });
    const before = tiny.store(0).snapshot();
    await runDeletions(tiny.repo, tiny.id(0));
    tiny.store(0).restore(before);
    assert.deepEqual(await suspects(tiny), ["storage"]);
  });

  it("tells both when both went back", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(["a"]);
    const before = tiny.store(0).snapshot();
    const old = await tiny.clone();
    await old.backup(["b"]);
    const ofOld = tiny.store(0).snapshot();
    tiny.store(0).restore(before);
    await tiny.backup(["c"]);
    tiny.store(0).restore(ofOld);
    assert.deepEqual(await suspects(tiny), ["metadata", "storage"]);
  });

  it("looks up by name what a listing lacks", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(["a"]);
    const store = tiny.store(0);
    const list = store.list.bind(store);
    store.list = async function* lagging(prefix, options) {
      for await (const entry of list(prefix, options)) {
        if (!entry.name.startsWith("heads/")) yield entry;
      }
    };
    assert.deepEqual(await suspects(tiny), []);
  });

  it("does not miss a head that is replaced and deleted while it looks", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a"]);
    const other = tiny.reopen();
    let busy = false;
    tiny.store(0).faults = {
      before: async ({ kind, name }): Promise<BlobFault> => {
        if (kind !== "list" || name !== "heads/" || busy) return "none";
        busy = true;
        await changeVersion(tiny.kv, uid, { labels: { a: "b" } });
        await putOwedHeads(other.repo);
        await runDeletions(other.repo, tiny.id(0));
        return "none";
      },
    };
    assert.deepEqual(await suspects(tiny), []);
    assert.ok(busy);
  });

  it("knows heads and stamps that were put after it began", async () => {
    const tiny = await openTiny({ storages: 1 });
    const other = tiny.reopen();
    let busy = false;
    tiny.store(0).faults = {
      before: async ({ kind, name }): Promise<BlobFault> => {
        if (kind !== "list" || busy) return "none";
        busy = true;
        await other.backup(["b"]);
        await runDeletions(other.repo, tiny.id(0));
        void name;
        return "none";
      },
    };
    assert.deepEqual(await suspects(tiny), []);
  });

  it("does not suspect a storage that is away, nor one that goes away on the way", async () => {
    const tiny = await openTiny();
    await tiny.backup(["a"]);
    tiny.store(1).away = true;
    const { ok, away } = await guardStorages(tiny.repo, tiny.shared.ids);
    assert.deepEqual(ok, [tiny.id(0)]);
    assert.deepEqual(
      away.map(({ storage }) => storage),
      [tiny.id(1)],
    );
    const checked = await checkStamps(tiny.repo, tiny.shared.ids);
    assert.deepEqual(checked.ok, [tiny.id(0)]);
    tiny.store(1).away = false;
    tiny.store(1).faults = {
      before: ({ kind }) => {
        if (kind === "list") tiny.store(1).away = true;
        return "none";
      },
    };
    assert.deepEqual((await guardStorages(tiny.repo, [tiny.id(1)])).ok, []);
  });

  it("leaves names alone that Ashlar does not give", async () => {
    const tiny = await openTiny({ storages: 1 });
    tiny.store(0).objects.set("heads/lost.found", Buffer.of(1));
    tiny.store(0).objects.set("stamps/readme", Buffer.of(1));
    assert.deepEqual(await suspects(tiny), []);
  });

  it("writes nothing to a suspect storage", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a"]);
    const old = await tiny.clone();
    await tiny.backup(["b"]);
    const before = [...tiny.store(0).objects.keys()];
    await changeVersion(old.kv, uid, { labels: { a: "b" } });
    await assert.rejects(putOwedHeads(old.repo), (error) => isErrorCode(error, ErrorCode.Refused));
    assert.deepEqual([...tiny.store(0).objects.keys()], before);
  });
});
