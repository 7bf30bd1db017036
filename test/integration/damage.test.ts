/** Damaged objects: found by scrub and by restore, named, healed where another storage has them, never restored as good. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { open, readFile, truncate, unlink, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { BLOCK, noise } from "#test/fixtures/integration-image.ts";
import { describeEnd } from "#test/fixtures/integration-process.ts";
import {
  parseJson,
  TEST_TIMEOUT_MS,
  TestRepository,
  type StoredObject,
} from "#test/fixtures/integration-repository.ts";

const EXIT_DAMAGED = 65;

interface ScrubDocument {
  readonly damaged: readonly {
    readonly id: string;
    readonly name: string;
    readonly kind: "block" | "node";
    readonly storage: string;
    readonly healed: boolean;
    readonly versions: readonly { readonly uid: string; readonly offsets: readonly number[] }[];
  }[];
}

interface RestoreDocument {
  readonly damaged: readonly {
    readonly id: string;
    readonly offset: number;
    readonly length: number;
  }[];
}

/** A block of an image, and where its object lies. */
interface Victim {
  readonly block: number;
  readonly object: StoredObject;
  readonly id: string;
}

function idOf(object: StoredObject): string {
  return /\/([0-9a-f]+)\./.exec(object.name)?.[1] ?? "";
}

