import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import {
  openMemoryBlobStore,
  type BlobFault,
  type MemoryBlobStore,
} from "#lib/drivers/memory/memory-blob-store.ts";
import { openMemoryTelemetry, type MemoryTelemetry } from "#lib/drivers/memory/memory-telemetry.ts";
import { virtualClock, type VirtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import { meterStore } from "./metered-blob-store.ts";

const OPERATIONS = ["put", "get", "stat", "delete", "list", "check"] as const;

interface Metered {
  readonly clock: VirtualClock;
  readonly memory: MemoryBlobStore;
  readonly store: BlobStore;
  readonly telemetry: MemoryTelemetry;
}

function openMetered(): Metered {
  const clock = virtualClock();
  const memory = openMemoryBlobStore();
  const telemetry = openMemoryTelemetry();
  const store = meterStore(memory, { storage: "far", telemetry, clock });
  return { clock, memory, store, telemetry };
}

describe("a metered storage", () => {
  it("counts requests, and bytes by direction and kind", async () => {
    const { store, telemetry } = openMetered();
    await store.put("blocks/a", Buffer.alloc(100), { mode: "create" });
    await store.put("heads/a", Buffer.alloc(7), { mode: "replace" });
    await store.get("blocks/a");
    await store.get("blocks/a", { range: { offset: 0, length: 10 } });
    await store.stat("blocks/a");
    for await (const _ of store.list("")) continue;
    await store.check();
    await store.delete(["blocks/a", "heads/a"]);
    const requests = OPERATIONS.map((operation) =>
      telemetry.counted("ashlar.storage.requests", { storage: "far", operation }),
    );
    assert.deepEqual(requests, [2, 2, 1, 1, 1, 1]);
    const bytes = (direction: string, kind: string): number =>
      telemetry.counted("ashlar.storage.bytes", { storage: "far", direction, kind });
    assert.equal(bytes("written", "blocks"), 100);
    assert.equal(bytes("written", "heads"), 7);
    assert.equal(bytes("read", "blocks"), 110);
    assert.equal(bytes("read", "heads"), 0);
    assert.equal(telemetry.counted("ashlar.storage.errors"), 0);
  });

  it("records what the storage takes, and not what is done with a listing meanwhile", async () => {
    const { clock, memory, store, telemetry } = openMetered();
    for (const name of ["blocks/a", "blocks/b"]) memory.objects.set(name, Buffer.alloc(1));
    const slowly = async (): Promise<BlobFault> => {
      await clock.sleep(40);
      return "none";
    };
    memory.faults = { before: slowly };
    const get = store.get("blocks/a");
    await clock.advance(40);
    await get;
    const list = (async () => {
      for await (const _ of store.list("blocks/")) await clock.sleep(1000);
    })();
    await clock.advance(5000);
    await list;
    const latency = (operation: string): number[] =>
      telemetry.recorded("ashlar.storage.latency", { storage: "far", operation });
    assert.deepEqual(latency("get"), [40]);
    assert.deepEqual(latency("list"), [40]);
  });

  it("counts errors by operation and code, and passes them on", async () => {
    const { memory, store, telemetry } = openMetered();
    const errors = (operation: string, code: ErrorCode): number =>
      telemetry.counted("ashlar.storage.errors", { storage: "far", operation, code });
    await assert.rejects(store.get("blocks/a"));
    assert.equal(errors("get", ErrorCode.NotFound), 1);
    const signal = AbortSignal.abort(new Error("enough"));
    await assert.rejects(store.get("blocks/a", { signal }), { message: "enough" });
    assert.equal(errors("get", ErrorCode.Cancelled), 1);
    memory.away = true;
    await assert.rejects(store.put("blocks/a", Buffer.alloc(9), { mode: "create" }));
    await assert.rejects(store.check());
    await assert.rejects(async () => {
      for await (const _ of store.list("")) continue;
    });
    for (const operation of ["put", "check", "list"]) {
      assert.equal(errors(operation, ErrorCode.Unavailable), 1, operation);
    }
    assert.equal(telemetry.counted("ashlar.storage.bytes"), 0);
    const failures = await store.delete(["blocks/a", "blocks/b"]);
    assert.equal(failures.size, 2);
    assert.equal(errors("delete", ErrorCode.Unavailable), 2);
    assert.equal(telemetry.counted("ashlar.storage.requests", { operation: "delete" }), 1);
    assert.equal(telemetry.recorded("ashlar.storage.latency", { operation: "list" }).length, 1);
    memory.away = false;
    memory.faults = {
      before: () => {
        throw new AshlarError(ErrorCode.Io, "no space left");
      },
    };
    await assert.rejects(store.stat("blocks/a"), { message: "no space left" });
    assert.equal(errors("stat", ErrorCode.Io), 1);
  });
});
