/** Several processes on one repository at once: none fails, none waits for another's end, nothing is stored twice. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import {
  BLOCK,
  imageBytes,
  MIB,
  noise,
  seededRandom,
  writeImage,
  writeNoise,
  type BlockContent,
} from "#test/fixtures/integration-image.ts";
import { describeEnd, until, type RunningProcess } from "#test/fixtures/integration-process.ts";
import {
  idsOf,
  parseJson,
  TEST_TIMEOUT_MS,
  TestRepository,
  type BackupDocument,
} from "#test/fixtures/integration-repository.ts";

/** Waits for all of them, and asserts that each succeeded. */
async function allSucceed(running: readonly RunningProcess[]): Promise<void> {
  for (const ended of await Promise.all(running.map((each) => each.ended))) {
    assert.equal(ended.code, 0, describeEnd(ended));
  }
}

/** Blocks of which other images have some too. */
function shared(seed: string, count: number): BlockContent[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, (_, at): BlockContent => {
    if (random() < 0.2) return "hole";
    return { noise: random() < 0.5 ? `common/${at}` : `${seed}/${at}` };
  });
}

describe("several processes", { timeout: TEST_TIMEOUT_MS }, () => {
  it("lets backup, restore, gc, scrub and rm run at the same time on one repository; all succeed and fsck is clean", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const images = new Map<string, Buffer>();
    const kept: { uid: string; bytes: Buffer }[] = [];
    const doomed: string[] = [];
    for (const volume of ["one", "two", "three"]) {
      const file = repo.home.at(volume);
      const bytes = await writeImage(file, shared(volume, 100));
      kept.push({ uid: (await repo.backup(file, volume)).uid, bytes });
      const old = imageBytes(shared(`${volume}/old`, 60));
      doomed.push((await repo.backup("-", `${volume}-old`, [], { stdin: old })).uid);
      images.set(volume, await writeImage(file, shared(`${volume}/new`, 120)));
    }
    const targets = kept.map(() => repo.fresh("target"));
    const backups = [...images].map(([volume, bytes]) => ({
      bytes,
      running: repo.start(["--json", "backup", repo.home.at(volume), volume]),
    }));
    await allSucceed([
      ...backups.map(({ running }) => running),
      ...kept.map(({ uid }, at) => repo.start(["restore", uid, targets[at] ?? ""])),
      ...doomed.map((uid) => repo.start(["rm", uid])),
      repo.start(["gc"]),
      repo.start(["scrub", "--deep"]),
      repo.start(["gc", "--sweep"]),
      repo.start(["fsck"]),
    ]);
    for (const [at, { bytes }] of kept.entries()) {
      assert.ok((await readFile(targets[at] ?? "")).equals(bytes), "restored while others worked");
    }
    for (const { running, bytes } of backups) {
      const { uid } = parseJson<BackupDocument>(await running.ended);
      await repo.assertRestores(uid, bytes);
    }
    const left = (await repo.versions()).map(({ uid }) => uid);
    assert.ok(!doomed.some((uid) => left.includes(uid)), "what was removed is gone");
    await repo.run(["gc", "--sweep"]);
    await repo.assertNoOrphans();
  });

  it("stores the same content once when two processes back it up at the same time", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const [one, two] = [repo.home.at("one"), repo.home.at("two")];
    const bytes = await writeNoise(one, "same", 24 * MIB);
    await writeFile(two, bytes);
    const running = [
      repo.start(["--json", "backup", one, "one"]),
      repo.start(["--json", "backup", two, "two"]),
    ];
    await allSucceed(running);
    const results = await Promise.all(
      running.map(async (each) => parseJson<BackupDocument>(await each.ended)),
    );
    const count = bytes.length / BLOCK;
    const sent = results.reduce((sum, { blocksNew }) => sum + blocksNew, 0);
    assert.equal(sent, count, "each block was sent by one of them");
    for (const storage of repo.storages) {
      const ids = idsOf(await repo.objects(storage, "blocks"));
      assert.equal(ids.length, count);
      assert.equal(new Set(ids).size, count);
    }
    for (const { uid } of results) await repo.assertRestores(uid, bytes);
    await repo.assertNoOrphans();
  });

  it("does not make anybody wait while a backup hangs at its source", async () => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    const bytes = await writeImage(image, shared("first", 20));
    const { uid } = await repo.backup(image);
    const hanging = repo.start(["--json", "backup", "-", "stream"], { stdin: "pipe" });
    // More than one piece, so that something of it is stored.
    const stream = noise("stream", 5 * MIB);
    await hanging.write(stream.subarray(0, 4 * MIB + 100));
    const before = await repo.blockCount();
    await until(async () => ((await repo.blockCount()) > before ? true : undefined));

    const other = await repo.backup(image, "other");
    await repo.assertRestores(uid, bytes);
    await repo.run(["rm", uid]);
    await repo.run(["gc", "--abandon", "--sweep"]);
    await repo.run(["scrub", "--deep"]);
    await repo.run(["fsck"]);
    assert.ok(!hanging.hasEnded, "it is still there");

    await hanging.write(stream.subarray(4 * MIB + 100));
    hanging.child.stdin?.end();
    const ended = await hanging.ended;
    assert.equal(ended.code, 0, describeEnd(ended));
    await repo.assertRestores(parseJson<BackupDocument>(ended).uid, stream);
    await repo.assertRestores(other.uid, bytes);
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
  });

  it("restores a version to its end although it is removed and collected meanwhile", async () => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    const bytes = await writeNoise(image, "held", 24 * MIB);
    const { uid } = await repo.backup(image);
    const restoring = repo.start(["restore", uid, "-"]);
    // It hangs where nobody reads on, with its root held.
    restoring.child.stdout?.pause();
    await until(async () => {
      const { sessions } = await repo.json<{ sessions: { kind: string }[] }>(["status"]);
      return sessions.some(({ kind }) => kind === "restore") ? true : undefined;
    });
    await repo.run(["rm", uid]);
    await repo.run(["gc"]);
    restoring.child.stdout?.resume();
    const ended = await restoring.ended;
    assert.equal(ended.code, 0, describeEnd(ended));
    assert.ok(ended.stdout.equals(bytes));
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
    assert.equal(await repo.blockCount(), 0);
  });

  it("makes one version of each of many backups that start at once", async () => {
    await using repo = await TestRepository.make();
    const sources = await Promise.all(
      Array.from({ length: 5 }, async (_, at) => {
        const file = repo.home.at(`image-${at}`);
        return { file, bytes: await writeImage(file, shared(`many/${at}`, 40)) };
      }),
    );
    const running = sources.map(({ file }) => repo.start(["--json", "backup", file, "vol"]));
    await allSucceed(running);
    for (const [at, each] of running.entries()) {
      const { uid } = parseJson<BackupDocument>(await each.ended);
      await repo.assertRestores(uid, sources[at]?.bytes ?? Buffer.alloc(0));
    }
    assert.equal((await repo.versions()).length, sources.length);
    await repo.assertNoOrphans();
  });
});