async function flipBit({ file, sizeBytes }: StoredObject): Promise<void> {
  await using handle = await open(file, "r+");
  const byte = Buffer.alloc(1);
  const at = Math.floor(sizeBytes / 2);
  await handle.read(byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ 0x10;
  await handle.write(byte, 0, 1, at);
}

async function swap(one: StoredObject, other: StoredObject): Promise<void> {
  const [a, b] = [await readFile(one.file), await readFile(other.file)];
  await writeFile(one.file, b);
  await writeFile(other.file, a);
}

/** A block that compresses to a size of its own: by its object's size it is known. */
function sizedBlock(seed: string, rank: number): Buffer {
  return Buffer.concat([noise(seed, 1000 * (rank + 1))], BLOCK);
}

/**
 * Backs up an image of which it is known what object each block became. The last block has the size of the second one, so
 * that two objects can change places and no size tells.
 */
async function backUpWatched(
  repo: TestRepository,
  count: number,
): Promise<{ uid: string; bytes: Buffer; victims: Victim[]; image: string }> {
  const image = repo.home.at("image");
  const last = count - 1;
  const twin = Math.min(1, last - 1);
  const blocks = Array.from({ length: count }, (_, block) =>
    sizedBlock(`block ${block}`, block === last ? twin : block),
  );
  await writeFile(image, Buffer.concat(blocks.slice(0, last)));
  await repo.backup(image);
  const before = await repo.objects(undefined, "blocks");
  const victims = before
    .toSorted((a, b) => a.sizeBytes - b.sizeBytes)
    .map((object, block): Victim => ({ block, object, id: idOf(object) }));
  const bytes = Buffer.concat(blocks);
  await writeFile(image, bytes);
  const { uid } = await repo.backup(image);
  const known = new Set(before.map(({ name }) => name));
  for (const object of await repo.objects(undefined, "blocks")) {
    if (!known.has(object.name)) victims.push({ block: last, object, id: idOf(object) });
  }
  assert.equal(victims.length, count);
  assert.equal(victims[last]?.object.sizeBytes, victims[twin]?.object.sizeBytes);
  return { uid, bytes, victims, image };
}

/** An object of another repository. */
async function foreignObject(): Promise<Buffer> {
  await using other = await TestRepository.make();
  await other.backup("-", "vol", [], { stdin: sizedBlock("foreign", 1) });
  const [object] = await other.objects(undefined, "blocks");
  return readFile(object?.file ?? "");
}

/** Damages seven blocks in all the ways that there are. Returns what was damaged. */
async function damageAll(victims: readonly Victim[]): Promise<Victim[]> {
  const [flipped, one, cut, gone, foreign, empty] = victims;
  const other = victims.at(-1);
  assert.ok(flipped && cut && one && other && gone && foreign && empty);
  await flipBit(flipped.object);
  await truncate(cut.object.file, cut.object.sizeBytes - 1000);
  await swap(one.object, other.object);
  await unlink(gone.object.file);
  await writeFile(foreign.object.file, await foreignObject());
  await truncate(empty.object.file, 0);
  return [flipped, one, cut, gone, foreign, empty, other];
}

describe("damage", { timeout: TEST_TIMEOUT_MS }, () => {
  it("finds a flipped bit, a truncated, swapped, missing and foreign object by scrub --deep, named by block, version and offset, exit 65", async () => {
    await using repo = await TestRepository.make();
    const { uid, victims } = await backUpWatched(repo, 9);
    const damaged = await damageAll(victims);
    const found = await repo.json<ScrubDocument>(["scrub", "--deep"], { code: EXIT_DAMAGED });
    assert.deepEqual(
      found.damaged.map(({ id }) => id).sort(),
      damaged.map(({ id }) => id).sort(),
      "these, and no other",
    );
    for (const { id, block } of damaged) {
      const entry = found.damaged.find((each) => each.id === id);
      const place = entry?.versions.find((version) => version.uid === uid);
      assert.deepEqual(place?.offsets, [block * BLOCK], `block ${block} of ${uid}`);
      assert.equal(entry?.healed, false);
    }
    const { stdout } = await repo.run(["scrub", "--deep"], { code: EXIT_DAMAGED });
    const lines = stdout.toString().split("\n");
    for (const { id, block } of damaged) {
      const line = lines.find((each) => each.startsWith(`damaged: block ${id}`)) ?? "";
      assert.ok(line.includes(uid) && line.includes(String(block * BLOCK)), line);
    }
    assert.equal((await repo.show(uid)).status, "invalid");
    await repo.assertClean();
  });

  it("finds each of them by restore, named by block, version and offset, exit 65; --keep-going restores all that is intact, leaves the rest zero and lists it", async () => {
    await using repo = await TestRepository.make();
    const { uid, bytes, victims } = await backUpWatched(repo, 9);
    const damaged = await damageAll(victims);
    for (const { id, block } of damaged) {
      const range = `${block * BLOCK}:${BLOCK}`;
      const target = repo.fresh("part");
      const error = await repo.fails(EXIT_DAMAGED, ["restore", uid, target, "--range", range]);
      for (const named of [id, uid, `offset ${block * BLOCK}`]) {
        assert.ok(error.message.includes(named), `"${error.message}" names ${named}`);
      }
      assert.ok(!existsSync(target), "no empty file is in the way of the next attempt");
    }
    const shown = parseJson<{ status: string }>(await repo.run(["--json", "show", uid]));
    assert.equal(shown.status, "invalid", "what a restore found is known at once");
    const lost = damaged.toSorted((a, b) => a.block - b.block);
    const expected = Buffer.from(bytes);
    for (const { block } of lost) expected.fill(0, block * BLOCK, (block + 1) * BLOCK);
    for (const options of [[], ["--sparse"], ["--differential"]]) {
      const target = repo.fresh("old");
      await writeFile(target, noise("old content", 10 * BLOCK));
      const args = ["--json", "restore", uid, target, "--force", "--keep-going", ...options];
      const ended = await repo.run(args, { code: EXIT_DAMAGED });
      assert.ok((await readFile(target)).equals(expected), `intact, else zero ${options.join()}`);
      const listed = parseJson<RestoreDocument>(ended).damaged;
      assert.deepEqual(
        listed.map(({ id, offset, length }) => ({ id, offset, length })),
        lost.map(({ id, block }) => ({ id, offset: block * BLOCK, length: BLOCK })),
        describeEnd(ended),
      );
      for (const { id, block } of lost) {
        const line = ended.stderr.split("\n").find((each) => each.includes(`block ${id}:`)) ?? "";
        assert.ok(line.includes(uid) && line.includes(`offset ${block * BLOCK}`), ended.stderr);
      }
    }
  });

  it("heals what another storage has: then fsck is clean and each storage alone restores", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const { uid, bytes, victims } = await backUpWatched(repo, 9);
    const damagedAtA = await damageAll(victims);
    // The other way round at b: what is damaged there is intact at a.
    const others = await repo.objects("b", "blocks");
    const atB = others.find((object) => idOf(object) === victims[7]?.id);
    assert.ok(atB);
    await flipBit(atB);
    const nodes = await repo.objects("a", "nodes");
    for (const node of nodes) await flipBit(node);
    const found = await repo.json<ScrubDocument>(["scrub", "--deep"], { code: EXIT_DAMAGED });
    assert.equal(found.damaged.length, damagedAtA.length + 1 + nodes.length);
    assert.ok(
      found.damaged.every(({ healed }) => healed),
      JSON.stringify(found.damaged),
    );
    const overNodes = found.damaged.filter(({ kind }) => kind === "node");
    assert.ok(
      overNodes.some(({ versions }) => versions.some((version) => version.uid === uid)),
      "damaged tree nodes name the versions over them",
    );
    assert.equal((await repo.show(uid)).status, "valid");
    await repo.run(["scrub", "--deep"]);
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
    for (const storage of ["a", "b"]) await repo.assertRestores(uid, bytes, storage);
  });

  it("restores from another storage what one has lost, without being asked", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const { uid, bytes, victims } = await backUpWatched(repo, 8);
    await damageAll(victims);
    await repo.assertRestores(uid, bytes);
    await repo.fails(EXIT_DAMAGED, ["restore", uid, repo.home.at("alone"), "--storage", "a"]);
    // What the restore noticed is put right by the next collection, scrub or backup.
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
    await repo.assertRestores(uid, bytes, "a");
  });

  it("finds a block that is damaged at every storage, and does not call it healed", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const { uid, victims } = await backUpWatched(repo, 2);
    const id = victims[0]?.id ?? "";
    for (const storage of ["a", "b"]) {
      const object = (await repo.objects(storage, "blocks")).find((each) => idOf(each) === id);
      assert.ok(object);
      await flipBit(object);
    }
    const found = await repo.json<ScrubDocument>(["scrub", "--deep"], { code: EXIT_DAMAGED });
    assert.deepEqual(
      found.damaged.map((each) => [each.id, each.healed]),
      [
        [id, false],
        [id, false],
      ],
    );
    assert.equal((await repo.show(uid)).status, "invalid");
  });

  it("finds missing and truncated objects by a scrub that is not deep; the next backup that has the content repairs the older versions", async () => {
    await using repo = await TestRepository.make();
    const { uid, bytes, victims, image } = await backUpWatched(repo, 4);
    const [gone, cut] = [victims[2], victims[3]];
    assert.ok(gone && cut);
    await unlink(gone.object.file);
    await truncate(cut.object.file, 100);
    const found = await repo.json<ScrubDocument>(["scrub"], { code: EXIT_DAMAGED });
    assert.deepEqual(found.damaged.map(({ id }) => id).sort(), [gone.id, cut.id].sort());
    assert.equal((await repo.show(uid)).status, "invalid");
    const again = await repo.backup(image);
    assert.equal(again.blocksNew, 2);
    assert.equal((await repo.show(uid)).status, "valid");
    await repo.assertRestores(uid, bytes);
    await repo.run(["scrub", "--deep"]);
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
  });
});
