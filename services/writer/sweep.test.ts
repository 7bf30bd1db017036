import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { Generation } from "#lib/core/ids.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { changeVersion } from "#lib/repository/transactions/version.ts";
import { assertExact, objectsAt } from "#test/fixtures/tiny-checks.ts";
import { openTiny } from "#test/fixtures/tiny-repository.ts";
import { runDeletions } from "./deletion-run.ts";
import { putOwedHeads } from "./heads.ts";
import { sweepStorage } from "./sweep.ts";

describe("sweepStorage", () => {
  it("puts into trash what no record names, and leaves everything else", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(["a", "b"]);
    const before = objectsAt(tiny, 0);
    const { objects } = tiny.store(0);
    const unnamed = "00000000000000ff" as Generation;
    const placed = (await tiny.nameAt(tiny.blockId("b"), 0)).split(".")[1] as Generation;
    // Another generation of a known block, a block that nobody knows, a block's id under a node's name, foreign names.
    objects.set(objectName("block", tiny.blockId("a"), unnamed), Buffer.of(1));
    objects.set(objectName("block", tiny.blockId("x"), unnamed), Buffer.of(1));
    objects.set(objectName("node", tiny.blockId("b"), placed), Buffer.of(1));
    objects.set("blocks/readme.txt", Buffer.of(1));
    const swept = await sweepStorage(tiny.repo, tiny.id(0));
    assert.deepEqual([swept.listed, swept.orphans], [before.length + 3, 3]);
    assert.equal((await sweepStorage(tiny.repo, tiny.id(0))).orphans, 0);
    await runDeletions(tiny.repo, tiny.id(0));
    assert.deepEqual(objectsAt(tiny, 0), ["blocks/readme.txt", ...before].toSorted());
  });

  it("leaves the objects of a backup that is under way, in every state", async () => {
    const tiny = await openTiny();
    const session = await tiny.start();
    await session.bringBlock("placed");
    const plain = tiny.plain("coming");
    const id = tiny.blockId("coming");
    const copies = await session.claim("block", id, plain.length);
    await session.put("block", id, plain, copies ?? []);
    tiny.store(1).away = true;
    await session.bringBlock("owed");
    tiny.store(1).away = false;
    for (const storage of tiny.shared.ids) {
      assert.equal((await sweepStorage(tiny.repo, storage)).orphans, 0);
    }
  });

  it("finds a head that arrived after its trash was emptied", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a"]);
    const first = objectsAt(tiny, 0).find((name) => name.startsWith("heads/")) ?? "";
    const bytes = tiny.store(0).objects.get(first) as Buffer;
    await changeVersion(tiny.kv, uid, { labels: { a: "b" } });
    await putOwedHeads(tiny.repo);
    await runDeletions(tiny.repo, tiny.id(0));
    tiny.store(0).objects.set(first, bytes);
    assert.equal((await sweepStorage(tiny.repo, tiny.id(0))).orphans, 1);
    await runDeletions(tiny.repo, tiny.id(0));
    await assertExact(tiny);
  });

  it("refuses where the storage and the metadata do not know each other", async () => {
    const tiny = await openTiny({ storages: 1 });
    const old = await tiny.clone();
    await tiny.backup(["a"]);
    await assert.rejects(sweepStorage(old.repo, tiny.id(0)), (error) =>
      isErrorCode(error, ErrorCode.Refused),
    );
  });

  it("says why it did nothing", async () => {
    const tiny = await openTiny({ storages: 1 });
    tiny.store(0).away = true;
    assert.match((await sweepStorage(tiny.repo, tiny.id(0))).reason ?? "", /away/);
    tiny.store(0).away = false;
    await tiny.setState(0, "disabled");
    assert.match((await sweepStorage(tiny.repo, tiny.id(0))).reason ?? "", /disabled/);
  });
});
