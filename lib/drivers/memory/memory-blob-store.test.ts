import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { type BlobOperation, openMemoryBlobStore } from "./memory-blob-store.ts";

const CREATE = { mode: "create" } as const;

describe("memory blob store", () => {
  it("fails before and after an operation when told to", async () => {
    const asked: BlobOperation[] = [];
    const store = openMemoryBlobStore();
    store.faults = {
      before: (operation) => {
        asked.push(operation);
        if (operation.name === "keys/before") throw new AshlarError(ErrorCode.Io, "bad disk");
        return "none";
      },
      after: (operation) => {
        if (operation.name === "keys/after")
          throw new AshlarError(ErrorCode.Unavailable, "timed out");
      },
    };
    await assert.rejects(store.put("keys/before", Buffer.from("x"), CREATE), {
      message: "bad disk",
    });
    await assert.rejects(store.put("keys/after", Buffer.from("x"), CREATE), {
      message: "timed out",
    });
    assert.deepEqual([...store.objects.keys()], ["keys/after"]);
    const failures = await store.delete(["keys/before", "keys/none"]);
    assert.deepEqual([...failures.keys()], ["keys/before"]);
    assert.deepEqual(asked.at(-1), { kind: "delete", name: "keys/none" });
  });

  it("loses what it acknowledged when told to", async () => {
    const store = openMemoryBlobStore({ faults: { before: () => "lose" } });
    await store.put("keys/a", Buffer.from("x"), CREATE);
    assert.equal(store.objects.size, 0);
  });

  it("lets an operation land after its caller has given up", async () => {
    const gate = Promise.withResolvers<void>();
    const store = openMemoryBlobStore({
      faults: { before: () => "late", landing: () => gate.promise },
    });
    const bytes = Buffer.from("x");
    await assert.rejects(store.put("keys/a", bytes, CREATE), (error) =>
      isErrorCode(error, ErrorCode.Unavailable),
    );
    bytes.fill("y");
    assert.equal(store.objects.size, 0);
    gate.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(store.objects.get("keys/a")?.toString(), "x");
  });

  it("waits as long as it is told to", async () => {
    const gate = Promise.withResolvers<void>();
    const store = openMemoryBlobStore({
      faults: { before: () => gate.promise.then(() => "none" as const) },
    });
    const putting = store.put("keys/a", Buffer.from("x"), CREATE);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(store.objects.size, 0);
    gate.resolve();
    await putting;
    assert.equal(store.objects.size, 1);
  });

  it("fills up", async () => {
    const store = openMemoryBlobStore({ capacityBytes: 10 });
    await store.put("keys/a", Buffer.alloc(8), CREATE);
    await assert.rejects(store.put("keys/b", Buffer.alloc(3), CREATE), (error) => {
      return isErrorCode(error, ErrorCode.Io) && error.details["errno"] === "ENOSPC";
    });
    await store.put("keys/a", Buffer.alloc(10), { mode: "replace" });
  });

  it("goes back to what it was", async () => {
    const store = openMemoryBlobStore();
    await store.put("keys/a", Buffer.from("1"), CREATE);
    const snapshot = store.snapshot();
    await store.put("keys/a", Buffer.from("2"), { mode: "replace" });
    await store.put("keys/b", Buffer.from("3"), CREATE);
    store.restore(snapshot);
    assert.deepEqual(
      [...store.objects].map(([name, bytes]) => [name, bytes.toString()]),
      [["keys/a", "1"]],
    );
  });
});
