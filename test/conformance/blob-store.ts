// What every BlobStore must do (lib/ports/blob-store.ts), whatever it is made of.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it, type TestContext } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";

/** A store under test. */
export interface BlobStoreFixture {
  readonly store: BlobStore;
  /** Opens the same storage once more, as another process would; undefined where only one process can. */
  readonly reopen?: () => Promise<BlobStore>;
  /** Makes the storage unreachable, and gives what brings it back. */
  readonly takeAway?: () => Promise<() => Promise<void>>;
}

/** How a driver is tested. */
export interface BlobStoreSuiteOptions {
  /** Opens an empty store; what it needs is cleaned up through the test's `after`. */
  readonly open: (test: TestContext) => Promise<BlobStoreFixture>;
  /** Why nothing of it can be tested here. */
  readonly skip?: string | undefined;
}

const BLOCK = "blocks/ab12000000000000000000000000000000000000000000000000000000000001";

function bytesOf(text: string): Buffer {
  return Buffer.from(text);
}

async function namesIn(store: BlobStore, prefix: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of store.list(prefix)) names.push(name);
  return names.toSorted();
}

function hasCode(code: ErrorCode): (error: unknown) => true {
  return (error) => {
    assert.ok(isErrorCode(error, code), `expected ${code}, got ${String(error)}`);
    return true;
  };
}

/** Runs the suite against one driver. */
export function describeBlobStore(driver: string, options: BlobStoreSuiteOptions): void {
  const skip = options.skip ?? false;
  describe(`BlobStore: ${driver}`, { skip }, () => {
    const opened = (title: string, body: (fixture: BlobStoreFixture) => Promise<void>): void => {
      void it(title, async (test) => body(await options.open(test)));
    };
    describePuts(opened);
    describeReads(opened);
    describeDeletes(opened);
    describeListings(opened);
    describeAbsence(opened);
  });
}

type Opened = (title: string, body: (fixture: BlobStoreFixture) => Promise<void>) => void;

function describePuts(opened: Opened): void {
  for (const size of [0, 1, 511, 4096, 65_536, 1_048_576, 4_194_304, 4_194_341]) {
    opened(`keeps an object of ${size} bytes`, async ({ store }) => {
      const bytes = randomBytes(size);
      await store.put(BLOCK, bytes, { mode: "create" });
      assert.ok(bytes.equals(await store.get(BLOCK)));
      assert.deepEqual(await store.stat(BLOCK), { name: BLOCK, sizeBytes: size });
    });
  }

  opened("takes bytes from anywhere in any memory", async ({ store }) => {
    const shared = new Uint8Array(new SharedArrayBuffer(3_000_000));
    shared.set(randomBytes(3_000_000));
    const view = shared.subarray(1001, 2_500_002);
    await store.put("blocks/aa00", view, { mode: "create" });
    assert.ok(Buffer.from(view).equals(await store.get("blocks/aa00")));
  });

  opened("lets the caller reuse its memory afterwards", async ({ store }) => {
    const bytes = Buffer.alloc(70_000, 1);
    await store.put("blocks/aa00", bytes, { mode: "create" });
    bytes.fill(2);
    assert.ok(Buffer.alloc(70_000, 1).equals(await store.get("blocks/aa00")));
  });

  opened("creates only where nothing is", async ({ store }) => {
    if (!store.capabilities.createOnly) return;
    await store.put(BLOCK, bytesOf("first"), { mode: "create" });
    await assert.rejects(
      store.put(BLOCK, bytesOf("second"), { mode: "create" }),
      hasCode(ErrorCode.AlreadyExists),
    );
    assert.equal(Buffer.from(await store.get(BLOCK)).toString(), "first");
  });

  opened("lets one of several creators win", async ({ store, reopen }) => {
    if (!store.capabilities.createOnly) return;
    const other = (await reopen?.()) ?? store;
    const tries = Array.from({ length: 16 }, (_, index) =>
      (index % 2 === 0 ? store : other).put(BLOCK, bytesOf(`${index}`), { mode: "create" }),
    );
    const results = await Promise.allSettled(tries);
    const winners = results.flatMap(({ status }, index) => (status === "fulfilled" ? [index] : []));
    assert.equal(winners.length, 1);
    assert.equal(Buffer.from(await store.get(BLOCK)).toString(), String(winners[0]));
    for (const result of results) {
      if (result.status === "rejected") hasCode(ErrorCode.AlreadyExists)(result.reason);
    }
  });

  opened("replaces atomically", async ({ store }) => {
    const versions = [Buffer.alloc(300_000, 1), Buffer.alloc(200_000, 2)] as const;
    await store.put("heads/a", versions[0], { mode: "replace" });
    const write = async (): Promise<void> => {
      for (let round = 0; round < 6; round++) {
        await store.put("heads/a", versions[(round + 1) % 2] as Buffer, { mode: "replace" });
      }
    };
    const writing = write();
    for (let round = 0; round < 20; round++) {
      const found = await store.get("heads/a");
      assert.ok(
        versions.some((version) => version.equals(found)),
        "one of both, whole",
      );
    }
    await writing;
  });

  opened("puts many at once", async ({ store, reopen }) => {
    const objects = Array.from({ length: 100 }, (_, index) => {
      return { name: `blocks/${randomBytes(32).toString("hex")}`, bytes: bytesOf(`${index}`) };
    });
    await Promise.all(objects.map(({ name, bytes }) => store.put(name, bytes, { mode: "create" })));
    const other = (await reopen?.()) ?? store;
    for (const { name, bytes } of objects) assert.ok(bytes.equals(await other.get(name)));
  });

  opened("stops when told to", async ({ store }) => {
    const signal = AbortSignal.abort(new Error("enough"));
    const put = store.put(BLOCK, bytesOf("x"), { mode: "create", signal });
    await assert.rejects(put, { message: "enough" });
    await assert.rejects(store.get(BLOCK, { signal }), { message: "enough" });
    await assert.rejects(store.stat(BLOCK), hasCode(ErrorCode.NotFound));
  });

  opened("refuses names that are none", async ({ store }) => {
    for (const name of [
      "",
      "blocks",
      "/etc/passwd",
      "blocks/../x",
      "blocks//x",
      "Blocks/A",
      "keys/.x",
    ]) {
      if (name === "blocks") continue;
      await assert.rejects(async () => store.put(name, bytesOf("x"), { mode: "create" }), name);
    }
  });
}

