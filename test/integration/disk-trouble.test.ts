/** Disks that are full, read-only, forbidden or not mounted: clear errors, nothing lost, usable again afterwards. */
import assert from "node:assert/strict";
import { accessSync, constants, existsSync } from "node:fs";
import { chmod, chown, open, readdir, rm, stat, statfs } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import {
  BLOCK,
  KIB,
  MIB,
  noise,
  noiseBlocks,
  writeImage,
  writeNoise,
} from "#test/fixtures/integration-image.ts";
import {
  loopDevice,
  mountAndLoopSkip,
  mountExt4,
  mountSkip,
  mountTmpfs,
  newLoopDevice,
  NOBODY,
  remount,
  unmount,
} from "#test/fixtures/integration-mount.ts";
import { ASHLAR, describeEnd, runTool } from "#test/fixtures/integration-process.ts";
import {
  filesBelow,
  parseJson,
  TEST_TIMEOUT_MS,
  TemporaryFolder,
  TestRepository,
  type BackupDocument,
} from "#test/fixtures/integration-repository.ts";

const EXIT_UNAVAILABLE = 69;
const EXIT_IO = 74;
const EXIT_REFUSED = 77;
const isRoot = process.getuid?.() === 0;

/** Takes up all the space that is left in a folder's file system. */
async function fillUp(folder: string): Promise<string> {
  const file = path.join(folder, "filler");
  await using handle = await open(file, "w");
  for (let size = MIB; size >= 4 * KIB; size /= 2) {
    const piece = noise("filler", size);
    try {
      for (;;) await handle.write(piece);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    }
  }
  return file;
}

