/** Restores onto what holds something already: nothing of it shows through; and targets that are refused. */
import assert from "node:assert/strict";
import { open, readFile, stat, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import {
  BLOCK,
  MIB,
  noise,
  writeImage,
  type BlockContent,
} from "#test/fixtures/integration-image.ts";
import {
  loopSkip,
  mountAndLoopSkip,
  mountExt4,
  newLoopDevice,
} from "#test/fixtures/integration-mount.ts";
import { runTool } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";

const EXIT_USAGE = 64;
const EXIT_NOT_FOUND = 66;
const EXIT_EXISTS = 73;
const EXIT_REFUSED = 77;

/** A repository whose only version has data, holes, written zeros and a short zero end. */
interface Holed {
  readonly repo: TestRepository;
  readonly uid: string;
  readonly bytes: Buffer;
}

/** What a restore did. */
interface Counted {
  readonly bytesWritten: number;
  readonly bytesZero: number;
  readonly bytesEqual: number;
}

async function makeHoled(): Promise<Holed> {
  const repo = await TestRepository.make({ storages: ["a", "b"] });
  const image = repo.home.at("image");
  const bytes = await writeImage(
    image,
    ["hole", { noise: "a" }, "zero", "zero", { noise: "b" }, "hole", "zero"],
    7 * BLOCK - 4321,
  );
  // A block with data in its middle only is no zero block.
  noise("middle", 100).copy(bytes, 2 * BLOCK + 5000);
  await using handle = await open(image, "r+");
  await handle.write(bytes, 2 * BLOCK, BLOCK, 2 * BLOCK);
  return { repo, uid: (await repo.backup(image)).uid, bytes };
}

const WAYS: readonly (readonly string[])[] = [
  [],
  ["--sparse"],
  ["--differential"],
  ["--sparse", "--differential"],
];

async function readDevice(device: string, length: number): Promise<Buffer> {
  await using handle = await open(device, "r");
  const bytes = Buffer.alloc(length);
  await handle.read(bytes, 0, length, 0);
  return bytes;
}

/** Files of the repository and its storages with their content: a refused restore leaves them as they were. */
async function fingerprint(repo: TestRepository): Promise<string[]> {
  const objects = [...(await repo.objects("a")), ...(await repo.objects("b"))];
  const files = [repo.configFile, repo.keyFile, ...objects.map(({ file }) => file)];
  return Promise.all(
    files.map(async (file) => `${file} ${(await readFile(file)).toString("base64")}`),
  );
}

describe("restore onto old content", { timeout: TEST_TIMEOUT_MS }, () => {
  let holed: Holed;
  before(async () => {
    holed = await makeHoled();
  });
  after(() => holed.repo[Symbol.asyncDispose]());

  it("lets nothing of an old file show through: plainly, with --sparse, with --differential", async () => {
    const { repo, uid, bytes } = holed;
    for (const options of WAYS) {
      for (const length of [20 * BLOCK + 1, 3 * BLOCK]) {
        const target = repo.fresh("old");
        await writeFile(target, noise("old content", length));
        await repo.run(["restore", uid, target, "--force", ...options]);
        const how = `${options.join(" ")} over ${length} bytes`;
        assert.ok((await readFile(target)).equals(bytes), how);
      }
    }
  });

  it(
    "lets nothing of an old block device show through, and leaves what lies behind alone",
    {
      skip: loopSkip,
    },
    async () => {
      const { repo, uid, bytes } = holed;
      const old = noise("old device", 2 * MIB);
      for (const options of WAYS) {
        await using device = await newLoopDevice(repo.fresh("backing"), old.length, old);
        await repo.run(["restore", uid, device.path, "--force", ...options]);
        const found = await readDevice(device.path, old.length);
        assert.ok(found.subarray(0, bytes.length).equals(bytes), `${options.join(" ")}: restored`);
        const behind = old.subarray(bytes.length);
        assert.ok(found.subarray(bytes.length).equals(behind), `${options.join(" ")}: behind it`);
      }
    },
  );

  it("punches holes with --sparse, so that zeros take no space", async (t) => {
    const { repo } = holed;
    const image = repo.home.at("mostly-zero");
    const blocks = Array.from({ length: 64 }, (_, at): BlockContent =>
      at === 9 ? { noise: "one" } : "zero",
    );
    const bytes = await writeImage(image, blocks);
    const { uid } = await repo.backup(image, "mostly-zero");
    const target = repo.home.at("punched");
    await writeFile(target, noise("old", bytes.length));
    const { blocks: taken } = await stat(target);
    if (taken * 512 < bytes.length) return t.skip("needs a file system that does not compress");
    await repo.run(["restore", uid, target, "--force", "--sparse"]);
    const { blocks: left } = await stat(target);
    assert.ok(left * 512 <= 4 * BLOCK, `${left * 512} bytes are taken of ${taken * 512}`);
    assert.ok((await readFile(target)).equals(bytes));
  });

  it("writes only what differs with --differential: neither data nor zeros that are there, and no holes are filled", async () => {
    const { repo, uid, bytes } = holed;
    const target = repo.fresh("same");
    await repo.run(["restore", uid, target, "--sparse"]);
    const { blocks: taken } = await stat(target);
    for (const options of [[], ["--sparse"]]) {
      const args = ["restore", uid, target, "--force", "--differential", ...options];
      const { bytesWritten, bytesZero, bytesEqual } = await repo.json<Counted>(args);
      assert.deepEqual([bytesWritten, bytesZero, bytesEqual], [0, 0, bytes.length]);
      assert.equal((await stat(target)).blocks, taken, "no hole was filled");
    }
    await using handle = await open(target, "r+");
    await handle.write("old", 3 * BLOCK + 17);
    const differing = ["restore", uid, target, "--force", "--differential"];
    const { bytesWritten, bytesZero } = await repo.json<Counted>(differing);
    assert.equal(bytesWritten, 0);
    assert.ok(bytesZero > 0 && bytesZero <= BLOCK, `${bytesZero} bytes`);
    assert.ok((await readFile(target)).equals(bytes));
  });

  it("restores a range alone, onto old content as well", async () => {
    const { repo, uid, bytes } = holed;
    const [offset, length] = [BLOCK - 777, 3 * BLOCK + 1234];
    const target = repo.home.at("part");
    await writeFile(target, noise("old", 9 * BLOCK));
    const range = `${offset}:${length}`;
    await repo.run(["restore", uid, target, "--force", "--sparse", "--range", range]);
    assert.ok((await readFile(target)).equals(bytes.subarray(offset, offset + length)));
  });
});

describe("refused targets", { timeout: TEST_TIMEOUT_MS }, () => {
  let holed: Holed;
  before(async () => {
    holed = await makeHoled();
  });
  after(() => holed.repo[Symbol.asyncDispose]());

  it("refuses what exists without --force, with 73", async () => {
    const { repo, uid } = holed;
    const target = repo.home.at("target");
    await writeFile(target, "mine");
    await repo.fails(EXIT_EXISTS, ["restore", uid, target]);
    assert.equal(await readFile(target, "utf8"), "mine");
  });

  it("refuses the repository's own storage, metadata, key and configuration, with 77", async () => {
    const { repo, uid } = holed;
    const [object] = await repo.objects("b", "blocks");
    assert.ok(object);
    const folderLink = repo.home.at("link-to-folder");
    const objectLink = repo.home.at("link-to-object");
    await symlink(repo.storageFolder("a"), folderLink);
    await symlink(object.file, objectLink);
    const untouched = await fingerprint(repo);
    const targets = [
      path.join(repo.storageFolder("b"), "blocks", "new"),
      path.join(folderLink, "new"),
      objectLink,
      path.join(repo.storageFolder("a"), "ashlar-storage.json"),
      path.join(repo.metadata, "kv", "data.mdb"),
      repo.keyFile,
      repo.configFile,
    ];
    for (const target of targets) {
      await repo.fails(EXIT_REFUSED, ["restore", uid, target, "--force"]);
    }
    assert.deepEqual(await fingerprint(repo), untouched, "nothing was touched");
    await repo.assertClean();
  });

  it("refuses a folder and a target whose folder is missing", async () => {
    const { repo, uid } = holed;
    await repo.fails(EXIT_USAGE, ["restore", uid, repo.home.path, "--force"]);
    await repo.fails(EXIT_NOT_FOUND, ["restore", uid, repo.home.at("missing", "target")]);
  });

  it(
    "refuses a device that is too small, with 77, and any device without --force, with 73",
    {
      skip: loopSkip,
    },
    async () => {
      const { repo, uid } = holed;
      const small = noise("small", 4 * BLOCK);
      await using device = await newLoopDevice(repo.home.at("small"), small.length, small);
      await repo.fails(EXIT_REFUSED, ["restore", uid, device.path, "--force"]);
      await repo.fails(EXIT_EXISTS, ["restore", uid, device.path]);
      assert.ok((await readDevice(device.path, small.length)).equals(small), "it is as it was");
    },
  );

  it(
    "refuses a device that is mounted, and the file behind it, with 77",
    {
      skip: mountAndLoopSkip,
    },
    async () => {
      const { repo, uid } = holed;
      const file = repo.home.at("mounted");
      await using device = await newLoopDevice(file, 16 * MIB);
      await runTool("mkfs.ext4", ["-q", device.path]);
      {
        await using mount = await mountExt4(device.path, repo.home.at("mnt"));
        for (const target of [device.path, file]) {
          const error = await repo.fails(EXIT_REFUSED, ["restore", uid, target, "--force"]);
          assert.ok(error.message.includes(mount.path), error.message);
        }
      }
      {
        await using mount = await mountExt4(device.path, repo.home.at("mnt"), "ro");
        assert.ok(mount.path);
        await repo.fails(EXIT_REFUSED, ["restore", uid, device.path, "--force"]);
      }
      await repo.run(["restore", uid, device.path, "--force"]);
    },
  );
});
