import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import type { StorageId } from "#lib/core/ids.ts";
import { RateLimiter } from "#lib/core/rate-limiter.ts";
import { cacheReads } from "#lib/drivers/decorators/cached-blob-store.ts";
import { limitBandwidth } from "#lib/drivers/decorators/limited-blob-store.ts";
import { createFileBlobStore } from "#lib/drivers/file/create-file-storage.ts";
import { openFileBlobStore } from "#lib/drivers/file/file-blob-store.ts";
import { meterStore } from "#lib/drivers/decorators/metered-blob-store.ts";
import { openMemoryBlobStore } from "#lib/drivers/memory/memory-blob-store.ts";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import type { BlobStore, GetOptions } from "#lib/ports/blob-store.ts";
import { makeCacheWorld } from "#test/fixtures/object-caches.ts";
import { type BlobStoreFixture, describeBlobStore } from "./blob-store.ts";
import { describeBlobLocking, type LockedFixture } from "./blob-locking.ts";

describeBlobStore("memory", { open: () => Promise.resolve(memoryFixture()) });
describeBlobLocking("memory", { open: () => Promise.resolve(lockedMemory()) });

/** Folders on the disk and in memory take different paths: direct writes, flushes. */
for (const [kind, parent] of [
  ["file", tmpdir()],
  ["file on tmpfs", "/dev/shm"],
] as const) {
  describeBlobStore(kind, { open: (test) => openFixture(test, parent) });
}

/** What is wrapped around a driver does what the driver does. */
type Decorate = (store: BlobStore, test: TestContext) => BlobStore | Promise<BlobStore>;

const CACHE_BYTES = 64 * 1024 * 1024;
const DECORATORS: Readonly<Record<string, Decorate>> = {
  // Fast enough to wait for nothing.
  "with limited bandwidth": (store) => {
    const limiter = new RateLimiter(systemClock(), 1e15);
    return limitBandwidth(store, { reads: limiter, writes: limiter });
  },
  "that is metered": (store) =>
    meterStore(store, { storage: "main", telemetry: noTelemetry(), clock: systemClock() }),
  "with a cache": async (store, test) => {
    const world = await makeCacheWorld(test);
    const cached = cacheReads(store, world.open(CACHE_BYTES));
    // Whoever asks for the cache is promised the same as all others.
    const get = (name: string, options?: GetOptions): Promise<Uint8Array> =>
      cached.get(name, { ...options, cached: "use" });
    return { ...cached, get };
  },
};

for (const [name, decorate] of Object.entries(DECORATORS)) {
  describeBlobStore(`memory ${name}`, {
    open: (test) => decorated(memoryFixture(), decorate, test),
  });
  describeBlobStore(`file ${name}`, {
    open: async (test) => decorated(await openFixture(test, tmpdir()), decorate, test),
  });
}

for (const [name, decorate] of Object.entries(DECORATORS)) {
  describeBlobLocking(`memory ${name}`, {
    open: async (test) => {
      const fixture = lockedMemory();
      return { ...fixture, store: await decorate(fixture.store, test) };
    },
  });
}

async function decorated(
  { store, reopen, takeAway }: BlobStoreFixture,
  decorate: Decorate,
  test: TestContext,
): Promise<BlobStoreFixture> {
  return {
    store: await decorate(store, test),
    ...(reopen === undefined ? {} : { reopen: async () => decorate(await reopen(), test) }),
    ...(takeAway === undefined ? {} : { takeAway }),
  };
}

function lockedMemory(): LockedFixture {
  const clock = virtualClock();
  const store = openMemoryBlobStore({ lock: { periodMs: 60_000, clock } });
  return { store, now: () => clock.now(), wait: (ms) => clock.advance(ms) };
}

function memoryFixture(): BlobStoreFixture {
  const store = openMemoryBlobStore();
  const takeAway = (): Promise<() => Promise<void>> => {
    store.away = true;
    return Promise.resolve(() => {
      store.away = false;
      return Promise.resolve();
    });
  };
  return { store, takeAway };
}

async function openFixture(test: TestContext, parent: string): Promise<BlobStoreFixture> {
  const folder = await mkdtemp(path.join(parent, "ashlar-store-"));
  const root = path.join(folder, "storage");
  const identity = "00112233445566ff" as StorageId;
  await createFileBlobStore({
    path: root,
    marker: { format: 1, identity, repository: "aa".repeat(16), created: "2026-01-01T00:00:00Z" },
  });
  const open = (): ReturnType<typeof openFileBlobStore> =>
    openFileBlobStore({ path: root, expectIdentity: identity });
  const stores = [await open()];
  test.after(async () => {
    await Promise.all(stores.map((store) => store.close()));
    await rm(folder, { recursive: true });
  });
  return {
    store: stores[0] as (typeof stores)[number],
    reopen: async () => {
      const store = await open();
      stores.push(store);
      return store;
    },
    // As when its file system is unmounted: an empty folder is left.
    takeAway: async () => {
      await rename(root, `${root}-away`);
      await mkdir(root);
      return async () => {
        await rm(root, { recursive: true });
        await rename(`${root}-away`, root);
      };
    },
  };
}