describe("full disks", { timeout: TEST_TIMEOUT_MS, skip: mountSkip }, () => {
  it("ENOSPC of the storage: a clear error, nothing lost, usable again after room is made", async () => {
    await using home = await TemporaryFolder.make();
    await using disk = await mountTmpfs(home.at("disk"), 24 * MIB);
    const places = { main: path.join(disk.path, "storage") };
    await using repo = await TestRepository.make({ places });
    const image = repo.home.at("image");
    const kept = await writeImage(image, noiseBlocks("kept", 16));
    const keptUid = (await repo.backup(image, "kept")).uid;
    const doomed = await writeNoise(image, "doomed", 8 * MIB);
    const doomedUid = (await repo.backup(image, "doomed")).uid;

    const large = repo.home.at("large");
    await writeNoise(large, "large", 32 * MIB);
    const error = await repo.fails(EXIT_IO, ["backup", large, "large"]);
    assert.match(error.message, /no space left/);
    assert.ok(error.message.includes("main"), `names the storage: ${error.message}`);
    await repo.assertRestores(keptUid, kept);
    await repo.assertRestores(doomedUid, doomed);
    await repo.json(["scrub", "--deep"]);

    // Room is made: what the failed backup left, and a version.
    await repo.run(["gc", "--abandon"]);
    await repo.assertNoOrphans();
    await repo.run(["rm", doomedUid]);
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
    const again = await writeNoise(image, "fits", 10 * MIB);
    const { uid } = await repo.backup(image, "fits");
    await repo.assertRestores(uid, again);
    await repo.assertRestores(keptUid, kept);
  });

  it("removes and collects when the storage has no byte left", async () => {
    await using home = await TemporaryFolder.make();
    await using disk = await mountTmpfs(home.at("disk"), 16 * MIB);
    const places = { main: path.join(disk.path, "storage") };
    await using repo = await TestRepository.make({ places });
    const image = repo.home.at("image");
    const kept = await writeImage(image, noiseBlocks("kept", 8));
    const keptUid = (await repo.backup(image, "kept")).uid;
    await writeNoise(image, "doomed", 8 * MIB);
    const doomedUid = (await repo.backup(image, "doomed")).uid;
    const filler = await fillUp(disk.path);
    assert.equal((await statfs(disk.path)).bavail, 0, "the disk is full");
    await repo.run(["rm", doomedUid]);
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
    assert.equal(await repo.blockCount(), 8);
    await rm(filler);
    const again = await writeNoise(image, "again", 8 * MIB);
    await repo.assertRestores((await repo.backup(image)).uid, again);
    await repo.assertRestores(keptUid, kept);
  });

  it("ENOSPC of one of two storages: the backup succeeds at the other, and it catches up when there is room", async () => {
    await using home = await TemporaryFolder.make();
    await using disk = await mountTmpfs(home.at("disk"), 16 * MIB);
    const places = { b: path.join(disk.path, "storage") };
    await using repo = await TestRepository.make({ storages: ["a", "b"], places });
    const image = repo.home.at("image");
    const filler = await fillUp(disk.path);
    const bytes = await writeNoise(image, "x", 6 * MIB);
    const ended = await repo.run(["--json", "backup", image, "vol"]);
    const { uid, storages } = parseJson<BackupDocument>(ended);
    assert.equal(storages.find(({ name }) => name === "a")?.complete, true);
    assert.equal(storages.find(({ name }) => name === "b")?.complete, false);
    assert.match(ended.stderr, /warn.*storage b/i, describeEnd(ended));
    await repo.assertRestores(uid, bytes);
    await rm(filler);
    await repo.run(["replicate"]);
    await repo.run(["gc", "--sweep"]);
    await repo.assertNoOrphans();
    await repo.assertRestores(uid, bytes, "b");
  });

  it("ENOSPC of the metadata: a clear error, nothing lost; rm and gc work on the full disk, and then backups", async () => {
    await using home = await TemporaryFolder.make();
    await using disk = await mountTmpfs(home.at("disk"), 48 * MIB);
    const places = { repo: path.join(disk.path, "repo") };
    await using repo = await TestRepository.make({ places });
    const image = repo.home.at("image");
    const kept = await writeImage(image, noiseBlocks("kept", 16));
    const keptUid = (await repo.backup(image, "kept")).uid;
    await writeNoise(image, "doomed", 4 * MIB);
    const doomedUid = (await repo.backup(image, "doomed")).uid;
    const filler = await fillUp(disk.path);

    // More metadata than the free pages of the store take: many small blocks.
    const large = repo.home.at("large");
    await writeNoise(large, "large", 24 * MIB);
    const args = ["backup", large, "large", "--block-size", "512"];
    const error = await repo.fails(EXIT_IO, args);
    assert.match(error.message, /no space|full/i);
    await repo.assertRestores(keptUid, kept);

    await repo.run(["rm", doomedUid]);
    await repo.run(["gc", "--abandon"]);
    const listed = (await repo.versions()).map(({ uid }) => uid);
    assert.deepEqual(listed, [keptUid]);
    await repo.assertNoOrphans();
    await rm(filler);
    const again = await writeNoise(image, "again", 4 * MIB);
    await repo.assertRestores((await repo.backup(image)).uid, again);
    await repo.assertRestores(keptUid, kept);
    await repo.assertNoOrphans();
  });

  it("ENOSPC of a restore's target: a clear error, and the version stays good", async () => {
    await using home = await TemporaryFolder.make();
    await using disk = await mountTmpfs(home.at("disk"), 2 * MIB);
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    const bytes = await writeNoise(image, "x", 4 * MIB);
    const { uid } = await repo.backup(image);
    const error = await repo.fails(EXIT_IO, ["restore", uid, path.join(disk.path, "target")]);
    assert.match(error.message, /no space left/);
    await repo.assertRestores(uid, bytes);
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
  });

  it("ENOSPC of init: nothing half-made is left", async () => {
    await using home = await TemporaryFolder.make();
    await using disk = await mountTmpfs(home.at("disk"), 256 * KIB);
    await fillUp(disk.path);
    const places = { main: path.join(disk.path, "storage") };
    await using repo = await TestRepository.plan({ places });
    const { runAshlar } = await import("#test/fixtures/integration-process.ts");
    const ended = await runAshlar(repo.initArguments(), { env: repo.env, code: EXIT_IO });
    assert.match(ended.stderr, /no space left/);
    assert.ok(!existsSync(repo.folder), "the repository's folder is gone again");
    assert.ok(!existsSync(repo.storageFolder()), "and the storage's");
  });
});

