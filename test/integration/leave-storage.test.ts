/** Versions that leave storages, storages that are emptied and removed, and storages that are lost for ever. */
import assert from "node:assert/strict";
import { readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { noiseBlocks, writeImage } from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";

const EXIT_USAGE = 64;
const EXIT_NOT_FOUND = 66;
const EXIT_UNAVAILABLE = 69;
const EXIT_TRY_AGAIN = 75;
const EXIT_REFUSED = 77;

/** Blocks at each storage. */
const counts = (repo: TestRepository, ...names: string[]): Promise<number[]> =>
  Promise.all(names.map((name) => repo.blockCount(name)));

describe("leaving storages", { timeout: TEST_TIMEOUT_MS }, () => {
  it("moves one version, and leaves behind what others need there", async () => {
    await using repo = await TestRepository.make({ storages: ["a"] });
    const image = repo.home.at("image");
    const shared = noiseBlocks("shared", 4);
    const one = await writeImage(image, [...shared, ...noiseBlocks("one", 4)]);
    const moved = await repo.backup(image, "one");
    const two = await writeImage(image, [...shared, ...noiseBlocks("two", 4)]);
    const stays = await repo.backup(image, "two");
    await repo.run(["storage", "add", `b=${repo.storageFolder("b")}`]);
    const alone = await repo.fails(EXIT_UNAVAILABLE, ["replicate", "--leave", "a", moved.uid]);
    assert.match(alone.remedy ?? "", /0 of its other storages have version .* replicate --to/);
    await repo.run(["replicate", "--to", "b", "--leave", "a", moved.uid]);
    await repo.run(["gc"]);
    assert.deepEqual(await counts(repo, "a", "b"), [8, 8]);
    assert.deepEqual((await repo.show(moved.uid)).completeAt, ["b"]);
    await repo.assertRestores(moved.uid, one, "b");
    await repo.assertRestores(stays.uid, two, "a");
    const { storages } = await repo.json<{ storages: { orphans: number }[] }>(["gc", "--sweep"]);
    assert.deepEqual(
      storages.map(({ orphans }) => orphans),
      [0, 0],
    );
    await repo.assertClean();
  });

  it("drains a storage to another one, and removes it", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"], init: ["--quorum", "2"] });
    const image = repo.home.at("image");
    const first = await writeImage(image, noiseBlocks("first", 8));
    const one = await repo.backup(image, "vol");
    const second = await writeImage(image, noiseBlocks("second", 8));
    const two = await repo.backup(image, "vol");
    const kept = await repo.fails(EXIT_TRY_AGAIN, ["storage", "drain", "a"]);
    assert.match(kept.message, /a is not empty: 2 versions cannot leave it/);
    assert.deepEqual(await counts(repo, "a", "b"), [16, 16], "nothing has left");
    await repo.run(["storage", "add", `c=${repo.storageFolder("c")}`]);
    await repo.run(["storage", "drain", "a", "--to", "c"]);
    assert.deepEqual(await counts(repo, "a", "b", "c"), [0, 16, 16]);
    const before = await readFile(repo.configFile, "utf8");
    await repo.run(["storage", "remove", "a"]);
    const after = await readFile(repo.configFile, "utf8");
    assert.doesNotMatch(after, /name: a$/m);
    // Another host's configuration still has it: with its folder there, and without.
    for (const isThere of [true, false]) {
      if (!isThere) await rename(repo.storageFolder("a"), repo.home.at("a-is-away"));
      await writeFile(repo.configFile, before);
      await repo.configure([["defaults", "prefer"], ["a"]]);
      const third = await repo.run(["backup", image, "other"]);
      assert.match(
        third.stderr,
        /storage a was removed from the repository: backups go without it/,
      );
      assert.deepEqual(
        (await repo.show(String(third.stdout).trim().split("\n").at(-1) ?? "")).completeAt,
        ["b", "c"],
      );
      const { storages } = await repo.json<{
        storages: readonly { name: string; state: string; reason: string | null }[];
      }>(["storage", "ls"]);
      const listed = storages.filter(({ name, reason }) => name === "a" && reason !== null);
      assert.match(listed.at(-1)?.reason ?? "", /it was removed: take it out/);
      const refused = await repo.fails(EXIT_REFUSED, ["backup", image, "other", "--storage", "a"]);
      assert.match(refused.message, /storage a was removed from the repository/);
    }
    await rename(repo.home.at("a-is-away"), repo.storageFolder("a"));
    await writeFile(repo.configFile, after);
    await rm(repo.storageFolder("a"), { recursive: true });
    for (const storage of ["b", "c"]) {
      await repo.assertRestores(one.uid, first, storage);
      await repo.assertRestores(two.uid, second, storage);
    }
    await repo.fails(EXIT_NOT_FOUND, ["storage", "enable", "a"]);
    await repo.backup(image, "vol");
    await repo.run(["gc", "--sweep"]);
    await repo.assertClean();
  });

  it("reads what is left behind before a good copy goes, and heals it", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("rotten", 12));
    const { uid } = await repo.backup(image, "vol");
    const [one, two] = await repo.objects("b", "blocks");
    assert.ok(one !== undefined && two !== undefined);
    await truncate(one.file, 100);
    await rm(two.file);
    // What cannot be read proves nothing.
    await rename(repo.storageFolder("b"), repo.home.at("away"));
    await repo.fails(EXIT_TRY_AGAIN, ["storage", "drain", "a"]);
    assert.equal(await repo.blockCount("a"), 12);
    await rename(repo.home.at("away"), repo.storageFolder("b"));
    const drained = await repo.run(["storage", "drain", "a"]);
    assert.match(
      drained.stderr,
      /2 damaged objects were found at the other storages, 2 of them healed/,
    );
    assert.deepEqual(await counts(repo, "a", "b"), [0, 12]);
    await repo.assertRestores(uid, bytes, "b");
    await repo.assertClean();
  });

  it("drains to the end however often it is killed", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("killed", 600));
    const { uid } = await repo.backup(image, "vol");
    await repo.run(["storage", "add", `c=${repo.storageFolder("c")}`]);
    for (let round = 1; round <= 8; round += 1) {
      const drain = repo.start(["storage", "drain", "a", "--to", "c"]);
      await setTimeout(round * 150);
      await drain.kill();
      // At each moment each storage that shows it can restore it.
      for (const storage of (await repo.show(uid)).completeAt) {
        await repo.assertRestores(uid, bytes, storage);
      }
    }
    await repo.run(["storage", "drain", "a", "--to", "c"]);
    assert.deepEqual(await counts(repo, "a", "b", "c"), [0, 600, 600]);
    await repo.run(["storage", "remove", "a"]);
    await repo.assertRestores(uid, bytes, "c");
    await repo.assertClean();
  });

  it("gives up a lost storage, and what only that had is brought again by the next backup", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const image = repo.home.at("image");
    const only = await writeImage(image, noiseBlocks("only", 8));
    const lost = await repo.backup(image, "only", ["--storage", "b"]);
    const both = await writeImage(image, noiseBlocks("both", 8));
    const safe = await repo.backup(image, "both");
    await repo.fails(EXIT_USAGE, ["storage", "remove", "b", "--dry-run"]);
    await rm(repo.storageFolder("b"), { recursive: true });
    const dryRun = ["storage", "remove", "b", "--lost", "--dry-run"];
    assert.deepEqual((await repo.json<{ readonly lost: string[] }>(dryRun)).lost, [lost.uid]);
    await repo.assertRestores(safe.uid, both);
    await repo.run(["storage", "remove", "b", "--lost"]);
    await repo.run(["storage", "remove", "b", "--lost"]);
    assert.equal((await repo.show(lost.uid)).status, "invalid");
    assert.deepEqual((await repo.show(safe.uid)).completeAt, ["a"]);
    await repo.assertRestores(safe.uid, both);
    await writeImage(image, noiseBlocks("only", 8));
    await repo.backup(image, "only");
    assert.equal((await repo.show(lost.uid)).status, "valid", "the content is there again");
    await repo.assertRestores(lost.uid, only);
    await repo.run(["gc", "--sweep"]);
    await repo.assertClean();
  });

  it("refuses what makes no sense", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    await repo.fails(EXIT_NOT_FOUND, ["storage", "drain", "c"]);
    await repo.fails(EXIT_USAGE, ["storage", "drain", "a", "--to", "a"]);
    await repo.fails(EXIT_USAGE, ["storage", "remove", "a", "--lost", "--to", "b"]);
    await repo.fails(EXIT_USAGE, ["replicate", "--to", "a", "--leave", "a", "--all"]);
    await repo.fails(EXIT_USAGE, ["replicate", "--leave", "a"]);
  });
});