function describeReads(opened: Opened): void {
  opened("reads a range", async ({ store }) => {
    const bytes = randomBytes(10_000);
    await store.put(BLOCK, bytes, { mode: "create" });
    const range = { offset: 1234, length: 4321 };
    assert.ok(bytes.subarray(1234, 5555).equals(await store.get(BLOCK, { range })));
    const into = Buffer.alloc(5000);
    const found = await store.get(BLOCK, { range, into });
    assert.equal(found.length, 4321);
    assert.equal(found.buffer, into.buffer);
    assert.ok(bytes.subarray(1234, 5555).equals(found));
  });

  opened("says so when a range is not there", async ({ store }) => {
    await store.put(BLOCK, Buffer.alloc(100), { mode: "create" });
    const get = store.get(BLOCK, { range: { offset: 90, length: 11 } });
    await assert.rejects(get, hasCode(ErrorCode.Damaged));
  });

  opened("reads into a buffer of the caller's, shared or not", async ({ store }) => {
    const bytes = randomBytes(70_000);
    await store.put(BLOCK, bytes, { mode: "create" });
    for (const into of [
      Buffer.alloc(100_000),
      new Uint8Array(new SharedArrayBuffer(100_000)),
      Buffer.alloc(70_000),
    ]) {
      const found = await store.get(BLOCK, { into });
      assert.equal(found.buffer, into.buffer);
      assert.equal(found.byteOffset, into.byteOffset);
      assert.ok(bytes.equals(found));
    }
  });

  opened("refuses an object that is larger than the buffer", async ({ store }) => {
    await store.put(BLOCK, Buffer.alloc(101), { mode: "create" });
    await assert.rejects(store.get(BLOCK, { into: Buffer.alloc(100) }), hasCode(ErrorCode.Damaged));
  });

  opened("tells what is not there", async ({ store }) => {
    await assert.rejects(store.get(BLOCK), hasCode(ErrorCode.NotFound));
    await assert.rejects(store.get("keys/none"), hasCode(ErrorCode.NotFound));
    await assert.rejects(store.stat(BLOCK), hasCode(ErrorCode.NotFound));
  });
}

