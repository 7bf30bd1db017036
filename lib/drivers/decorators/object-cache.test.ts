import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { makeCacheWorld, type CacheWorld } from "#test/fixtures/object-caches.ts";
import { isCacheable } from "./cache-entry.ts";

const MIB = 1024 * 1024;
const SIZE = 16 * MIB;
const OBJECT = 300_000;

function fileOf(world: CacheWorld, name: string): string {
  return path.join(world.folder, name.replace("/", ","));
}

/** What a cache answered, by outcome. */
function outcomes({ telemetry }: CacheWorld): number[] {
  return ["hit", "miss", "damaged"].map((outcome) =>
    telemetry.counted("ashlar.cache.reads", { storage: "far", outcome }),
  );
}

describe("a cache of objects", () => {
  it("gives back what was written, in any memory, also after a restart", async (test) => {
    const world = await makeCacheWorld(test);
    const first = world.open(SIZE);
    assert.ok((await first.read("blocks/a")) === undefined);
    const bytes = randomBytes(OBJECT);
    const shared = new Uint8Array(new SharedArrayBuffer(OBJECT + 10));
    shared.set(bytes, 7);
    await first.write("blocks/a", shared.subarray(7, 7 + OBJECT));
    await first.write("nodes/empty", new Uint8Array(0));
    await first.close();
    const second = world.open(SIZE);
    assert.ok(bytes.equals((await second.read("blocks/a")) as Buffer));
    for (const into of [shared, Buffer.alloc(OBJECT)]) {
      const found = (await second.read("blocks/a", into)) as Uint8Array;
      assert.equal(found.buffer, into.buffer);
      assert.ok(bytes.equals(found));
    }
    assert.equal((await second.read("nodes/empty"))?.length, 0);
    // The storage is to say what is wrong with it.
    assert.ok((await second.read("blocks/a", Buffer.alloc(OBJECT - 1))) === undefined);
    await second.remove(["blocks/a", "blocks/never"]);
    assert.ok((await second.read("blocks/a")) === undefined);
    assert.deepEqual(outcomes(world), [4, 3, 0]);
    assert.deepEqual(world.warnings, []);
  });

  it("holds blocks and nodes only, as they are: no plaintext beside them", async (test) => {
    for (const name of ["heads/a.1.b", "stamps/s", "keys/k", "ashlar-storage.json", "blocks"]) {
      assert.equal(isCacheable(name), false, name);
    }
    const world = await makeCacheWorld(test);
    const bytes = randomBytes(OBJECT);
    await world.open(SIZE).write("blocks/ab12.cd", bytes);
    const file = await readFile(fileOf(world, "blocks/ab12.cd"));
    assert.ok(file.subarray(48).equals(bytes));
    assert.equal(file.length, 48 + OBJECT);
  });

  it("takes what is damaged, cut off, or of another name for not there, and removes it", async (test) => {
    const world = await makeCacheWorld(test);
    const cache = world.open(SIZE);
    const spoilers: ((file: string) => Promise<void>)[] = [
      async (file) => {
        await using handle = await open(file, "r+");
        await handle.write(Buffer.of(1, 2, 3), 0, 3, OBJECT / 2);
      },
      async (file) => {
        await using handle = await open(file, "r+");
        await handle.write(Buffer.of(1, 2, 3), 0, 3, 20);
      },
      (file) => truncate(file, OBJECT),
      (file) => truncate(file, 47),
      (file) => truncate(file, 0),
      async (file) => {
        await cache.write("blocks/other", randomBytes(OBJECT));
        await rename(fileOf(world, "blocks/other"), file);
      },
    ];
    for (const spoil of spoilers) {
      await cache.write("blocks/a", randomBytes(OBJECT));
      await spoil(fileOf(world, "blocks/a"));
      assert.ok((await cache.read("blocks/a", Buffer.alloc(OBJECT))) === undefined);
      assert.deepEqual(await world.kept(), new Map());
    }
    assert.deepEqual(outcomes(world), [0, 0, spoilers.length]);
  });

  it("lets go first of what was used least recently", async (test) => {
    const world = await makeCacheWorld(test);
    const cache = world.open(SIZE);
    const write = async (name: string): Promise<void> => {
      await world.clock.advance(1000);
      await cache.write(name, randomBytes(MIB));
    };
    for (let index = 0; index < 10; index += 1) await write(`blocks/${index}`);
    await world.clock.advance(1000);
    assert.ok(await cache.read("blocks/0"));
    assert.ok(await cache.read("blocks/2"));
    for (let index = 10; index < 18; index += 1) await write(`blocks/${index}`);
    const kept = await world.kept();
    const first = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
    const gone = first(18).filter((index) => !kept.has(`blocks/${index}`));
    assert.ok(gone.length >= 3 && gone.length <= 6, String(gone));
    const expected = first(18).filter((index) => index !== 0 && index !== 2);
    assert.deepEqual(gone, expected.slice(0, gone.length));
  });

  it("keeps to its size with several processes and restarts, and fills most of it", async (test) => {
    const world = await makeCacheWorld(test);
    const caches = [world.open(SIZE), world.open(SIZE), world.open(SIZE)];
    let most = 0;
    for (let round = 0; round < 40; round += 1) {
      if (round % 15 === 14) {
        await caches[0]?.close();
        caches[0] = world.open(SIZE);
      }
      await Promise.all(
        caches.map((cache, which) =>
          cache.write(`blocks/${which}.${round}`, randomBytes(300_000 + which * 100_000)),
        ),
      );
      const bytes = [...(await world.kept()).values()].reduce((sum, size) => sum + size, 0);
      assert.ok(bytes <= SIZE, `${bytes} after round ${round}`);
      most = Math.max(most, bytes);
    }
    assert.ok(most >= SIZE / 2, `${most} bytes were used at most`);
    // A smaller size is kept to as soon as something is written.
    await Promise.all(caches.map((cache) => cache.close()));
    await world.open(SIZE / 4).write("blocks/last", randomBytes(1000));
    const left = [...(await world.kept()).values()].reduce((sum, size) => sum + size, 0);
    assert.ok(left <= SIZE / 4, `${left}`);
    assert.ok((await world.kept()).has("blocks/last"));
  });

  it("does not give up everything for one large object", async (test) => {
    const world = await makeCacheWorld(test);
    const cache = world.open(SIZE);
    await cache.write("blocks/small", randomBytes(1000));
    await cache.write("blocks/large", randomBytes(SIZE / 4 + 1));
    assert.deepEqual([...(await world.kept()).keys()], ["blocks/small"]);
  });

  it("removes what dead processes left, and nothing of others'", async (test) => {
    const world = await makeCacheWorld(test);
    await mkdir(world.folder, { recursive: true });
    const files = [".part.00ff.1", `.room.00ff.${SIZE}`, ".part.00ee.1", "notes.txt"];
    for (const file of files) await writeFile(path.join(world.folder, file), "x");
    const longAgo = world.clock.now() / 1000 - 3600;
    for (const file of files.filter((name) => !name.includes("00ee"))) {
      await utimes(path.join(world.folder, file), longAgo, longAgo);
    }
    await world.open(SIZE).write("blocks/a", randomBytes(1000));
    const left = await readdir(world.folder);
    assert.deepEqual(
      left.filter((file) => !file.startsWith(".room")).toSorted(),
      [".part.00ee.1", "blocks,a", "notes.txt"].toSorted(),
    );
    assert.equal(left.filter((file) => file.startsWith(".room.00ff")).length, 0);
  });

  it("costs nothing but speed where it cannot be written, and says so once", async (test) => {
    const world = await makeCacheWorld(test);
    const cache = world.open(SIZE);
    // Not even root can make a folder below a file.
    await mkdir(path.dirname(world.folder), { recursive: true });
    await writeFile(world.folder, "");
    await cache.write("blocks/a", randomBytes(1000));
    assert.ok((await cache.read("blocks/a")) === undefined);
    await cache.remove(["blocks/a"]);
    assert.equal(world.warnings.length, 1);
    assert.match(world.warnings[0] ?? "", /^the cache of storage far at .* cannot be written \(/);
    // It is not tried again for each object, but it is later.
    await rm(world.folder);
    await cache.write("blocks/a", randomBytes(1000));
    assert.ok((await cache.read("blocks/a")) === undefined);
    await world.clock.advance(61_000);
    await cache.write("blocks/a", randomBytes(1000));
    assert.equal((await cache.read("blocks/a"))?.length, 1000);
    // The folder goes while it is in use.
    await rm(world.folder, { recursive: true });
    await cache.write("blocks/b", randomBytes(1000));
    await world.clock.advance(61_000);
    await cache.write("blocks/b", randomBytes(1000));
    assert.equal((await cache.read("blocks/b"))?.length, 1000);
    assert.equal(world.warnings.length, 1);
  });
});
