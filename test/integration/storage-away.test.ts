/** One of two storages is away: backups go on, say so loudly, and it catches up later; then each storage alone restores. */
import assert from "node:assert/strict";
import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import {
  BLOCK,
  MIB,
  noise,
  noiseBlocks,
  overwrite,
  writeImage,
  writeNoise,
} from "#test/fixtures/integration-image.ts";
import { describeEnd, runAshlar, until } from "#test/fixtures/integration-process.ts";
import {
  filesBelow,
  parseJson,
  TEST_TIMEOUT_MS,
  TestRepository,
  type BackupDocument,
} from "#test/fixtures/integration-repository.ts";

const EXIT_UNAVAILABLE = 69;
const EXIT_REFUSED = 77;
const MARKER = "ashlar-storage.json";

interface StatusDocument {
  readonly storages: readonly {
    readonly name: string;
    readonly owedCopies: { readonly count: number };
    readonly owedHeads: { readonly count: number };
  }[];
}

async function twoStorages(): Promise<TestRepository> {
  return TestRepository.make({ storages: ["a", "b"] });
}

/** A way in which a storage is not there, and how it comes back. */
interface Absence {
  readonly what: string;
  readonly leave: (repo: TestRepository, storage: string) => Promise<void>;
  readonly comeBack: (repo: TestRepository, storage: string) => Promise<void>;
}

function asideOf(repo: TestRepository, storage: string): string {
  return `${repo.storageFolder(storage)}.aside`;
}

async function moveBack(repo: TestRepository, storage: string): Promise<void> {
  await rm(repo.storageFolder(storage), { recursive: true, force: true });
  await rename(asideOf(repo, storage), repo.storageFolder(storage));
}

/** Puts a storage of another repository in the place of one. */
async function putOther(repo: TestRepository, storage: string): Promise<void> {
  await using other = await TestRepository.make();
  await rename(repo.storageFolder(storage), asideOf(repo, storage));
  await cp(other.storageFolder(), repo.storageFolder(storage), { recursive: true });
}

const ABSENCES: readonly Absence[] = [
  {
    what: "its folder is empty, as a mount point is without its disk",
    leave: async (repo, storage) => {
      await rename(repo.storageFolder(storage), asideOf(repo, storage));
      await mkdir(repo.storageFolder(storage));
    },
    comeBack: moveBack,
  },
  {
    what: "its marker is missing",
    leave: (repo, storage) =>
      rename(path.join(repo.storageFolder(storage), MARKER), repo.home.at("marker")),
    comeBack: (repo, storage) =>
      rename(repo.home.at("marker"), path.join(repo.storageFolder(storage), MARKER)),
  },
];

