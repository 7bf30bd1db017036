// What only the embedded store has: its durability, its limits, its files.
import assert from "node:assert/strict";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, afterEach, beforeEach, describe, it, mock } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { isErrorCode } from "#lib/core/errors.ts";
import { openLmdbKv } from "#lib/drivers/lmdb/lmdb-kv.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { Kv, KvEntry } from "#lib/ports/kv.ts";
import { checkPages } from "#test/fakes/lmdb-pages.ts";

const ALL = { start: Buffer.alloc(0), end: Buffer.alloc(1, 0xff), limit: 100_000 };
const root = fs.mkdtempSync(join(tmpdir(), "ashlar-lmdb-"));
let counter = 0;

const newPath = (): string => join(root, `store-${counter++}`);
const bytes = (text: string): Buffer => Buffer.from(text);
const entriesOf = (kv: Kv): Promise<KvEntry[]> => kv.read((reader) => reader.range(ALL));

function open(
  path: string,
  options: { mapSizeBytes?: number; readOnly?: boolean } = {},
): Promise<Kv> {
  const [clock, random] = [systemClock(), systemRandom()];
  return openLmdbKv({ path, reserveBytes: 2 ** 16, clock, random, ...options });
}

function put(kv: Kv, key: string, value: string | Buffer, durable = true): Promise<void> {
  return kv.transact(async (tx) => tx.set(bytes(key), Buffer.from(value)), { durable });
}

after(() => fs.rmSync(root, { recursive: true }));

describe("LMDB: flushing", () => {
  /** Flushes under way, by the name of the file; calling one ends it, with an error if one is given. */
  let flushes: { file: string; end: (error?: Error) => void }[];
  let held: boolean;
  let kv: Kv;

  const flushed = (file: string): number => flushes.filter((flush) => flush.file === file).length;
  const endAll = (): void => {
    held = false;
    for (const flush of flushes) flush.end();
  };

  beforeEach(async () => {
    flushes = [];
    held = false;
    const original = fs.fdatasync;
    mock.method(fs, "fdatasync", (fd: number, callback: (error: Error | null) => void) => {
      let ended = false;
      const end = (error?: Error): void => {
        if (ended) return;
        ended = true;
        if (error === undefined) original(fd, callback);
        else callback(error);
      };
      flushes.push({ file: basename(fs.readlinkSync(`/proc/self/fd/${fd}`)), end });
      if (!held) end();
    });
    syncBuiltinESMExports();
    kv = await open(newPath());
    await put(kv, "first", "1");
    flushes.length = 0;
  });

  afterEach(async () => {
    endAll();
    await kv.close().catch(() => {});
    mock.restoreAll();
    syncBuiltinESMExports();
  });

  it("does not wait for the disk when a commit need not be durable", async () => {
    held = true;
    await put(kv, "a", "1", false);
    assert.equal((await entriesOf(kv)).length, 2);
  });

  it("resolves a durable commit after the data and then its record are flushed", async () => {
    held = true;
    let resolved = false;
    const commit = put(kv, "a", "1").then(() => (resolved = true));
    await sleep(50);
    assert.deepEqual([resolved, flushes.map(({ file }) => file)], [false, ["data.mdb"]]);
    // It is visible meanwhile.
    assert.equal((await entriesOf(kv)).length, 2);
    flushes[0]?.end();
    await sleep(50);
    assert.deepEqual([resolved, flushes.map(({ file }) => file)], [false, ["data.mdb", "flushed"]]);
    endAll();
    await commit;
  });

  it("shares one flush among many durable commits", async () => {
    await Promise.all(Array.from({ length: 100 }, (_, index) => put(kv, `key-${index}`, "1")));
    // One that began with the first of them, and one for all the others.
    assert.ok(flushed("data.mdb") <= 3, `${flushed("data.mdb")} flushes`);
  });

  it("does not take a flush that began before the commit for its own", async () => {
    held = true;
    const first = put(kv, "a", "1");
    await sleep(20);
    const second = put(kv, "b", "1");
    endAll();
    await Promise.all([first, second]);
    assert.equal(flushed("data.mdb"), 2);
  });

  it("flushes what need not be durable soon, on request, and on closing", async () => {
    await put(kv, "a", "1", false);
    await kv.flush();
    assert.equal(flushed("data.mdb"), 1);
    await put(kv, "b", "1", false);
    await sleep(1500);
    assert.equal(flushed("data.mdb"), 2);
    await put(kv, "c", "1", false);
    await kv.close();
    assert.ok(flushed("data.mdb") >= 3);
  });

  it("makes durable what a durable transaction has read", async () => {
    await put(kv, "a", "1", false);
    await kv.transact(async (tx) => tx.get(bytes("a")));
    assert.equal(flushed("data.mdb"), 1);
    await kv.transact(async (tx) => tx.get(bytes("a")));
    assert.equal(flushed("data.mdb"), 1);
  });

  it("trusts a disk no more once it has failed", async () => {
    held = true;
    const commit = put(kv, "a", "1");
    await sleep(20);
    flushes[0]?.end(Object.assign(new Error("EIO"), { code: "EIO" }));
    const isDiskError = (error: unknown): boolean =>
      isErrorCode(error, "IO") && error.details["errno"] === "EIO" && error.remedy !== undefined;
    await assert.rejects(commit, isDiskError);
    endAll();
    await assert.rejects(put(kv, "b", "1", false), isDiskError);
    await assert.rejects(kv.flush(), isDiskError);
    assert.equal((await entriesOf(kv)).length, 2);
  });
});

