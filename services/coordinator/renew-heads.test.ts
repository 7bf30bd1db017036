import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createRepositoryKeys, rotateKeys, type RepositoryKeys } from "#lib/repository/keys.ts";
import { createSealer, repositoryKeyOf } from "#lib/repository/sealing.ts";
import { setStorageState } from "#lib/repository/transactions/storage.ts";
import { readVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import { BLOCK_BYTES, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import { runBackup } from "./backup-job.ts";
import type { CoordinatorContext } from "./context.ts";
import { collectGarbage } from "./gc-job.ts";

/** The repository keys that the heads at a storage are under. */
const keysOfHeads = (process: OneProcess, store: number): string[] =>
  [...process.stores[store]!.objects]
    .filter(([name]) => name.startsWith("heads/"))
    .map(([, sealed]) => repositoryKeyOf(sealed));

/** The same process as one that has heard of a rotation, or not. */
function under({ context, repo }: OneProcess, keys: RepositoryKeys): CoordinatorContext {
  const sealer = createSealer(keys, { compression: "zstd" });
  // What puts heads has the sealer of the process: there is one.
  Object.defineProperty(repo, "sealer", { value: sealer, configurable: true });
  return context;
}

const backup = (process: OneProcess, context: CoordinatorContext, volume: string) => {
  process.device("disk", Buffer.alloc(3 * BLOCK_BYTES, volume));
  return runBackup(context, { source: "disk", volume });
};

describe("heads after a rotation", () => {
  it("are put under the new repository key by a collection, whatever became of the rotation", async () => {
    const before = createRepositoryKeys({ hash: "blake3", compression: "zstd" });
    const process = await openOneProcess({ storages: 2, keys: before });
    const after = rotateKeys(before);
    const old = under(process, before);
    const { uid } = await backup(process, old, "a");
    await collectGarbage(old);
    const revision = async () =>
      (await process.repo.kv.read((reader) => readVersion(reader, uid)))?.revision;
    const first = await revision();
    assert.deepEqual(
      keysOfHeads(process, 0),
      [before.activeKeyId],
      "nothing is renewed for nothing",
    );

    // The rotation was killed as soon as the new key was there; somebody who has not heard of it puts one more.
    const next = under(process, after);
    await collectGarbage(next);
    await collectGarbage(next);
    for (const store of [0, 1]) assert.deepEqual(keysOfHeads(process, store), [after.activeKeyId]);
    assert.equal(await revision(), (first ?? 0) + 1, "once");
    await backup(process, under(process, before), "b");
    // Who does not know the new key takes it for no retired one.
    await collectGarbage(process.context);
    assert.deepEqual(
      new Set(keysOfHeads(process, 0)),
      new Set([before.activeKeyId, after.activeKeyId]),
    );
    await collectGarbage(under(process, after));
    await collectGarbage(process.context);
    for (const store of [0, 1]) {
      assert.deepEqual(keysOfHeads(process, store), [after.activeKeyId, after.activeKeyId]);
    }
    await process.close();
  });

  it("stay where nothing is put, and are renewed when that is over; removals are left alone", async () => {
    const before = createRepositoryKeys({ hash: "blake3", compression: "zstd" });
    const process = await openOneProcess({ storages: 2, keys: before });
    const [, second] = process.storageIds;
    assert.ok(second !== undefined);
    const { uid } = await backup(process, process.context, "a");
    const gone = await backup(process, process.context, "gone");
    await setStorageState(process.repo.kv, second, "disabled");
    await removeVersion(process.repo.kv, gone.uid);
    const after = rotateKeys(before);
    const context = under(process, after);
    for (let round = 0; round < 3; round += 1) await collectGarbage(context);
    const version = await process.repo.kv.read((reader) => readVersion(reader, uid));
    assert.deepEqual(version?.revision, 2, "once, though one storage takes none");
    assert.ok(keysOfHeads(process, 1).every((key) => key === before.activeKeyId));
    await setStorageState(process.repo.kv, second, "in-use");
    for (let round = 0; round < 3; round += 1) await collectGarbage(context);
    for (const store of [0, 1]) {
      assert.deepEqual(keysOfHeads(process, store), [after.activeKeyId], `storage ${store}`);
    }
    await process.close();
  });
});