describe("a storage that is away", { timeout: TEST_TIMEOUT_MS }, () => {
  it("is not taken for another one: a wrong disk in its place is refused, and not written to", async () => {
    await using repo = await twoStorages();
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("first", 5));
    const { uid } = await repo.backup(image);
    await putOther(repo, "b");
    const before = await filesBelow(repo.storageFolder("b"));
    const error = await repo.fails(EXIT_REFUSED, ["backup", image, "vol"]);
    assert.match(error.message, /storage b/);
    assert.deepEqual(await filesBelow(repo.storageFolder("b")), before);
    await moveBack(repo, "b");
    await repo.assertRestores(uid, bytes, "b");
  });

  it("does not keep a backup from succeeding at quorum 1, with a loud warning and what is owed where; --require-complete makes it 69; it catches up later", async () => {
    await using repo = await twoStorages();
    const image = repo.home.at("image");
    const first = await writeImage(image, noiseBlocks("first", 5));
    const one = await repo.backup(image);
    await rename(repo.storageFolder("b"), asideOf(repo, "b"));
    const second = await writeImage(image, [
      ...noiseBlocks("first", 3),
      ...noiseBlocks("second", 4),
    ]);
    const ended = await repo.run(["--json", "backup", image, "vol"]);
    assert.match(ended.stderr, /warn.*storage b is away.*goes on without it/i, "a loud warning");
    assert.match(ended.stderr, /warn.*storage b does not have .* whole yet/i, "at the end, too");
    const two = parseJson<BackupDocument>(ended);
    const [atA, atB] = two.storages;
    assert.deepEqual([atA?.name, atA?.complete], ["a", true]);
    assert.deepEqual([atB?.name, atB?.complete], ["b", false]);
    assert.match(atB?.reason ?? "", /away/);
    assert.deepEqual((await repo.show(two.uid)).completeAt, ["a"]);
    const status = await repo.json<StatusDocument>(["status"]);
    const owed = status.storages.map(({ name, owedCopies, owedHeads }) => [
      name,
      owedCopies.count > 0,
      owedHeads.count,
    ]);
    assert.deepEqual(owed, [
      ["a", false, 0],
      ["b", true, 1],
    ]);
    await repo.assertRestores(two.uid, second);

    const strict = ["backup", image, "vol", "--require-complete"];
    const error = await repo.fails(EXIT_UNAVAILABLE, strict);
    assert.match(error.message, /storage b is away/);

    await moveBack(repo, "b");
    await repo.run(["replicate"]);
    assert.deepEqual((await repo.show(two.uid)).completeAt.toSorted(), ["a", "b"]);
    await repo.run(["gc", "--abandon"]);
    await repo.assertNoOrphans();
    for (const storage of ["a", "b"]) {
      await repo.assertRestores(one.uid, first, storage);
      await repo.assertRestores(two.uid, second, storage);
    }
  });

  for (const { what, leave, comeBack } of ABSENCES) {
    it(`is left alone, and catches up by gc, when ${what}`, async () => {
      await using repo = await twoStorages();
      const image = repo.home.at("image");
      await writeImage(image, noiseBlocks("first", 2));
      await repo.backup(image);
      await leave(repo, "b");
      const before = await filesBelow(repo.storageFolder("b"));
      const bytes = await writeImage(image, noiseBlocks("second", 4));
      const ended = await repo.run(["--json", "backup", image, "vol"]);
      assert.match(ended.stderr, /warn.*storage b is away/i);
      assert.deepEqual(await filesBelow(repo.storageFolder("b")), before, "nothing is put there");
      await comeBack(repo, "b");
      await repo.run(["gc"]);
      await repo.assertNoOrphans();
      await repo.assertRestores(parseJson<BackupDocument>(ended).uid, bytes, "b");
    });
  }

  it("catches up with the next backup, and then each storage alone restores on an empty machine", async () => {
    await using repo = await twoStorages();
    const image = repo.home.at("image");
    const made: { uid: string; bytes: Buffer }[] = [];
    const backUp = async (seed: string): Promise<void> => {
      const bytes = await writeImage(image, [...noiseBlocks("common", 3), ...noiseBlocks(seed, 3)]);
      made.push({ uid: (await repo.backup(image)).uid, bytes });
    };
    await backUp("both");
    await rename(repo.storageFolder("a"), asideOf(repo, "a"));
    await backUp("b only");
    await moveBack(repo, "a");
    await rename(repo.storageFolder("b"), asideOf(repo, "b"));
    await backUp("a only");
    await moveBack(repo, "b");
    await backUp("both again");
    for (const { uid } of made) {
      assert.deepEqual((await repo.show(uid)).completeAt.toSorted(), ["a", "b"], uid);
    }
    await repo.assertNoOrphans();
    for (const storage of repo.storages) {
      const machine = repo.home.at(`machine-${storage}`);
      const from = ["--from", repo.storageFolder(storage), "--key-file", repo.keyFile];
      await runAshlar(["rebuild", machine, ...from], { env: repo.env });
      for (const { uid, bytes } of made) {
        const { stdout } = await runAshlar(["--config", machine, "restore", uid, "-"], {
          env: repo.env,
        });
        assert.ok(stdout.equals(bytes), `${uid} from ${storage} alone`);
      }
    }
  });

  it("fails with 69 when too few storages are there for the quorum, and when none is", async () => {
    await using repo = await twoStorages();
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("x", 3));
    await rename(repo.storageFolder("b"), asideOf(repo, "b"));
    await repo.fails(EXIT_UNAVAILABLE, ["backup", image, "vol", "--quorum", "2"]);
    await rename(repo.storageFolder("a"), asideOf(repo, "a"));
    await repo.fails(EXIT_UNAVAILABLE, ["backup", image, "vol"]);
    assert.deepEqual(await repo.versions(), []);
    await moveBack(repo, "a");
    await moveBack(repo, "b");
    const { uid } = await repo.backup(image, "vol", ["--quorum", "2"]);
    await repo.assertRestores(uid, bytes);
  });

  it("fails a restore with 69, not with damage, when the storages that have the version are away", async () => {
    await using repo = await twoStorages();
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("x", 3));
    const { uid } = await repo.backup(image);
    for (const storage of repo.storages) {
      await rename(repo.storageFolder(storage), asideOf(repo, storage));
    }
    await repo.fails(EXIT_UNAVAILABLE, ["restore", uid, repo.home.at("target")]);
    const target = repo.home.at("precious");
    const old = await writeImage(target, noiseBlocks("old", 3));
    const args = ["restore", uid, target, "--force", "--keep-going"];
    for (const options of [[], ["--storage", "b"], ["--differential"]]) {
      await repo.fails(EXIT_UNAVAILABLE, [...args, ...options]);
    }
    assert.ok((await readFile(target)).equals(old), "what is away is not damaged: no zeros");
    await moveBack(repo, "b");
    await repo.fails(EXIT_UNAVAILABLE, [...args, "--storage", "a"]);
    assert.ok((await readFile(target)).equals(old));
    await repo.assertRestores(uid, bytes);
    await moveBack(repo, "a");
    assert.equal((await repo.show(uid)).status, "valid", "nothing was judged bad meanwhile");
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
  });

  it("goes on when a storage leaves in the middle of a backup", async () => {
    await using repo = await twoStorages();
    await repo.configure([["memory", "budget"], "32MiB"]);
    const image = repo.home.at("image");
    const bytes = await writeNoise(image, "large", 48 * MIB);
    const running = repo.start(["--json", "backup", image, "vol"]);
    await until(async () => ((await repo.blockCount("b")) > 0 ? true : undefined));
    running.signal("SIGSTOP");
    await rename(repo.storageFolder("b"), asideOf(repo, "b"));
    running.signal("SIGCONT");
    const ended = await running.ended;
    assert.equal(ended.code, 0, describeEnd(ended));
    const { uid, storages } = parseJson<BackupDocument>(ended);
    assert.equal(storages.find(({ name }) => name === "b")?.complete, false);
    assert.match(ended.stderr, /warn.*storage b/i);
    await repo.assertRestores(uid, bytes, "a");
    await moveBack(repo, "b");
    await repo.run(["replicate"]);
    await repo.run(["gc", "--sweep"]);
    await repo.assertNoOrphans();
    await repo.assertRestores(uid, bytes, "b");
  });

  it("tells removals to a storage that was away, so that it does not bring versions back", async () => {
    await using repo = await twoStorages();
    const image = repo.home.at("image");
    await writeImage(image, noiseBlocks("old", 3));
    const { uid } = await repo.backup(image);
    const bytes = await writeImage(image, noiseBlocks("new", 3));
    const kept = await repo.backup(image);
    await rename(repo.storageFolder("b"), asideOf(repo, "b"));
    await repo.run(["rm", uid]);
    await repo.run(["gc"]);
    await moveBack(repo, "b");
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
    const machine = repo.home.at("machine");
    const from = ["--from", repo.storageFolder("b"), "--key-file", repo.keyFile];
    await runAshlar(["rebuild", machine, ...from], { env: repo.env });
    const { stdout } = await runAshlar(["--config", machine, "--json", "ls"], { env: repo.env });
    const { versions } = JSON.parse(stdout.toString()) as { versions: { uid: string }[] };
    assert.deepEqual(
      versions.map((version) => version.uid),
      [kept.uid],
    );
    const restored = await runAshlar(["--config", machine, "restore", kept.uid, "-"], {
      env: repo.env,
    });
    assert.ok(restored.stdout.equals(bytes));
  });

  it("does not take somebody else's folder for a storage, and writes nothing there", async () => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    await writeImage(image, noiseBlocks("x", 2));
    const folder = repo.storageFolder();
    await rename(folder, asideOf(repo, "main"));
    await mkdir(folder);
    await writeFile(path.join(folder, "letter.txt"), "mine");
    for (const args of [["backup", image, "vol"], ["scrub"]]) {
      await repo.fails(EXIT_UNAVAILABLE, args);
    }
    await repo.run(["gc"]);
    assert.deepEqual(await readdir(folder), ["letter.txt"]);
    await moveBack(repo, "main");
    await overwrite(image, noise("y", BLOCK), 0);
    await repo.backup(image);
    await repo.assertNoOrphans();
  });
});