describe("LMDB: a power failure", () => {
  /** The record of flushes as another run of the machine left it. */
  function fromAnotherBoot(record: Buffer): Buffer {
    const copy = Buffer.from(record);
    for (const at of [0, 4096]) {
      copy.fill(0xab, at + 16, at + 32);
      if (copy[at] !== 0) copy.writeUInt32LE(crc32(copy.subarray(at, at + 176)), at + 176);
    }
    return copy;
  }

  /** A file of which the disk has got some pages in their newer state and some in their older. */
  function mixPages(older: Buffer, newer: Buffer, isNewer: (page: number) => boolean): Buffer {
    const mixed = Buffer.alloc(newer.length);
    older.copy(mixed);
    for (let page = 0; page * 4096 < newer.length; page++) {
      if (isNewer(page)) newer.copy(mixed, page * 4096, page * 4096, (page + 1) * 4096);
    }
    return mixed;
  }

  /** A store with much churn after its last flush. Returns the states of its files, and what is durable. */
  async function churn(
    seed: number,
  ): Promise<{ older: Buffer; newer: Buffer; record: Buffer; durable: KvEntry[] }> {
    const random = seededRandom(seed);
    const path = newPath();
    const kv = await open(path);
    const change = (durable: boolean): Promise<void> =>
      kv.transact(
        async (tx) => {
          for (let step = 0; step < 30; step++) {
            const key = bytes(`key-${random.below(500)}`);
            if (random.below(3) === 0) tx.clear(key);
            else tx.set(key, random.bytes(random.below(3000)));
          }
        },
        { durable },
      );
    for (let round = 0; round < 20; round++) await change(round % 5 === 4);
    const durable = await entriesOf(kv);
    const [older, record] = ["data.mdb", "flushed"].map((name) =>
      fs.readFileSync(join(path, name)),
    );
    for (let round = 0; round < 25; round++) await change(false);
    const [newer, recordNow] = ["data.mdb", "flushed"].map((name) =>
      fs.readFileSync(join(path, name)),
    );
    await kv.close();
    assert.ok(older !== undefined && record !== undefined && newer !== undefined);
    assert.deepEqual(recordNow, record, "no flush came in between");
    return { older, newer, record, durable };
  }

  function restore(data: Buffer, record: Buffer): string {
    const path = newPath();
    fs.mkdirSync(path);
    fs.writeFileSync(join(path, "data.mdb"), data);
    fs.writeFileSync(join(path, "flushed"), record);
    return path;
  }

  it("leaves exactly what was durable, whatever else has reached the disk", async () => {
    let brokenWithout = 0;
    for (let seed = 1; seed <= 8; seed++) {
      const { older, newer, record, durable } = await churn(seed);
      const random = seededRandom(seed);
      // Meta pages first: they are the ones that point to pages which may be missing.
      const data = mixPages(older, newer, (page) => page < 2 || random.below(2) === 0);
      const path = restore(data, fromAnotherBoot(record));
      const kv = await open(path);
      assert.deepEqual(await entriesOf(kv), durable);
      for (let round = 0; round < 20; round++) await put(kv, `more-${round}`, Buffer.alloc(2000));
      assert.equal((await entriesOf(kv)).length, durable.length + 20);
      await kv.close();
      assert.deepEqual(checkPages(fs.readFileSync(join(path, "data.mdb"))).problems, []);
      if (checkPages(data).problems.length > 0) brokenWithout++;
    }
    assert.ok(brokenWithout > 4, "the images are broken before they are recovered");
  });

  it("loses nothing when everything has reached the disk before it, or when only processes died", async () => {
    const { older, newer, record, durable } = await churn(100);
    const whole = await open(restore(older, fromAnotherBoot(record)));
    assert.deepEqual(await entriesOf(whole), durable);
    await whole.close();
    const killed = await open(restore(newer, record));
    assert.notDeepEqual(await entriesOf(killed), durable);
    await killed.close();
  });

  it("is recovered from once, and by a writer", async () => {
    const { older, newer, record, durable } = await churn(200);
    const data = mixPages(older, newer, (page) => page < 2);
    const path = restore(data, fromAnotherBoot(record));
    await assert.rejects(open(path, { readOnly: true }), { code: "UNAVAILABLE" });
    const kv = await open(path);
    await put(kv, "later", "1", false);
    const reader = await openInSecondProcessStyle(path);
    assert.equal(reader, durable.length + 1);
    await kv.close();
    const again = await open(path);
    assert.equal((await entriesOf(again)).length, durable.length + 1);
    await again.close();
  });

  /** Copies the files while the store is open, as they would look to another process, and opens the copy. */
  async function openInSecondProcessStyle(path: string): Promise<number> {
    const [data, record] = ["data.mdb", "flushed"].map((name) => fs.readFileSync(join(path, name)));
    assert.ok(data !== undefined && record !== undefined);
    const kv = await open(restore(data, record));
    const { length } = await entriesOf(kv);
    await kv.close();
    return length;
  }

  it("is told from files that do not belong together", async () => {
    const { newer, record } = await churn(300);
    const other = await open(newPath());
    await put(other, "a", "1");
    await other.close();
    const old = fs.readFileSync(join(root, `store-${counter - 1}`, "data.mdb"));
    assert.ok(newer.length > old.length);
    const path = restore(old, fromAnotherBoot(record));
    await assert.rejects(
      open(path),
      (error) => isErrorCode(error, "DAMAGED") && error.remedy !== undefined,
    );
  });
});