describe("read-only and unmounted disks", { timeout: TEST_TIMEOUT_MS }, () => {
  it(
    "EROFS of the storage: restores work, backups say so; both work once it is writable again",
    {
      skip: mountSkip,
    },
    async () => {
      await using home = await TemporaryFolder.make();
      await using disk = await mountTmpfs(home.at("disk"), 32 * MIB);
      const places = { main: path.join(disk.path, "storage") };
      await using repo = await TestRepository.make({ places });
      const image = repo.home.at("image");
      const bytes = await writeImage(image, noiseBlocks("x", 8));
      const { uid } = await repo.backup(image);
      const other = await repo.backup("-", "other", [], { stdin: noise("o", BLOCK) });
      await remount(disk.path, "ro");
      await repo.assertRestores(uid, bytes);
      await writeImage(image, noiseBlocks("y", 8));
      const error = await repo.fails(EXIT_REFUSED, ["backup", image, "vol"]);
      assert.match(error.message, /read-only/);
      await repo.json(["scrub", "--deep"]);
      await repo.run(["rm", other.uid]);
      await repo.run(["gc", "--abandon"]);
      await remount(disk.path, "rw");
      await repo.run(["gc", "--abandon", "--sweep"]);
      await repo.assertNoOrphans();
      const again = await writeImage(image, noiseBlocks("z", 8));
      await repo.assertRestores((await repo.backup(image)).uid, again);
      await repo.assertRestores(uid, bytes);
    },
  );

  it(
    "EROFS of one of two storages: the backup succeeds at the other, with a warning",
    {
      skip: mountSkip,
    },
    async () => {
      await using home = await TemporaryFolder.make();
      await using disk = await mountTmpfs(home.at("disk"), 32 * MIB);
      const places = { b: path.join(disk.path, "storage") };
      await using repo = await TestRepository.make({ storages: ["a", "b"], places });
      const image = repo.home.at("image");
      const bytes = await writeImage(image, noiseBlocks("x", 8));
      await remount(disk.path, "ro");
      const ended = await repo.run(["--json", "backup", image, "vol"]);
      const { uid, storages } = parseJson<BackupDocument>(ended);
      assert.equal(storages.find(({ name }) => name === "b")?.complete, false);
      assert.match(ended.stderr, /warn.*storage b/i);
      await remount(disk.path, "rw");
      await repo.run(["replicate"]);
      await repo.run(["gc", "--sweep"]);
      await repo.assertNoOrphans();
      await repo.assertRestores(uid, bytes, "b");
    },
  );

  it(
    "EROFS of the metadata: a clear error, and everything is as it was once it is writable again",
    {
      skip: mountSkip,
    },
    async () => {
      await using home = await TemporaryFolder.make();
      await using disk = await mountTmpfs(home.at("disk"), 64 * MIB);
      const places = { repo: path.join(disk.path, "repo") };
      await using repo = await TestRepository.make({ places });
      const image = repo.home.at("image");
      const bytes = await writeImage(image, noiseBlocks("x", 8));
      const { uid } = await repo.backup(image);
      await remount(disk.path, "ro");
      const error = await repo.fails(EXIT_REFUSED, ["backup", image, "vol"]);
      assert.match(error.message, /read-only/);
      await remount(disk.path, "rw");
      await repo.assertRestores(uid, bytes);
      await repo.backup(image);
      await repo.assertNoOrphans();
    },
  );

  it(
    "a storage that is not mounted: 69, and nothing is written into the mount point; mounted again it works",
    {
      skip: mountAndLoopSkip,
    },
    async () => {
      await using home = await TemporaryFolder.make();
      const file = home.at("backing");
      const mountPoint = home.at("disk");
      {
        await using device = await newLoopDevice(file, 64 * MIB);
        await runTool("mkfs.ext4", ["-q", device.path]);
      }
      await using device = await loopDevice(file);
      await using mount = await mountExt4(device.path, mountPoint);
      // The storage is the whole file system, as it is on a disk of its own.
      await using repo = await TestRepository.make({ places: { main: mount.path } });
      const image = repo.home.at("image");
      const bytes = await writeImage(image, noiseBlocks("x", 8));
      const { uid } = await repo.backup(image);
      await unmount(mountPoint);
      assert.deepEqual(await readdir(mountPoint), []);
      const error = await repo.fails(EXIT_UNAVAILABLE, ["backup", image, "vol"]);
      assert.ok(error.message.includes("marker"), error.message);
      assert.ok((error.remedy ?? "").includes("mount"), error.remedy);
      await repo.fails(EXIT_UNAVAILABLE, ["restore", uid, repo.home.at("target")]);
      await repo.fails(EXIT_UNAVAILABLE, ["scrub", "--deep"]);
      await repo.run(["gc"]);
      assert.deepEqual(await readdir(mountPoint), [], "the folder below is left alone");
      await using again = await mountExt4(device.path, mountPoint);
      assert.equal(again.path, mountPoint);
      await repo.assertRestores(uid, bytes);
      assert.equal((await repo.backup(image)).blocksNew, 0);
      await repo.assertNoOrphans();
    },
  );

  it("objects that cannot be deleted stay in trash and go later; nothing else is lost", async (t) => {
    if (!isRoot) return t.skip("needs root, to make a file immutable (chattr)");
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    const kept = await writeImage(image, noiseBlocks("kept", 4));
    const keptUid = (await repo.backup(image, "kept")).uid;
    const known = new Set((await repo.objects(undefined, "blocks")).map(({ name }) => name));
    await writeImage(image, noiseBlocks("doomed", 6));
    const doomed = await repo.backup(image, "doomed");
    const victim = (await repo.objects(undefined, "blocks")).find(({ name }) => !known.has(name));
    assert.ok(victim);
    const isImmutable = await runTool("chattr", ["+i", victim.file]).then(
      () => true,
      () => false,
    );
    if (!isImmutable) return t.skip("needs a file system with immutable files (chattr +i)");
    try {
      await repo.run(["rm", doomed.uid]);
      const { storages } = await repo.json<{ storages: { deleteFailed: number }[] }>(["gc"]);
      assert.equal(storages[0]?.deleteFailed, 1);
      assert.equal(await repo.blockCount(), 5, "all others are gone");
      await repo.assertRestores(keptUid, kept);
    } finally {
      await runTool("chattr", ["-i", victim.file]);
    }
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
    await repo.assertRestores(keptUid, kept);
  });
});

