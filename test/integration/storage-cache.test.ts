/** A storage with a cache: restores take what they have read before from there, and whoever looks at the storage sees the storage. */
import assert from "node:assert/strict";
import { chmod, readdir, readFile, rm, unlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { BLOCK, noise, writeNoise } from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";

const EXIT_DAMAGED = 65;
const BLOCKS = 8;

interface ScrubDocument {
  readonly damaged: readonly { readonly kind: string }[];
}

/** Gives the storage of a repository a cache; answers where that is. */
async function addCache(repo: TestRepository): Promise<string> {
  const cache = repo.fresh("cache");
  await repo.configure([["storages", 0, "cache"], { path: cache, size: "64MiB" }]);
  return cache;
}

/** The objects in a cache: files below a folder for each storage. */
async function filesIn(cache: string): Promise<string[]> {
  const entries = await readdir(cache, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && !entry.name.startsWith("."))
    .map(({ parentPath, name }) => path.join(parentPath, name));
}

describe("a storage with a cache", { timeout: TEST_TIMEOUT_MS }, () => {
  it("is not touched by the second restore, and scrub sees what is on it", async () => {
    await using repo = await TestRepository.make();
    const cache = await addCache(repo);
    const image = repo.fresh("image");
    const bytes = await writeNoise(image, "cached", BLOCKS * BLOCK);
    const { uid } = await repo.backup(image);
    await repo.assertRestores(uid, bytes);
    assert.ok((await filesIn(cache)).length >= BLOCKS);

    const blocks = await repo.objects(undefined, "blocks");
    assert.equal(blocks.length, BLOCKS);
    for (const { file, sizeBytes } of blocks) {
      await chmod(file, 0o600);
      await writeFile(file, noise(file, sizeBytes));
    }
    await repo.assertRestores(uid, bytes);

    const { damaged } = await repo.json<ScrubDocument>(["scrub", "--deep"], {
      code: EXIT_DAMAGED,
    });
    assert.equal(damaged.length, BLOCKS);
    // Without the cache nothing of it is left.
    await rm(cache, { recursive: true });
    await repo.run(["restore", uid, repo.fresh("restored")], { code: EXIT_DAMAGED });
  });

  it("is read again where the cache is damaged, incomplete, or cannot be used", async () => {
    await using repo = await TestRepository.make();
    const cache = await addCache(repo);
    const image = repo.fresh("image");
    // As a guest's files are: what is readable here must not be readable there.
    const bytes = Buffer.concat(
      Array.from({ length: BLOCKS }, (_, block) =>
        Buffer.alloc(BLOCK, `canary of block ${block}; `),
      ),
    );
    await writeFile(image, bytes);
    const { uid } = await repo.backup(image);
    await repo.assertRestores(uid, bytes);
    const files = (await filesIn(cache)).filter((file) => path.basename(file).startsWith("blocks"));
    assert.equal(files.length, BLOCKS);
    for (const [index, file] of files.entries()) {
      const content = await readFile(file);
      assert.equal(content.includes("canary"), false);
      content[content.length - 20 - index] = (content[content.length - 20 - index] ?? 0) ^ 1;
      if (index % 3 === 0) await writeFile(file, content);
      if (index % 3 === 1) await writeFile(file, content.subarray(0, content.length - 1));
      if (index % 3 === 2) await unlink(file);
    }
    await repo.assertRestores(uid, bytes);
    assert.equal((await filesIn(cache)).length, (await repo.objects(undefined, "blocks")).length);

    await rm(cache, { recursive: true });
    await writeFile(cache, "in the way");
    const restored = repo.fresh("restored");
    const { stderr } = await repo.run(["restore", uid, restored]);
    assert.ok((await readFile(restored)).equals(bytes));
    assert.equal(stderr.match(/the cache of storage main at \S+ cannot be/g)?.length, 1, stderr);
    await repo.run(["scrub", "--deep"]);
  });
});