describe("LMDB: its files", () => {
  it("keeps everything when it is closed and opened again", async () => {
    const path = newPath();
    for (let round = 1; round <= 3; round++) {
      const kv = await open(path);
      await put(kv, `key-${round}`, "1", round !== 2);
      assert.equal((await entriesOf(kv)).length, round);
      await kv.close();
      await kv.close();
    }
    assert.equal(fs.statSync(join(path, "data.mdb")).mode & 0o077, 0);
  });

  it("refuses to work once it is closed, after what was under way", async () => {
    const kv = await open(newPath());
    const running = kv.transact(async (tx) => {
      await sleep(20);
      tx.set(bytes("a"), bytes("1"));
    });
    await kv.close();
    await running;
    await assert.rejects(entriesOf(kv), { code: "UNAVAILABLE" });
    await assert.rejects(put(kv, "a", "1"), { code: "UNAVAILABLE" });
  });

  it("opens for reading only", async () => {
    const path = newPath();
    await assert.rejects(open(path, { readOnly: true }), { code: "NOT_FOUND" });
    assert.equal(fs.existsSync(path), false);
    const writer = await open(path);
    await put(writer, "a", "1");
    await writer.close();
    const kv = await open(path, { readOnly: true });
    assert.equal((await entriesOf(kv)).length, 1);
    assert.deepEqual(await kv.transact((tx) => tx.get(bytes("a"))), bytes("1"));
    await assert.rejects(put(kv, "a", "1"), { code: "REFUSED" });
    await kv.flush();
    await kv.close();
  });

  it("tells files that are damaged or not its own, and what to do", async () => {
    const path = newPath();
    const kv = await open(path);
    await put(kv, "a", "1");
    await kv.close();
    for (const spoil of [
      (file: string) => fs.writeFileSync(file, "this is a text\n".repeat(1000)),
      (file: string) => fs.writeFileSync(file, fs.readFileSync(file).fill(0, 0, 4096)),
      (file: string) => fs.truncateSync(file, 100),
      (file: string) => fs.truncateSync(file, 0),
    ]) {
      const copy = newPath();
      fs.cpSync(path, copy, { recursive: true });
      spoil(join(copy, "data.mdb"));
      await assert.rejects(
        open(copy),
        (error) => isErrorCode(error, "DAMAGED") && error.remedy !== undefined,
      );
    }
  });

  it("is opened once per process", async () => {
    const path = newPath();
    const kv = await open(path);
    await assert.rejects(open(path), { name: "InvariantError" });
    await put(kv, "a", "1");
    await kv.close();
    await (await open(path)).close();
  });

  it("says what is in the way of its folder", async () => {
    const path = newPath();
    fs.writeFileSync(path, "");
    await assert.rejects(open(path), (error) => isErrorCode(error, "ALREADY_EXISTS"));
    await assert.rejects(open(join(path, "below")), (error) => isErrorCode(error, "NOT_FOUND"));
  });

  it("stops short of its limit, and lets removals through", async () => {
    const path = newPath();
    const kv = await open(path, { mapSizeBytes: 4 * 2 ** 20 });
    const step = (index: number, label: string, value?: Buffer): Promise<void> =>
      kv.transact(
        async (tx) => {
          for (let each = 0; each < 20; each++) {
            const key = bytes(`key-${index}-${each}`);
            if (value === undefined) tx.clear(key);
            else tx.set(key, value);
          }
        },
        { durable: false, label },
      );
    const fill = async (): Promise<number> => {
      for (let count = 0; ; count++) {
        try {
          await step(count, "fill", Buffer.alloc(3000, count));
        } catch (error) {
          assert.ok(isErrorCode(error, "IO") && error.details["errno"] === "ENOSPC", String(error));
          assert.ok(error.remedy !== undefined);
          return count;
        }
      }
    };
    const count = await fill();
    assert.ok(count > 20 && fs.statSync(join(path, "data.mdb")).size <= 6 * 2 ** 20);
    for (let index = 0; index < count; index++) await step(index, "free:removal");
    assert.equal((await entriesOf(kv)).length, 0);
    await kv.flush();
    // Room again, within the pages that are free now.
    assert.ok((await fill()) > count - 5);
    await kv.close();
  });

  it("does not grow for what is written over and over", async () => {
    const path = newPath();
    const kv = await open(path);
    for (let round = 0; round < 600; round++) {
      await put(kv, `key-${round % 50}`, Buffer.alloc(3000, round), round % 100 === 0);
    }
    assert.ok(fs.statSync(join(path, "data.mdb")).size < 16 * 2 ** 20);
    await kv.close();
    assert.equal(checkPages(fs.readFileSync(join(path, "data.mdb"))).pagesLost, 0);
  });
});
