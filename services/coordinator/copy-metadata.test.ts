import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { openMemoryKv, type MemoryKvFaults } from "#lib/drivers/memory/memory-kv.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { key } from "#lib/repository/keyspace.ts";
import { decodeRecord, encodeRecord, type RepositoryRecord } from "#lib/repository/records.ts";
import { cancelCopy, copyMetadata, type NamedStore } from "./copy-metadata.ts";

const RECORD: RepositoryRecord = {
  schema: 1,
  repository: "00112233445566aa",
  createdMs: 1,
  blockBytes: 4096,
  hash: "blake3",
};
const A = "lmdb:/a";
const B = "foundationdb:/b?prefix=b";
const options = { quiesce: () => Promise.resolve(), random: seededRandom(9) };
const isRefused = (error: unknown): boolean => isErrorCode(error, ErrorCode.Refused);

async function entriesOf(kv: Kv): Promise<string[]> {
  const range = { start: Buffer.alloc(0), end: Buffer.from([0xff]), limit: 100_000 };
  const entries = await kv.read((reader) => reader.range(range));
  return entries
    .filter((entry) => !entry.key.equals(key.config))
    .map((entry) => `${entry.key.toString("hex")}=${entry.value.toString("hex")}`);
}

async function recordOf(kv: Kv): Promise<RepositoryRecord | undefined> {
  const value = await kv.read((reader) => reader.get(key.config));
  return value === undefined ? undefined : decodeRecord<RepositoryRecord>(value);
}

/** Which of the two can be used: never both. */
async function inUse(...stores: readonly NamedStore[]): Promise<string[]> {
  const urls: string[] = [];
  for (const { kv, url } of stores) {
    const record = await recordOf(kv);
    if (record !== undefined && record.movedTo === undefined && record.copyOf === undefined) {
      urls.push(url);
    }
  }
  return urls;
}

/** A store with small values, the largest, and many of them. */
async function filled(kv: Kv = openMemoryKv()): Promise<NamedStore> {
  const random = seededRandom(1);
  for (let round = 0; round < 40; round += 1) {
    await kv.transact(async (tx) => {
      tx.set(key.config, encodeRecord(RECORD));
      for (let at = 0; at < 40; at += 1) {
        const length = at === 0 ? 90_000 : random.below(300);
        tx.set(Buffer.concat([Buffer.from("k"), random.bytes(12)]), random.bytes(length));
      }
    });
  }
  return { kv, url: A };
}

const empty = (faults: MemoryKvFaults = {}): NamedStore => ({
  kv: openMemoryKv({ faults }),
  url: B,
});

