import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import type { StorageId } from "#lib/core/ids.ts";
import { createFileBlobStore } from "#lib/drivers/file/create-file-storage.ts";
import { openFileBlobStore } from "#lib/drivers/file/file-blob-store.ts";
import { openMemoryBlobStore } from "#lib/drivers/memory/memory-blob-store.ts";
import { type BlobStoreFixture, describeBlobStore } from "./blob-store.ts";

describeBlobStore("memory", {
  open: () => {
    const store = openMemoryBlobStore();
    const takeAway = (): Promise<() => Promise<void>> => {
      store.away = true;
      return Promise.resolve(() => {
        store.away = false;
        return Promise.resolve();
      });
    };
    return Promise.resolve({ store, takeAway });
  },
});

/** Folders on the disk and in memory take different paths: direct writes, flushes. */
for (const [kind, parent] of [
  ["file", tmpdir()],
  ["file on tmpfs", "/dev/shm"],
] as const) {
  describeBlobStore(kind, { open: (test) => openFixture(test, parent) });
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
