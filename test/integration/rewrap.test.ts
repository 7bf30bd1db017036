/** A new repository key: what is stored already is wrapped anew by deep scrubs, whatever kills them, and nothing is lost meanwhile. */
import assert from "node:assert/strict";
import { readFile, truncate } from "node:fs/promises";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { noiseBlocks, writeImage } from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";
import { repositoryKeyOf } from "#lib/repository/sealing.ts";

const EXIT_DAMAGED = 65;
const KINDS = ["blocks", "nodes", "heads"] as const;
const BLOCKS = 300;

/** How many objects of these kinds lie under each repository key. */
async function countByKey(
  repo: TestRepository,
  storage: string,
  kinds: readonly string[] = KINDS,
): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>();
  for (const kind of kinds) {
    for (const { file } of await repo.objects(storage, kind)) {
      const key = repositoryKeyOf(await readFile(file));
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  return counts;
}

interface KeyedStats {
  readonly keys: readonly {
    readonly id: string;
    readonly state: string;
    readonly objects: number;
  }[];
  readonly unreadable: number;
}

describe("after a rotation", { timeout: TEST_TIMEOUT_MS }, () => {
  for (const kind of ["aes", "x25519"]) {
    it(`a deep scrub wraps everything anew, however often it is killed (to ${kind})`, async () => {
      await using repo = await TestRepository.make({ storages: ["a", "b"] });
      const image = repo.fresh("image");
      const bytes = await writeImage(image, noiseBlocks(kind, BLOCKS));
      const { uid } = await repo.backup(image, "vol");
      const rotation = await repo.json<{ repositoryKey: string; retired: string }>([
        "key",
        "rotate",
        "--repository-key",
        kind,
      ]);
      const { repositoryKey, retired } = rotation;
      const atFirst = await countByKey(repo, "a");
      assert.ok((atFirst.get(retired) ?? 0) > BLOCKS, "blocks and nodes are as they were");
      const asked = ["storage", "stats", "--keys", "a"];
      const before = await repo.json<{ storages: [KeyedStats] }>(asked);
      assert.deepEqual(
        new Map(before.storages[0].keys.map(({ id, objects }) => [id, objects])),
        atFirst,
      );
      for (let round = 1; round <= 5; round += 1) {
        const scrub = repo.start(["scrub", "--deep"]);
        await setTimeout(300 + round * 150);
        await scrub.kill();
        for (const storage of repo.storages) await repo.assertRestores(uid, bytes, storage);
      }
      await repo.run(["scrub", "--deep"]);
      await repo.run(["gc", "--sweep"]);
      for (const storage of repo.storages) {
        const [only, ...others] = await countByKey(repo, storage);
        assert.equal(only?.[0], repositoryKey, storage);
        assert.deepEqual(others, [], storage);
        await repo.assertRestores(uid, bytes, storage);
      }
      assert.equal(await repo.blockCount("a"), BLOCKS, "nothing is there twice");
      const [one] = await repo.objects("a", "blocks");
      await truncate(one?.file ?? "", 10);
      const { storages } = await repo.json<{ storages: [KeyedStats] }>(asked);
      const [{ keys, unreadable }] = storages;
      const states = new Map(keys.map(({ state, objects }) => [state, objects]));
      assert.deepEqual([states.get("retired"), unreadable], [0, 1]);
      assert.ok((states.get("active") ?? 0) >= BLOCKS);
      const table = await repo.run(asked);
      assert.match(String(table.stdout), new RegExp(`a +${retired} +retired +0`));
      await repo.run(["scrub", "--deep"], { code: EXIT_DAMAGED });
      await repo.run(["gc"]);
      await repo.assertNoOrphans();
      await repo.assertClean();
      // With everything else gone, one storage and the key file are enough, as before.
      const rebuilt = repo.fresh("rebuilt");
      const from = ["--from", repo.storageFolder("a"), "--key-file", repo.keyFile];
      await repo.run(["rebuild", rebuilt, ...from]);
      const target = repo.fresh("target");
      await repo.run(["-c", rebuilt, "restore", uid, target]);
      assert.ok((await readFile(target)).equals(bytes));
    });
  }
});
