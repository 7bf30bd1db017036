import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import type { StorageId } from "#lib/core/ids.ts";
import {
  openMemoryBlobStore,
  type BlobFault,
  type BlobOperation,
} from "#lib/drivers/memory/memory-blob-store.ts";
import { StorageSet } from "./storages.ts";

const ID = "00112233445566ff" as StorageId;

describe("the storages of a process", () => {
  it("are asked for no more at once than each of them allows, by kind of request", async () => {
    const most = new Map<string, number>();
    const underWay = new Map<string, number>();
    const before = async ({ kind }: BlobOperation): Promise<BlobFault> => {
      const now = (underWay.get(kind) ?? 0) + 1;
      underWay.set(kind, now);
      most.set(kind, Math.max(most.get(kind) ?? 0, now));
      for (let turn = 0; turn < 20; turn += 1) await setImmediate();
      underWay.set(kind, now - 1);
      return "none";
    };
    const store = openMemoryBlobStore({ faults: { before } });
    const limits = { writesMax: 5, readsMax: 3, removalsMax: 2 };
    const set = new StorageSet([{ id: ID, name: "a", site: "a", store, ...limits }]);
    const names = Array.from({ length: 12 }, (_, index) => `blocks/${index}`);
    await Promise.all(names.map((name) => set.put(ID, name, Buffer.of(1))));
    await Promise.all(names.map((name) => set.get(ID, name)));
    await Promise.all(names.map((name) => set.delete(ID, [name])));
    assert.deepEqual(Object.fromEntries(most), { put: 5, get: 3, delete: 2 });
    assert.equal(store.objects.size, 0);
    assert.equal(set.removalsMax(ID), 2);
  });
});