/** Gives a folder and all below it to an account. */
async function giveTo(folder: string, account: { uid: number; gid: number }): Promise<void> {
  await chown(folder, account.uid, account.gid);
  for (const entry of await readdir(folder, { recursive: true })) {
    await chown(path.join(folder, entry), account.uid, account.gid);
  }
}

/** Root may do everything, so as root the program runs as nobody, if nobody may read it. */
async function ordinaryUser(): Promise<{ skip: string } | { uid?: number; gid?: number }> {
  if (!isRoot) return {};
  for (let folder = path.dirname(ASHLAR); folder !== "/"; folder = path.dirname(folder)) {
    const { mode } = await stat(folder);
    if ((mode & 0o005) !== 0o005) return { skip: `as root: needs a checkout that others may read` };
  }
  try {
    accessSync(ASHLAR, constants.X_OK);
  } catch {
    return { skip: "as root: needs a program that others may run" };
  }
  return NOBODY;
}

describe("permissions", { timeout: TEST_TIMEOUT_MS }, () => {
  it("EACCES of storage, source, metadata and target: clear errors with 77, nothing lost, usable again", async (t) => {
    const user = await ordinaryUser();
    if ("skip" in user) return t.skip(user.skip);
    await using repo = await TestRepository.make({ storages: ["main"] });
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("x", 4));
    if (isRoot) await giveTo(repo.home.path, NOBODY);
    const { uid } = await repo.backup(image, "vol", [], user);

    await chmod(image, 0o000);
    const source = await repo.fails(EXIT_REFUSED, ["backup", image, "vol"], user);
    assert.ok(source.message.includes(image), source.message);
    await chmod(image, 0o600);

    const closed = repo.home.at("closed");
    const { mkdir } = await import("node:fs/promises");
    await mkdir(closed, { mode: 0o500 });
    if (isRoot) await chown(closed, NOBODY.uid, NOBODY.gid);
    const target = await repo.fails(EXIT_REFUSED, ["restore", uid, path.join(closed, "t")], user);
    assert.match(target.message, /permission denied/);

    await writeImage(image, noiseBlocks("y", 4));
    const before = await filesBelow(repo.storageFolder());
    const folders = ["blocks", "nodes", "heads", "tmp"].map((name) =>
      path.join(repo.storageFolder(), name),
    );
    for (const folder of folders) await chmod(folder, 0o500);
    const storage = await repo.fails(EXIT_REFUSED, ["backup", image, "vol"], user);
    assert.match(storage.message, /permission denied/);
    for (const folder of folders) await chmod(folder, 0o700);
    assert.deepEqual(await filesBelow(repo.storageFolder()), before);

    const store = path.join(repo.metadata, "kv");
    await chmod(store, 0o000);
    const metadata = await repo.fails(EXIT_REFUSED, ["ls"], user);
    assert.match(metadata.message, /permission denied/);
    await chmod(store, 0o700);

    const target2 = repo.home.at("restored");
    await repo.run(["restore", uid, target2], user);
    const { readFile } = await import("node:fs/promises");
    assert.ok((await readFile(target2)).equals(bytes));
    await repo.backup(image, "vol", [], user);
    await repo.run(["gc", "--abandon"], user);
    await repo.run(["fsck"], user);
  });

  it("EACCES of one of two storages: the backup succeeds at the other, with a warning", async (t) => {
    const user = await ordinaryUser();
    if ("skip" in user) return t.skip(user.skip);
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const image = repo.home.at("image");
    await writeImage(image, noiseBlocks("x", 4));
    if (isRoot) await giveTo(repo.home.path, NOBODY);
    await chmod(repo.storageFolder("b"), 0o000);
    const ended = await repo.run(["--json", "backup", image, "vol"], user);
    assert.match(ended.stderr, /warn.*storage b/i);
    const { storages } = parseJson<BackupDocument>(ended);
    assert.equal(storages.find(({ name }) => name === "b")?.complete, false);
    await chmod(repo.storageFolder("b"), 0o700);
    await repo.run(["replicate"], user);
    await repo.run(["gc", "--sweep"], user);
    const { counts } = await repo.json<{ counts: Record<string, number> }>(["fsck"], user);
    assert.equal(counts["objects"], 2 * ((counts["blocks"] ?? 0) + (counts["nodes"] ?? 0)));
  });
});
