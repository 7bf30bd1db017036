/** Holes, zero blocks and known blocks are never stored; devices of every size, from files and streams. */
import assert from "node:assert/strict";
import { copyFile, truncate, writeFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { describe, it } from "node:test";
import {
  below,
  BLOCK,
  imageBytes,
  noise,
  overwrite,
  seededRandom,
  writeImage,
  type BlockContent,
} from "#test/fixtures/integration-image.ts";
import { idsOf, TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";

/** As small as tests may have them: a leaf of the tree is 128 KiB. */
const SMALL = 512;
const FAN_OUT = 256;
const TIB = 2 ** 40;

describe("holes and sizes", { timeout: TEST_TIMEOUT_MS }, () => {
  it("stores neither holes (SEEK_HOLE) nor zero blocks, and does not read the holes", async () => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    const bytes = await writeImage(image, [
      { noise: "first" },
      "hole",
      "hole",
      "hole",
      "zero",
      "zero",
      { noise: "second" },
      "hole",
    ]);
    const result = await repo.backup(image);
    assert.equal(await repo.blockCount(), 2, "two blocks have data");
    assert.equal(result.blocksNew, 2);
    assert.equal(result.blocksSparse, 6);
    assert.equal(result.blocksRead, 4, "the data and the written zeros");
    await repo.assertRestores(result.uid, bytes);
  });

  it("backs up a device of 1 TiB that is one hole but for two blocks by reading those two", async (t) => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    await writeFile(image, "");
    try {
      await truncate(image, TIB);
    } catch (error) {
      return t.skip(`needs a file system that takes a sparse file of 1 TiB: ${String(error)}`);
    }
    await overwrite(image, noise("low", BLOCK), 5 * BLOCK);
    await overwrite(image, noise("high", BLOCK), TIB - BLOCK);
    const result = await repo.backup(image);
    assert.equal(result.sizeBytes, TIB);
    assert.equal(result.bytesRead, 2 * BLOCK);
    assert.equal(await repo.blockCount(), 2);
    const part = await repo.restore(result.uid, ["--range", `${TIB - 2 * BLOCK}:${2 * BLOCK}`]);
    assert.ok(part.equals(Buffer.concat([Buffer.alloc(BLOCK), noise("high", BLOCK)])));
  });

  it("stores a device of zeros without a block", async () => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    const bytes = await writeImage(image, ["zero", "hole", "zero"], 3 * BLOCK - 77);
    const result = await repo.backup(image);
    assert.equal(await repo.blockCount(), 0);
    await repo.assertRestores(result.uid, bytes);
  });

  it("never stores a known block: of this image, of an older version, or of another volume", async () => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    const [a, b, c] = ["a", "b", "c"].map((seed): BlockContent => ({ noise: seed }));
    assert.ok(a && b && c);
    const first = await writeImage(image, [a, b, a, a, b]);
    const before = await repo.backup(image, "one");
    assert.equal(before.blocksNew, 2);
    const stored = await repo.objects("main", "blocks");
    assert.equal(stored.length, 2);

    const again = await repo.backup(image, "one");
    assert.equal(again.blocksNew, 0);
    const copy = repo.home.at("copy");
    await copyFile(image, copy);
    const other = await repo.backup(copy, "two");
    assert.equal(other.blocksNew, 0);
    assert.deepEqual(await repo.objects("main", "blocks"), stored, "not even written again");

    const second = await writeImage(image, [b, c, a, "zero", c]);
    const changed = await repo.backup(image, "one");
    assert.equal(changed.blocksNew, 1);
    assert.equal(await repo.blockCount(), 3);
    await repo.assertRestores(before.uid, first);
    await repo.assertRestores(other.uid, first);
    await repo.assertRestores(changed.uid, second);
  });

  it("takes a last block that is short, and knows it from the same bytes with zeros behind", async () => {
    await using repo = await TestRepository.make();
    const short = repo.home.at("short");
    const long = repo.home.at("long");
    const bytes = await writeImage(short, [{ noise: "a" }, { noise: "b" }], BLOCK + 12_345);
    const padded = Buffer.concat([bytes, Buffer.alloc(2 * BLOCK - bytes.length)]);
    await writeFile(long, padded);
    const one = await repo.backup(short, "short");
    const two = await repo.backup(long, "long");
    assert.equal(one.sizeBytes, BLOCK + 12_345);
    assert.equal(await repo.blockCount(), 3, "the short one and the padded one are two blocks");
    await repo.assertRestores(one.uid, bytes);
    await repo.assertRestores(two.uid, padded);
  });

  it("works for sizes of 0, 1 byte and multiples of nothing: from files and streams, to files and stdout", async () => {
    await using repo = await TestRepository.make({ blockBytes: SMALL });
    const image = repo.home.at("image");
    let blocks = 0;
    // The last ones: a leaf of the tree that is full, and one byte more.
    const sizes = [0, 1, SMALL, SMALL + 1, FAN_OUT * SMALL, FAN_OUT * SMALL + 1];
    for (const [at, size] of sizes.entries()) {
      const bytes = noise(`size ${size}`, size);
      await writeFile(image, bytes);
      const file = await repo.backup(image, `file-${size}`);
      const stream = await repo.backup("-", `stream-${size}`, [], { stdin: bytes });
      assert.equal(file.sizeBytes, size);
      assert.equal(stream.sizeBytes, size);
      blocks += Math.ceil(size / SMALL);
      assert.equal(await repo.blockCount(), blocks, `blocks of ${size} bytes`);
      if (at % 2 === 0) {
        await repo.assertRestores(file.uid, bytes);
      } else {
        const { stdout } = await repo.run(["restore", stream.uid, "-"]);
        assert.ok(stdout.equals(bytes), `stdout has the ${size} bytes, and nothing else`);
      }
    }
    // The same content has the same root, wherever it came from: so what was not restored is right as well.
    const roots = new Map((await repo.versions()).map(({ volume, root }) => [volume, root]));
    for (const size of sizes) {
      assert.equal(roots.get(`file-${size}`), roots.get(`stream-${size}`), `${size} bytes`);
    }
    await repo.assertNoOrphans();
  });

  it("reads a stream that comes in pieces of any length", async () => {
    await using repo = await TestRepository.make({ blockBytes: SMALL });
    const random = seededRandom("pieces");
    const bytes = Buffer.concat([noise("x", 300_001), Buffer.alloc(100_000), noise("y", 77_777)]);
    async function* pieces(): AsyncGenerator<Buffer> {
      for (let at = 0; at < bytes.length;) {
        const length = 1 + below(random, 20_000);
        yield bytes.subarray(at, at + length);
        at += length;
        await new Promise(setImmediate);
      }
    }
    const stdin = Readable.from(pieces(), { objectMode: false });
    const result = await repo.backup("-", "stream", [], { stdin });
    assert.equal(result.sizeBytes, bytes.length);
    const { stdout } = await repo.run(["restore", result.uid, "-"]);
    assert.ok(stdout.equals(bytes));
  });

  it("prints the uid as its last line on stdout", async () => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    await writeFile(image, "x");
    const { stdout } = await repo.run(["backup", image, "vol"]);
    const uid = stdout.toString().trimEnd().split("\n").at(-1) ?? "";
    assert.match(uid, /^vol-[a-z0-9]{6}$/);
    assert.equal((await repo.show(uid)).uid, uid);
  });

  for (const seed of ["s1"]) {
    it(`stores each distinct block with data once, whatever the image looks like (seed ${seed})`, async () => {
      await using repo = await TestRepository.make({ blockBytes: SMALL });
      const random = seededRandom(seed);
      const image = repo.home.at("image");
      const versions: { readonly uid: string; readonly bytes: Buffer }[] = [];
      const expected = new Set<string>();
      for (let round = 0; round < 3; round += 1) {
        const blocks = Array.from({ length: below(random, 700) }, (): BlockContent => {
          const draw = below(random, 10);
          if (draw < 2) return "hole";
          if (draw < 4) return "zero";
          return { noise: String(below(random, 300)) };
        });
        const size = Math.max(0, blocks.length * SMALL - below(random, SMALL));
        const bytes = await writeImage(image, blocks, size, SMALL);
        for (let at = 0; at < size; at += SMALL) {
          const block = bytes.subarray(at, at + SMALL);
          if (block.some((byte) => byte !== 0)) expected.add(block.toString("latin1"));
        }
        versions.push({ uid: (await repo.backup(image)).uid, bytes });
      }
      const stored = idsOf(await repo.objects("main", "blocks"));
      assert.equal(stored.length, expected.size);
      assert.equal(new Set(stored).size, stored.length, "no block twice");
      for (const { uid, bytes } of versions) await repo.assertRestores(uid, bytes);
      await repo.assertNoOrphans();
    });
  }

  it("keeps what one image has and another has not apart, down to a byte", async () => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    const bytes = imageBytes([{ noise: "base" }, { noise: "tail" }]);
    await writeFile(image, bytes);
    const one = await repo.backup(image);
    const changed = Buffer.from(bytes);
    changed[BLOCK] = (changed[BLOCK] ?? 0) ^ 1;
    await writeFile(image, changed);
    const two = await repo.backup(image);
    assert.equal(two.blocksNew, 1);
    await repo.assertRestores(one.uid, bytes);
    await repo.assertRestores(two.uid, changed);
  });
});
