/** Hints: change lists with a base, allocation maps without, and what happens when they are wrong. */
import assert from "node:assert/strict";
import { truncate, unlink, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import {
  BLOCK,
  noise,
  noiseBlocks,
  overwrite,
  writeImage,
} from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";

const EXIT_USAGE = 64;
const EXIT_DAMAGED = 65;
const EXIT_NOT_FOUND = 66;

interface Hint {
  readonly offset: number;
  readonly length: number;
  readonly exists: boolean;
}

function hint(block: number, blocks = 1, exists = true): Hint {
  return { offset: block * BLOCK, length: blocks * BLOCK, exists };
}

/** Writes hints to a file and returns its path. */
async function hintsFile(repo: TestRepository, hints: unknown): Promise<string> {
  const file = repo.fresh("hints.json");
  await writeFile(file, typeof hints === "string" ? hints : JSON.stringify(hints));
  return file;
}

/** A base of `count` different blocks, and its image. */
async function withBase(
  repo: TestRepository,
  count: number,
): Promise<{ image: string; bytes: Buffer; base: string }> {
  const image = repo.home.at("image");
  const bytes = await writeImage(image, noiseBlocks("base", count));
  return { image, bytes, base: (await repo.backup(image)).uid };
}

describe("hints", { timeout: TEST_TIMEOUT_MS }, () => {
  it("reads what a change list names, and takes everything else from the base", async () => {
    await using repo = await TestRepository.make();
    const { image, bytes, base } = await withBase(repo, 600);
    const changed = Buffer.from(bytes);
    for (const block of [3, 4, 300]) noise(`new/${block}`, BLOCK).copy(changed, block * BLOCK);
    changed.fill(0, 500 * BLOCK, 502 * BLOCK);
    await writeFile(image, changed);
    const hints = await hintsFile(repo, [hint(3, 2), hint(300), hint(500, 2, false)]);
    const result = await repo.backup(image, "vol", ["--base", base, "--hints", hints]);
    assert.equal(result.blocksNew, 3);
    // With 600 blocks and the default of 0.1 %, every run looks at one or none of the unchanged ones.
    assert.ok(result.blocksRead === 3 || result.blocksRead === 4, `${result.blocksRead} read`);
    assert.equal(result.blocksSparse, 2);
    assert.deepEqual(result.warnings, []);
    await repo.assertRestores(result.uid, changed);
    await repo.assertRestores(base, bytes);
    await repo.assertNoOrphans();
  });

  it("takes hints from standard input", async () => {
    await using repo = await TestRepository.make();
    const { image, bytes, base } = await withBase(repo, 4);
    noise("new", BLOCK).copy(bytes, 2 * BLOCK);
    await writeFile(image, bytes);
    const stdin = Buffer.from(JSON.stringify([hint(2)]));
    const args = ["--base", base, "--hints", "-"];
    const result = await repo.backup(image, "vol", args, { stdin });
    assert.equal(result.blocksNew, 1);
    await repo.assertRestores(result.uid, bytes);
  });

  it("follows a source that has grown or shrunk since the base", async () => {
    await using repo = await TestRepository.make();
    const { image, bytes, base } = await withBase(repo, 300);
    const grown = Buffer.concat([bytes, noise("more", 3 * BLOCK + 999)]);
    await writeFile(image, grown);
    const none = await hintsFile(repo, []);
    const larger = await repo.backup(image, "vol", ["--base", base, "--hints", none]);
    await repo.assertRestores(larger.uid, grown);
    const shrunk = grown.subarray(0, 200 * BLOCK + 17);
    await truncate(image, shrunk.length);
    const smaller = await repo.backup(image, "vol", ["--base", larger.uid, "--hints", none]);
    await repo.assertRestores(smaller.uid, shrunk);
    assert.ok(smaller.blocksRead <= 3, `${smaller.blocksRead} read`);
  });

  it("demands a base that is valid, of the same volume, and of the same block size", async () => {
    await using repo = await TestRepository.make();
    const { image, base } = await withBase(repo, 3);
    const hints = await hintsFile(repo, []);
    const args = ["--base", base, "--hints", hints];
    await repo.fails(EXIT_USAGE, ["backup", image, "other", ...args]);
    await repo.fails(EXIT_USAGE, ["backup", image, "vol", "--block-size", "128KiB", ...args]);
    const nobody = ["--base", "vol-nobody", "--hints", hints];
    await repo.fails(EXIT_NOT_FOUND, ["backup", image, "vol", ...nobody]);
    await repo.fails(EXIT_USAGE, ["backup", image, "vol", "--base", base]);
    await repo.fails(EXIT_USAGE, ["backup", image, "vol", "--strict-hints"]);

    const [block] = await repo.objects("main", "blocks");
    await unlink(block?.file ?? "");
    await repo.fails(EXIT_DAMAGED, ["scrub"]);
    assert.equal((await repo.show(base)).status, "invalid");
    const error = await repo.fails(EXIT_USAGE, ["backup", image, "vol", ...args]);
    assert.match(error.message, /invalid/);
  });

  it("reads everything, with a warning, when the sample shows that a hint is wrong", async () => {
    await using repo = await TestRepository.make();
    await repo.configure([["defaults", "hintSample"], "100%"]);
    const { image, bytes, base } = await withBase(repo, 300);
    const changed = Buffer.from(bytes);
    for (const block of [7, 299]) noise(`new/${block}`, BLOCK).copy(changed, block * BLOCK);
    await writeFile(image, changed);
    const hints = await hintsFile(repo, [hint(7)]);
    const result = await repo.backup(image, "vol", ["--base", base, "--hints", hints]);
    assert.ok(result.blocksRead >= 300, `${result.blocksRead} read`);
    assert.equal(result.warnings.length, 1);
    assert.match(result.warnings[0] ?? "", /block 299 .*everything was read/);
    await repo.assertRestores(result.uid, changed);
    assert.deepEqual((await repo.show(result.uid)).warnings, result.warnings);
  });

  it("fails with 65 on a wrong hint with --strict-hints", async () => {
    await using repo = await TestRepository.make();
    await repo.configure([["defaults", "hintSample"], "100%"]);
    const { image, bytes, base } = await withBase(repo, 20);
    await overwrite(image, noise("new", BLOCK), 11 * BLOCK);
    const hints = await hintsFile(repo, [hint(2)]);
    const args = ["--base", base, "--hints", hints, "--strict-hints"];
    const error = await repo.fails(EXIT_DAMAGED, ["backup", image, "vol", ...args]);
    assert.match(error.message, /block 11/);
    const valid = (await repo.versions()).filter(({ status }) => status === "valid");
    assert.deepEqual(
      valid.map(({ uid }) => uid),
      [base],
      "the failed one is no valid version",
    );
    await repo.assertRestores(base, bytes);
  });

  it("finds a wrong hint within N runs, because the sample rotates", async () => {
    await using repo = await TestRepository.make();
    const count = 6;
    const started = await withBase(repo, count);
    const { image, bytes } = started;
    let { base } = started;
    await overwrite(image, noise("silent", BLOCK), 4 * BLOCK);
    noise("silent", BLOCK).copy(bytes, 4 * BLOCK);
    const none = await hintsFile(repo, []);
    let rounds = 0;
    for (let warned = false; !warned; rounds += 1) {
      assert.ok(rounds < count, `not found within ${count} runs of an image of ${count} blocks`);
      const result = await repo.backup(image, "vol", ["--base", base, "--hints", none]);
      warned = result.warnings.length > 0;
      base = result.uid;
    }
    await repo.assertRestores(base, bytes);
  });

  it("takes hints without a base for an allocation map: the rest is zero without reading", async () => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    const isMapped = (at: number): boolean => at === 0 || at === 10 || at === 11 || at >= 290;
    const blocks = noiseBlocks("map", 300).map((block, at) => (isMapped(at) ? block : "zero"));
    const bytes = await writeImage(image, blocks);
    const hints = await hintsFile(repo, [hint(0), hint(10, 2), hint(290, 10)]);
    const result = await repo.backup(image, "vol", ["--hints", hints]);
    // One more may be looked at by the sample.
    assert.ok([13, 14].includes(result.blocksRead), `${result.blocksRead} read`);
    assert.equal(result.blocksSparse, 287);
    await repo.assertRestores(result.uid, bytes);
  });

  it("reads everything, with a warning, when an allocation map leaves out what is not zero", async () => {
    await using repo = await TestRepository.make();
    await repo.configure([["defaults", "hintSample"], "100%"]);
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("map", 20));
    const hints = await hintsFile(repo, [hint(0, 10)]);
    const result = await repo.backup(image, "vol", ["--hints", hints]);
    assert.match(result.warnings[0] ?? "", /everything was read/);
    await repo.assertRestores(result.uid, bytes);
  });

  it("fails with 65 on malformed hints, before anything is read", async () => {
    await using repo = await TestRepository.make();
    const { image, base } = await withBase(repo, 3);
    const malformed: unknown[] = [
      "not json",
      "",
      { offset: 0, length: 1, exists: true },
      [{ offset: 0, length: 1 }],
      [{ offset: -1, length: 1, exists: true }],
      [{ offset: 0, length: 1.5, exists: true }],
      [hint(2, 2)],
    ];
    for (const hints of malformed) {
      const file = await hintsFile(repo, hints);
      const args = ["--base", base, "--hints", file];
      const error = await repo.fails(EXIT_DAMAGED, ["backup", image, "vol", ...args]);
      assert.match(error.message, /hints/);
    }
    const missing = ["backup", image, "vol", "--base", base, "--hints", repo.home.at("none")];
    await repo.fails(EXIT_NOT_FOUND, missing);
    const valid = (await repo.versions()).filter(({ status }) => status === "valid");
    assert.equal(valid.length, 1);
  });
});
