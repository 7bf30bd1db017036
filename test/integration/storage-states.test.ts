/** Storages that are readonly or disabled for a while, and versions that go to more storages later. */
import assert from "node:assert/strict";
import { rename } from "node:fs/promises";
import { describe, it } from "node:test";
import { noiseBlocks, writeImage } from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";

const EXIT_USAGE = 64;
const EXIT_NOT_FOUND = 66;
const EXIT_UNAVAILABLE = 69;

describe("states of storages", { timeout: TEST_TIMEOUT_MS }, () => {
  it("gives a readonly storage nothing new, and reads from it", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const image = repo.home.at("image");
    const first = await writeImage(image, noiseBlocks("first", 8));
    const before = await repo.backup(image, "vol");
    await repo.run(["storage", "readonly", "b"]);
    const second = await writeImage(image, noiseBlocks("second", 8));
    const after = await repo.backup(image, "vol");
    assert.equal(await repo.blockCount("b"), 8);
    assert.equal(await repo.blockCount("a"), 16);
    await repo.assertRestores(before.uid, first, "b");
    assert.deepEqual((await repo.show(after.uid)).completeAt, ["a"]);
    await repo.fails(EXIT_UNAVAILABLE, ["replicate"]);
    await repo.run(["storage", "enable", "b"]);
    await repo.run(["replicate"]);
    await repo.assertRestores(after.uid, second, "b");
    await repo.assertNoOrphans();
  });

  it("counts a disabled storage for nothing, deletes nothing there, and goes on with it later", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"], init: ["--quorum", "2"] });
    const image = repo.home.at("image");
    await writeImage(image, noiseBlocks("gone", 6));
    const gone = await repo.backup(image, "vol");
    const kept = await writeImage(image, noiseBlocks("kept", 6));
    const { uid } = await repo.backup(image, "vol");
    const ended = await repo.run(["--json", "storage", "disable", "b"]);
    assert.match(ended.stderr, /2 versions have too few storages while b is disabled/);
    assert.equal((await repo.show(uid)).restorable, false);
    const refused = await repo.fails(EXIT_UNAVAILABLE, ["backup", image, "vol"]);
    assert.match(refused.message, /wants 2 storages, but only 1/);
    await repo.run(["rm", gone.uid]);
    await repo.run(["gc", "--abandon"]);
    assert.deepEqual([await repo.blockCount("a"), await repo.blockCount("b")], [6, 12]);
    await repo.run(["storage", "enable", "b"]);
    await repo.run(["gc"]);
    assert.equal((await repo.show(uid)).restorable, true);
    await repo.assertRestores(uid, kept, "b");
    await repo.assertNoOrphans();
  });

  it("makes versions go to a storage that was added later, once and for all", async () => {
    await using repo = await TestRepository.make({ storages: ["a"] });
    const image = repo.home.at("image");
    const one = await writeImage(image, noiseBlocks("one", 8));
    const first = await repo.backup(image, "one");
    await writeImage(image, noiseBlocks("two", 8));
    const second = await repo.backup(image, "two");
    await repo.run(["storage", "add", `b=${repo.storageFolder("b")}`]);
    await repo.run(["replicate"]);
    assert.equal(await repo.blockCount("b"), 0, "nothing goes there by itself");
    await repo.run(["replicate", "--to", "b", "one@latest"]);
    await repo.assertRestores(first.uid, one, "b");
    assert.deepEqual((await repo.show(first.uid)).completeAt, ["a", "b"]);
    assert.deepEqual((await repo.show(second.uid)).completeAt, ["a"]);
    const again = await repo.run(["replicate", "--to", "b", "--all"]);
    assert.match(again.stderr + String(again.stdout), /1 of 2 versions go to b, too/);
    assert.deepEqual((await repo.show(second.uid)).completeAt, ["a", "b"]);
    await repo.run(["rm", first.uid]);
    await repo.run(["gc"]);
    assert.deepEqual([await repo.blockCount("a"), await repo.blockCount("b")], [8, 8]);
    await repo.assertClean();
    // What a storage shows is what a rebuild from it alone finds.
    await repo.run(["storage", "disable", "a"]);
    assert.equal((await repo.show(second.uid)).restorable, true);
  });

  it("are checked against the metadata before anything is tried out there", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    await using other = await TestRepository.make({ storages: ["a"] });
    interface Checked {
      readonly storages: readonly {
        readonly name: string;
        readonly findings: readonly { check: string; outcome: string; detail: string }[];
      }[];
    }
    const check = async (code = 0, of = repo): Promise<string[]> => {
      const ended = await of.run(["--json", "storage", "check"], { code });
      const { storages } = JSON.parse(String(ended.stdout)) as Checked;
      return storages.map(({ name, findings: [first, ...others] }) => {
        const isTried = others.length > 0;
        return `${name}: ${first?.check} ${first?.outcome}${isTried ? ", tried" : ""}`;
      });
    };
    const tried = ["a: identity ok, tried", "b: identity ok, tried"];
    assert.deepEqual(await check(), tried);
    const url = (name: string): string => `file:${repo.storageFolder(name)}`;
    const configure = (a: string, b: string): Promise<void> =>
      repo.configure([["storages", 0, "url"], a], [["storages", 1, "url"], b]);
    await configure(url("b"), url("a"));
    const swapped = ["a: identity failed", "b: identity failed"];
    assert.deepEqual(await check(EXIT_UNAVAILABLE), swapped);
    await configure(url("a"), `file:${other.storageFolder("a")}`);
    assert.deepEqual(await check(EXIT_UNAVAILABLE), [tried[0], swapped[1]]);
    await other.assertClean();
    await configure(url("a"), url("b"));
    // Where the metadata are away, the storages are tried nevertheless.
    await rename(repo.metadata, repo.home.at("away"));
    assert.deepEqual(await check(), ["a: identity warning, tried", "b: identity warning, tried"]);
    await rename(repo.home.at("away"), repo.metadata);
  });

  it("refuses what makes no sense", async () => {
    await using repo = await TestRepository.make({ storages: ["a"] });
    assert.match(
      (await repo.fails(EXIT_NOT_FOUND, ["storage", "disable", "z"])).remedy ?? "",
      /has: a/,
    );
    for (const args of [
      ["x-1"],
      ["--all"],
      ["--to", "a"],
      ["--to", "a", "--all", "x-1"],
      ["--to", "a", "--storage", "a", "--all"],
    ]) {
      await repo.fails(EXIT_USAGE, ["replicate", ...args]);
    }
    await repo.fails(EXIT_NOT_FOUND, ["replicate", "--to", "z", "--all"]);
  });
});
