import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, it, type TestContext } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import {
  openMemoryBlobStore,
  type BlobFault,
  type MemoryBlobStore,
} from "#lib/drivers/memory/memory-blob-store.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import { makeCacheWorld, type CacheWorld } from "#test/fixtures/object-caches.ts";
import { cacheReads } from "./cached-blob-store.ts";

const NAME = "blocks/ab12.cd";
const SIZE = 64 * 1024 * 1024;
const USE = { cached: "use" } as const;

interface Cached {
  readonly world: CacheWorld;
  readonly memory: MemoryBlobStore;
  readonly store: BlobStore;
  /** Names that the storage was asked for. */
  readonly asked: string[];
  readonly bytes: Buffer;
}

/** A store with a cache, and an object on the storage. */
async function openCached(test: TestContext): Promise<Cached> {
  const world = await makeCacheWorld(test);
  const asked: string[] = [];
  const memory = openMemoryBlobStore({
    faults: {
      before: ({ kind, name }): BlobFault => {
        if (kind === "get") asked.push(name);
        return "none";
      },
    },
  });
  const bytes = randomBytes(50_000);
  memory.objects.set(NAME, bytes);
  return { world, memory, store: cacheReads(memory, world.open(SIZE)), asked, bytes };
}

describe("a storage with a cache", () => {
  it("is read once by those who ask for the cache", async (test) => {
    const { memory, store, asked, bytes } = await openCached(test);
    const into = Buffer.alloc(60_000);
    assert.ok(bytes.equals(await store.get(NAME, { ...USE, into })));
    // The caller's buffer is its own again.
    into.fill(0);
    memory.away = true;
    assert.ok(bytes.equals(await store.get(NAME, USE)));
    assert.ok(bytes.equals(await store.get(NAME, { ...USE, into })));
    assert.deepEqual(asked, [NAME]);
    const signal = AbortSignal.abort(new Error("enough"));
    await assert.rejects(store.get(NAME, { ...USE, signal }), { message: "enough" });
  });

  it("is seen as it is by all others, and their reads are not kept", async (test) => {
    const { world, memory, store, bytes } = await openCached(test);
    await store.get(NAME);
    await store.get(NAME, { ...USE, range: { offset: 1, length: 5 } });
    await store.stat(NAME);
    await assert.rejects(world.kept(), { code: "ENOENT" });
    await store.get(NAME, USE);
    const rotten = randomBytes(50_000);
    memory.objects.set(NAME, rotten);
    assert.ok(rotten.equals(await store.get(NAME)));
    const range = { offset: 0, length: 50_000 };
    assert.ok(rotten.equals(await store.get(NAME, { ...USE, range })));
    memory.objects.delete(NAME);
    const isNotFound = (error: unknown): boolean => isErrorCode(error, ErrorCode.NotFound);
    await assert.rejects(store.get(NAME), isNotFound);
    await assert.rejects(store.stat(NAME), isNotFound);
    assert.ok(bytes.equals(await store.get(NAME, USE)), "and what was kept is untouched");
  });

  it("never keeps heads, stamps and keys", async (test) => {
    const { memory, store, asked } = await openCached(test);
    for (const name of ["heads/a.1.b", "stamps/s", "keys/k"]) {
      memory.objects.set(name, randomBytes(100));
      await store.get(name, USE);
      await store.get(name, USE);
    }
    assert.equal(asked.length, 6);
  });

  it("reads again what does not open, and keeps that", async (test) => {
    const { memory, store, asked, bytes } = await openCached(test);
    memory.objects.set(NAME, randomBytes(50_000));
    await store.get(NAME, USE);
    memory.objects.set(NAME, bytes);
    assert.ok(bytes.equals(await store.get(NAME, { cached: "renew" })));
    assert.ok(bytes.equals(await store.get(NAME, USE)));
    assert.equal(asked.length, 2);
    // Where the storage has nothing better, nothing is kept.
    memory.away = true;
    await assert.rejects(store.get(NAME, { cached: "renew" }));
    await assert.rejects(store.get(NAME, USE));
  });

  it("reads again what was damaged on the cache's disk", async (test) => {
    const { world, store, asked, bytes } = await openCached(test);
    await store.get(NAME, USE);
    await writeFile(path.join(world.folder, NAME.replace("/", ",")), randomBytes(50_048));
    for (let reads = 0; reads < 2; reads += 1) {
      assert.ok(bytes.equals(await store.get(NAME, { ...USE, into: Buffer.alloc(60_000) })));
    }
    assert.equal(asked.length, 2);
  });

  it("forgets what is deleted and what is replaced", async (test) => {
    const { memory, store, bytes } = await openCached(test);
    await store.get(NAME, USE);
    await store.delete([NAME, "heads/a"]);
    await assert.rejects(store.get(NAME, USE), (error) => isErrorCode(error, ErrorCode.NotFound));
    memory.objects.set(NAME, bytes);
    await store.get(NAME, USE);
    const whole = randomBytes(50);
    await store.put(NAME, whole, { mode: "replace" });
    assert.ok(whole.equals(await store.get(NAME, USE)));
    // It landed, though its caller was told otherwise.
    const late = randomBytes(60);
    memory.faults = {
      after: () => {
        throw new Error("no answer");
      },
    };
    await assert.rejects(store.put(NAME, late, { mode: "replace" }));
    memory.faults = {};
    assert.ok(late.equals(await store.get(NAME, USE)));
  });
});