describe("moving metadata", () => {
  it("brings everything, and leaves one place in use", async () => {
    const [from, to] = [await filled(), empty()];
    const expected = await entriesOf(from.kv);
    const result = await copyMetadata(from, to, options);
    assert.equal(result?.entries, expected.length);
    assert.deepEqual(await entriesOf(to.kv), expected);
    const { copyId, ...record } = (await recordOf(to.kv)) as RepositoryRecord;
    assert.deepEqual(record, { ...RECORD, moves: 1 });
    assert.deepEqual(await recordOf(from.kv), {
      ...RECORD,
      movedTo: B,
      movedDone: true,
      copyId,
    });
    assert.deepEqual(await inUse(from, to), [B]);
    assert.equal(await copyMetadata(from, to, options), undefined);
  });

  it("brings it back, over what was moved away", async () => {
    const [from, to] = [await filled(), empty()];
    await copyMetadata(from, to, options);
    await to.kv.transact(async (tx) => tx.set(Buffer.from("knew"), Buffer.from("1")));
    const expected = await entriesOf(to.kv);
    await copyMetadata(to, from, options);
    assert.deepEqual(await entriesOf(from.kv), expected);
    assert.deepEqual(await inUse(from, to), [A]);
  });

  it("may die at any commit: never are both in use, and it can be run again or given up", async () => {
    for (let count = 0; ; count += 1) {
      let commits = 0;
      let isDying = true;
      const beforeCommit = (): "ok" => {
        commits += 1;
        if (isDying && commits > count) throw new Error("died");
        return "ok";
      };
      const from = await filled();
      const faulty = { kv: withFaults(from.kv, () => void beforeCommit()), url: A };
      const to = empty({ beforeCommit });
      const expected = await entriesOf(from.kv);
      const died = await copyMetadata(faulty, to, options).then(
        () => false,
        () => true,
      );
      const used = await inUse(from, to);
      assert.ok(used.length <= 1, `${used.join(" and ")} in use after ${count} commits`);
      isDying = false;
      if (!died) break;
      const isDone = (await recordOf(from.kv))?.movedDone === true;
      if (isDone) await assert.rejects(cancelCopy(faulty, to), isRefused);
      if (isDone || count % 2 === 0) {
        await copyMetadata(faulty, to, options);
        assert.deepEqual(await inUse(from, to), [B]);
        assert.deepEqual(await entriesOf(to.kv), expected);
      } else {
        await cancelCopy(faulty, to);
        assert.deepEqual(await inUse(from, to), [A]);
        assert.deepEqual(await entriesOf(from.kv), expected);
        assert.deepEqual(await entriesOf(to.kv), []);
      }
    }
  });

  it("may die on the way back, too: what is newer is never overwritten", async () => {
    for (let count = 0; ; count += 1) {
      let commits = 0;
      let isDying = false;
      const beforeCommit = (): "ok" => {
        commits += 1;
        if (isDying && commits > count) throw new Error("died");
        return "ok";
      };
      const a = await filled(openMemoryKv({ faults: { beforeCommit } }));
      const b = empty({ beforeCommit });
      await copyMetadata(a, b, options);
      await b.kv.transact(async (tx) => tx.set(Buffer.from("knew"), Buffer.from("1")));
      const newest = await entriesOf(b.kv);
      [commits, isDying] = [0, true];
      const died = await copyMetadata(b, a, options).then(
        () => false,
        () => true,
      );
      isDying = false;
      const used = await inUse(a, b);
      assert.ok(used.length <= 1, `${used.join(" and ")} in use after ${count} commits`);
      if (!died) break;
      // The wrong way: what is at A is old.
      if (used.includes(B)) assert.equal(await copyMetadata(a, b, options), undefined);
      else await assert.rejects(copyMetadata(a, b, options), isRefused);
      if (count % 2 === 0 && (await recordOf(b.kv))?.movedDone !== true) {
        await cancelCopy(b, a);
        assert.deepEqual(await inUse(a, b), [B]);
        assert.deepEqual(await entriesOf(b.kv), newest);
      } else {
        await copyMetadata(b, a, options);
        assert.deepEqual(await inUse(a, b), [A]);
        assert.deepEqual(await entriesOf(a.kv), newest);
      }
    }
  });

  it("is not done once more, nor given up, from where its target cannot be seen", async () => {
    const [from, to] = [await filled(), empty()];
    await copyMetadata(from, to, options);
    // The same URL on another host, or a folder that is not mounted.
    const elsewhere = empty();
    await assert.rejects(copyMetadata(from, elsewhere, options), isRefused);
    await assert.rejects(cancelCopy(from, elsewhere), isRefused);
    assert.deepEqual(await inUse(from, to, elsewhere), [B]);
  });

  it("takes pages that become much larger from one entry to the next", async () => {
    const from = await filled();
    for (let round = 0; round < 10; round += 1) {
      await from.kv.transact(async (tx) => {
        for (let at = 0; at < 300; at += 1) {
          const name = Buffer.from(`a${String(round * 300 + at).padStart(6, "0")}`);
          tx.set(name, Buffer.alloc(1));
        }
        for (let at = 0; at < 30; at += 1) {
          tx.set(Buffer.from(`b${round}-${at}`), Buffer.alloc(90_000, at));
        }
      });
    }
    let most = 0;
    const to = empty();
    const watched: NamedStore = {
      url: B,
      kv: {
        ...withFaults(to.kv, () => undefined),
        transact: (body, how) =>
          to.kv.transact((tx) => {
            let bytes = 0;
            const counting = Object.create(tx) as typeof tx;
            Object.assign(counting, {
              set: (name: Buffer, value: Buffer) => {
                bytes += value.length;
                most = Math.max(most, bytes);
                tx.set(name, value);
              },
              clearRange: (start: Buffer, end: Buffer) => tx.clearRange(start, end),
            });
            return body(counting);
          }, how),
      },
    };
    await copyMetadata(from, watched, options);
    assert.ok(most < 1_000_000, `${most} bytes in one transaction`);
    assert.deepEqual(await entriesOf(to.kv), await entriesOf(from.kv));
  });

  it("is not done where somebody works with the metadata meanwhile", async () => {
    const [from, to] = [await filled(), empty()];
    let isLate = false;
    const late = {
      ...options,
      onProgress: (_: number, phase: string) => {
        if (phase !== "comparing" || isLate) return;
        isLate = true;
        void from.kv.transact(async (tx) => tx.set(Buffer.from("klate"), Buffer.from("1")));
      },
    };
    await assert.rejects(copyMetadata(from, to, late), (error) =>
      isErrorCode(error, ErrorCode.TryAgain),
    );
    assert.deepEqual(await inUse(from, to), []);
    await copyMetadata(from, to, options);
    assert.ok((await entriesOf(to.kv)).some((entry) => entry.startsWith("6b6c617465=")));
  });

  it("overwrites nothing of anybody else", async () => {
    const from = await filled();
    const strange = empty();
    await strange.kv.transact(async (tx) => tx.set(Buffer.from("x"), Buffer.from("1")));
    await assert.rejects(copyMetadata(from, strange, options), isRefused);
    const other = empty();
    const foreign = { ...RECORD, repository: "ffffffffffffffff" };
    await other.kv.transact(async (tx) => tx.set(key.config, encodeRecord(foreign)));
    await assert.rejects(copyMetadata(from, other, options), isRefused);
    const same = { ...(await filled()), url: B };
    await assert.rejects(copyMetadata(from, same, options), isRefused);
    // Nothing was begun.
    assert.deepEqual(await inUse(from), [A]);
    await copyMetadata(from, empty(), options);
    await assert.rejects(copyMetadata(from, { ...empty(), url: "lmdb:/c" }, options), isRefused);
    await assert.rejects(cancelCopy(from, { ...empty(), url: "lmdb:/c" }), isRefused);
  });
});

function withFaults(kv: Kv, beforeCommit: () => void): Kv {
  return {
    ...kv,
    read: (body) => kv.read(body),
    flush: () => kv.flush(),
    close: () => kv.close(),
    transact: (body, how) =>
      kv.transact(async (tx) => {
        const value = await body(tx);
        beforeCommit();
        return value;
      }, how),
  };
}
