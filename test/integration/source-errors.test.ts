/** A source that fails or changes while it is read: never a valid version of wrong data, and never silently. */
import assert from "node:assert/strict";
import { readFile, stat, truncate, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import {
  BLOCK,
  MIB,
  noise,
  overwrite,
  writeImage,
  writeNoise,
} from "#test/fixtures/integration-image.ts";
import {
  loopDevice,
  loopSkip,
  mountAndLoopSkip,
  mountExt4,
  newLoopDevice,
} from "#test/fixtures/integration-mount.ts";
import {
  describeEnd,
  runTool,
  until,
  type Ended,
  type RunningProcess,
} from "#test/fixtures/integration-process.ts";
import {
  parseJson,
  TEST_TIMEOUT_MS,
  TestRepository,
  type BackupDocument,
  type ErrorDocument,
} from "#test/fixtures/integration-repository.ts";

const EXIT_IO = 74;
/** More than a process with a small budget reads ahead, so that it is not done when it is stopped. */
const LARGE = 32 * MIB;

/** A repository whose processes have little memory, so that a stopped backup has read a part of its source only. */
async function smallMemory(): Promise<TestRepository> {
  const repo = await TestRepository.make();
  await repo.configure([["memory", "budget"], "32MiB"]);
  return repo;
}

/** Starts a backup and stops it (SIGSTOP) when it has stored something. */
async function stopMidway(repo: TestRepository, source: string): Promise<RunningProcess> {
  const running = repo.start(["--json", "backup", source, "vol"]);
  await until(async () => {
    assert.ok(!running.hasEnded, `ended before it could be stopped: ${running.stderr}`);
    return (await repo.blockCount()) > 0 ? true : undefined;
  });
  running.signal("SIGSTOP");
  return running;
}

async function goOn(running: RunningProcess): Promise<Ended> {
  running.signal("SIGCONT");
  return running.ended;
}

async function assertNothingValid(repo: TestRepository): Promise<void> {
  const versions = await repo.versions();
  assert.deepEqual(
    versions.filter(({ status }) => status === "valid"),
    [],
  );
}

describe("source errors", { timeout: TEST_TIMEOUT_MS }, () => {
  it("fails with the offset when the source shrinks while it is read, and goes on once it is whole again", async () => {
    await using repo = await smallMemory();
    const image = repo.home.at("image");
    const bytes = await writeNoise(image, "shrinks", LARGE);
    const cut = LARGE - 4 * MIB - 4321;
    const running = await stopMidway(repo, image);
    await truncate(image, cut);
    const ended = await goOn(running);
    assert.equal(ended.code, EXIT_IO, describeEnd(ended));
    const { error } = parseJson<ErrorDocument>(ended);
    const offset = error.details?.["offset"];
    assert.ok(typeof offset === "number" && offset >= cut && offset < LARGE, String(offset));
    assert.ok(error.message.includes(String(offset)), error.message);
    await assertNothingValid(repo);

    await writeFile(image, bytes);
    const again = await repo.backup(image);
    assert.equal(again.resumed, true);
    await repo.assertRestores(again.uid, bytes);
  });

  it("fails with the offset when the source reads short", async (t) => {
    // A regular file that says 4096 bytes and gives fewer: the kernel's own.
    const source = "/sys/devices/system/cpu/online";
    const size = await stat(source).then(
      (found) => found.size,
      () => 0,
    );
    const content = await readFile(source).catch(() => Buffer.alloc(0));
    if (size <= content.length) return t.skip(`needs a /sys whose ${source} reads short`);
    await using repo = await TestRepository.make();
    const error = await repo.fails(EXIT_IO, ["backup", source, "vol"]);
    assert.equal(error.details?.["offset"], content.length);
    assert.ok(error.message.includes(`offset ${content.length}`), error.message);
    await assertNothingValid(repo);
  });

  it(
    "names the very place that cannot be read, not just the piece that was asked for",
    {
      skip: loopSkip,
    },
    async () => {
      await using repo = await TestRepository.make();
      const file = repo.home.at("backing");
      const [size, readable] = [8 * MIB, 5 * MIB + 3 * BLOCK];
      await using device = await newLoopDevice(file, size, noise("eio", size));
      await truncate(file, readable);
      const error = await repo.fails(EXIT_IO, ["backup", device.path, "vol"]);
      const offset = error.details?.["offset"] as number;
      assert.ok(
        offset <= readable && readable - offset < BLOCK,
        `offset ${offset}, not ${readable}`,
      );
    },
  );

  it(
    "warns about a source that is mounted read-write, and labels the version",
    {
      skip: mountAndLoopSkip,
    },
    async () => {
      await using repo = await TestRepository.make();
      const file = repo.home.at("backing");
      await writeFile(file, "");
      await truncate(file, 16 * MIB);
      await runTool("mkfs.ext4", ["-q", "-F", file]);
      await using device = await loopDevice(file);
      {
        await using mount = await mountExt4(device.path, repo.home.at("mnt"));
        await writeFile(`${mount.path}/content`, "mounted");
        for (const source of [device.path, file]) {
          const running = repo.start(["backup", source, "vol"]);
          const { code, stderr, stdout } = await running.ended;
          assert.equal(code, 0, stderr);
          assert.match(
            stderr,
            /mounted read-write/,
            "the warning is loud, not only in the document",
          );
          const uid = stdout.toString().trimEnd().split("\n").at(-1) ?? "";
          const { labels, warnings, status } = await repo.show(uid);
          assert.equal(status, "valid");
          assert.match(labels["ashlar/inconsistent"] ?? "", /mounted-read-write/);
          assert.ok(warnings.some((warning) => warning.includes("mounted read-write")));
        }
      }
      const unmounted = await repo.backup(device.path);
      assert.deepEqual(unmounted.warnings, []);
      assert.deepEqual((await repo.show(unmounted.uid)).labels, {});
      await using mount = await mountExt4(device.path, repo.home.at("mnt"), "ro,noload");
      const readOnly = await repo.backup(device.path);
      assert.deepEqual(readOnly.warnings, [], `mounted read-only at ${mount.path}`);
    },
  );

  it("warns about a source that changes while it is read, and labels the version", async () => {
    await using repo = await smallMemory();
    const image = repo.home.at("image");
    await writeNoise(image, "changes", LARGE);
    const running = await stopMidway(repo, image);
    await overwrite(image, noise("new", BLOCK), 0);
    const ended = await goOn(running);
    assert.equal(ended.code, 0, describeEnd(ended));
    assert.match(ended.stderr, /was written to while it was read/);
    const result = parseJson<BackupDocument>(ended);
    assert.ok(result.warnings.some((warning) => warning.includes("while it was read")));
    const { labels } = await repo.show(result.uid);
    assert.match(labels["ashlar/inconsistent"] ?? "", /changed-while-read/);

    const quiet = await repo.backup(image);
    assert.deepEqual(quiet.warnings, []);
    assert.deepEqual((await repo.show(quiet.uid)).labels, {});
    await repo.assertRestores(quiet.uid, await readFile(image));
  });

  it("refuses sources that are none: missing, a folder, a character device", async () => {
    await using repo = await TestRepository.make();
    await repo.fails(66, ["backup", repo.home.at("nothing"), "vol"]);
    await repo.fails(64, ["backup", repo.home.path, "vol"]);
    await repo.fails(64, ["backup", "/dev/zero", "vol"]);
    await assertNothingValid(repo);
    const image = repo.home.at("image");
    const bytes = await writeImage(image, [{ noise: "a" }]);
    await repo.assertRestores((await repo.backup(image)).uid, bytes);
  });
});