function describeDeletes(opened: Opened): void {
  opened("deletes, and what is absent is a success", async ({ store }) => {
    await store.put(BLOCK, bytesOf("x"), { mode: "create" });
    await store.put("nodes/ff00", bytesOf("y"), { mode: "create" });
    const failures = await store.delete([BLOCK, "blocks/ab13", "heads/none"]);
    assert.equal(failures.size, 0);
    await assert.rejects(store.get(BLOCK), hasCode(ErrorCode.NotFound));
    assert.equal(Buffer.from(await store.get("nodes/ff00")).toString(), "y");
    assert.equal((await store.delete([])).size, 0);
  });

  opened("deletes many", async ({ store }) => {
    const names = Array.from({ length: 600 }, (_, index) => `stamps/${index}`);
    await Promise.all(names.map((name) => store.put(name, bytesOf("x"), { mode: "create" })));
    assert.equal((await store.delete(names)).size, 0);
    assert.deepEqual(await namesIn(store, ""), []);
  });

  opened("lets a name be taken again", async ({ store }) => {
    await store.put("keys/a", bytesOf("1"), { mode: "create" });
    await store.delete(["keys/a"]);
    await store.put("keys/a", bytesOf("2"), { mode: "create" });
    assert.equal(Buffer.from(await store.get("keys/a")).toString(), "2");
  });
}

function describeListings(opened: Opened): void {
  opened("lists what begins with the prefix", async ({ store }) => {
    const names = [
      "blocks/00ff.a",
      "blocks/zz",
      BLOCK,
      "heads/a.1.b",
      "keys/k",
      "nodes/ab12",
      "stamps/s",
    ];
    await Promise.all(names.map((name) => store.put(name, bytesOf(name), { mode: "create" })));
    assert.deepEqual(await namesIn(store, ""), names.toSorted());
    assert.deepEqual(
      await namesIn(store, "blocks/"),
      names.filter((name) => name.startsWith("blocks/")).toSorted(),
    );
    assert.deepEqual(await namesIn(store, "heads/"), ["heads/a.1.b"]);
    assert.deepEqual(await namesIn(store, "nothing/"), []);
    for await (const { name, sizeBytes } of store.list("")) assert.equal(sizeBytes, name.length);
  });

  opened("lists many, and stops when the caller does", async ({ store }) => {
    const names = Array.from({ length: 300 }, (_, index) => `heads/${index}`);
    await Promise.all(names.map((name) => store.put(name, bytesOf("x"), { mode: "create" })));
    assert.deepEqual(await namesIn(store, "heads/"), names.toSorted());
    let seen = 0;
    for await (const _ of store.list("heads/")) {
      seen += 1;
      if (seen === 3) break;
    }
    assert.equal(seen, 3);
    const stop = new AbortController();
    await assert.rejects(
      async () => {
        for await (const _ of store.list("heads/", { signal: stop.signal })) {
          stop.abort(new Error("enough"));
        }
      },
      { message: "enough" },
    );
  });

  opened("shows what was put by another opening", async ({ store, reopen }) => {
    const other = await reopen?.();
    if (other === undefined) return;
    await other.put("stamps/other", bytesOf("x"), { mode: "create" });
    assert.deepEqual(await namesIn(store, "stamps/"), ["stamps/other"]);
  });

  opened("refuses a prefix that ends within a name", async ({ store }) => {
    await assert.rejects(async () => {
      for await (const _ of store.list("heads/a")) assert.fail("nothing is listed");
    });
  });
}

function describeAbsence(opened: Opened): void {
  opened("never takes a storage that is away for an empty one", async ({ store, takeAway }) => {
    if (takeAway === undefined) return;
    await store.put("keys/a", bytesOf("x"), { mode: "create" });
    const bringBack = await takeAway();
    const away = hasCode(ErrorCode.Unavailable);
    await assert.rejects(store.get("keys/a"), away);
    await assert.rejects(store.get("keys/never"), away);
    await assert.rejects(store.stat(BLOCK), away);
    await assert.rejects(store.put("keys/b", bytesOf("y"), { mode: "create" }), away);
    await assert.rejects(store.put(BLOCK, bytesOf("y"), { mode: "create" }), away);
    await assert.rejects(namesIn(store, ""), away);
    await assert.rejects(store.check(), away);
    away((await store.delete(["keys/a"])).get("keys/a"));
    await bringBack();
    await store.check();
    assert.equal(Buffer.from(await store.get("keys/a")).toString(), "x");
    await store.put("keys/b", bytesOf("y"), { mode: "create" });
    assert.deepEqual(await namesIn(store, ""), ["keys/a", "keys/b"]);
  });
}
