// Backups and restores through all roles in one process, over memory drivers.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, isErrorCode } from "#lib/core/errors.ts";
import type { VersionUid } from "#lib/core/ids.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { BLOCK_BYTES, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import { runBackup } from "./backup-job.ts";
import { noticeDead } from "./dead-sessions.ts";
import { listPlacedVersions } from "./listing.ts";
import { runRestore } from "./restore-job.ts";

const B = BLOCK_BYTES;

/** Data with zero blocks, repeated blocks and random ones. */
function image(bytes: number, seed = 1): Buffer {
  const random = seededRandom(seed);
  const data = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; at += B) {
    const kind = random.below(4);
    const length = Math.min(B, bytes - at);
    if (kind === 1) data.fill(random.below(3) + 1, at, at + length);
    if (kind > 1) random.bytes(length).copy(data, at);
  }
  return data;
}

async function restored(process: OneProcess, uid: VersionUid): Promise<Buffer> {
  await runRestore(process.context, {
    uid,
    target: "target",
    force: process.devices.has("target"),
  });
  const { data } = process.devices.get("target")!;
  process.devices.delete("target");
  return data;
}

function objects(process: OneProcess, store: number, folder: string): string[] {
  return [...process.stores[store]!.objects.keys()].filter((name) => name.startsWith(folder));
}

describe("backup and restore", () => {
  it("give back exactly what was read, for sizes that are multiples of nothing", async () => {
    const process = await openOneProcess();
    for (const bytes of [0, 1, B - 1, B, B + 1, 16 * B, 256 * B, 256 * B + 1, 1000 * B + 17]) {
      const data = image(bytes, bytes + 1);
      process.device("disk", data);
      const result = await runBackup(process.context, { source: "disk", volume: `v${bytes}` });
      assert.deepEqual(await restored(process, result.uid), data, `${bytes} bytes`);
      assert.deepEqual(
        result.storages.map(({ complete }) => complete),
        [true, true],
      );
    }
    await process.close();
  });

  it("store nothing twice, and nothing of an unchanged device", async () => {
    const process = await openOneProcess();
    process.device("disk", image(500 * B));
    const first = await runBackup(process.context, { source: "disk", volume: "v" });
    const before = process.stores.map((store) => store.objects.size);
    const second = await runBackup(process.context, { source: "disk", volume: "w" });
    assert.equal(second.statistics.bytesNew, 0);
    assert.equal(second.statistics.bytesStored, 0);
    assert.deepEqual(
      process.stores.map((store) => store.objects.size),
      before.map((count) => count + 1),
    );
    assert.equal(objects(process, 0, "blocks/").length, first.statistics.blocksNew);
    const { bytesNew, bytesKnown, bytesSparse } = first.statistics;
    assert.equal(bytesNew + bytesKnown + bytesSparse, 500 * B);
    await process.close();
  });

  it("do not read what the source has as holes", async () => {
    const process = await openOneProcess();
    const data = Buffer.alloc(600 * B);
    data.fill(3, 300 * B, 302 * B);
    const device = process.device("disk", data);
    device.extents = [{ offset: 300 * B, length: 2 * B }];
    const { statistics, uid } = await runBackup(process.context, { source: "disk", volume: "v" });
    assert.equal(statistics.bytesRead, 2 * B);
    assert.equal(statistics.bytesSparse, 598 * B);
    assert.deepEqual(await restored(process, uid), data);
    await process.close();
  });

  it("take a stream whose size nobody knows", async () => {
    const process = await openOneProcess();
    for (const bytes of [0, 5, 16 * B, 256 * B, 256 * B + 3, 700 * B]) {
      const data = image(bytes, 5);
      process.device("-", data).isStream = true;
      const { uid, sizeBytes } = await runBackup(process.context, {
        source: "-",
        volume: `s${bytes}`,
      });
      assert.equal(sizeBytes, bytes);
      assert.deepEqual(await restored(process, uid), data, `${bytes} bytes`);
    }
    await process.close();
  });

  it("send a block once when two backups have it at the same time", async () => {
    const process = await openOneProcess({ storages: 1 });
    const data = image(400 * B);
    process.device("a", data);
    process.device("b", data);
    const results = await Promise.all(
      ["a", "b"].map((source) => runBackup(process.context, { source, volume: source })),
    );
    const unique = objects(process, 0, "blocks/").length;
    const sent = results.reduce((sum, { statistics }) => sum + statistics.blocksNew, 0);
    assert.equal(sent, unique);
    for (const { uid } of results) assert.deepEqual(await restored(process, uid), data);
    await process.close();
  });

  it("work over a bus that loses no message but repeats them", async () => {
    let count = 0;
    const process = await openOneProcess({
      busFault: (where) => {
        count += 1;
        return (where === "dedup" || where === "writer") && count % 3 === 0 ? "repeat" : "none";
      },
    });
    const data = image(300 * B);
    process.device("disk", data);
    const { uid } = await runBackup(process.context, { source: "disk", volume: "v" });
    assert.deepEqual(await restored(process, uid), data);
    await process.close();
  });

  it("restore a range, and only what differs", async () => {
    const process = await openOneProcess();
    const data = image(100 * B + 7);
    process.device("disk", data);
    const { uid } = await runBackup(process.context, { source: "disk", volume: "v" });
    const range = { offset: 3 * B + 11, length: 40 * B };
    await runRestore(process.context, { uid, target: "part", range });
    assert.deepEqual(
      process.devices.get("part")!.data,
      data.subarray(range.offset, range.offset + range.length),
    );
    const old = Buffer.from(data);
    old.fill(9, 10 * B, 11 * B);
    process.device("old", old);
    const result = await runRestore(process.context, {
      uid,
      target: "old",
      force: true,
      differential: true,
    });
    assert.deepEqual(old, data);
    assert.ok(result.bytesWritten <= B);
    await assert.rejects(
      runRestore(process.context, { uid, target: "x", range: { offset: 0, length: 101 * B } }),
      (error) => isErrorCode(error, "USAGE"),
    );
    await process.close();
  });
});

describe("an incremental backup", () => {
  it("reads what the hints name and a sample, and takes everything else from the base", async () => {
    const process = await openOneProcess();
    const data = image(3000 * B);
    const device = process.device("disk", data);
    const base = await runBackup(process.context, { source: "disk", volume: "v" });
    device.data = Buffer.from(data);
    device.data.fill(7, 5 * B, 6 * B + 5);
    device.data.fill(0, 900 * B, 902 * B);
    const hints = [
      { offset: 5 * B, length: B + 5, exists: "true" },
      { offset: 900 * B, length: 2 * B, exists: "false" },
    ];
    process.device("hints", Buffer.from(JSON.stringify(hints)));
    const job = { source: "disk", volume: "v", base: base.uid, hints: "hints" } as const;
    const { uid, statistics } = await runBackup(process.context, job);
    assert.ok(statistics.blocksRead <= 2 + 31, `${statistics.blocksRead} blocks were read`);
    assert.deepEqual(await restored(process, uid), device.data);
    await process.close();
  });

  it("follows a device that has grown or shrunk", async () => {
    const process = await openOneProcess();
    const device = process.device("disk", image(700 * B + 100));
    process.device("hints", Buffer.from("[]"));
    let base = (await runBackup(process.context, { source: "disk", volume: "v" })).uid;
    for (const bytes of [1500 * B + 9, 256 * B, 255 * B + 1, 70_000 * B]) {
      const old = device.data;
      device.data = Buffer.alloc(bytes);
      old.copy(device.data);
      if (bytes > old.length)
        image(Math.min(bytes - old.length, 600 * B), 9).copy(device.data, old.length);
      const result = await runBackup(process.context, {
        source: "disk",
        volume: "v",
        base,
        hints: "hints",
      });
      assert.deepEqual(await restored(process, result.uid), device.data, `${bytes} bytes`);
      base = result.uid;
    }
    await process.close();
  });

  it("reads everything when a hint was wrong, with a warning; strictly, it fails", async () => {
    const process = await openOneProcess();
    const device = process.device("disk", image(1000 * B));
    const base = await runBackup(process.context, { source: "disk", volume: "v" });
    device.data = image(1000 * B, 99);
    process.device("hints", Buffer.from("[]"));
    const job = { source: "disk", volume: "v", base: base.uid, hints: "hints" } as const;
    await assert.rejects(runBackup(process.context, { ...job, strictHints: true }), (error) =>
      isErrorCode(error, "DAMAGED"),
    );
    const result = await runBackup(process.context, job);
    assert.match(result.warnings.join(), /everything was read/);
    assert.deepEqual(await restored(process, result.uid), device.data);
    await process.close();
  });

  it("is refused over a base of another volume, block size, or that is not valid", async () => {
    const process = await openOneProcess();
    process.device("disk", image(10 * B));
    const { uid } = await runBackup(process.context, { source: "disk", volume: "v" });
    const usage = (error: unknown): boolean => isErrorCode(error, "USAGE");
    await assert.rejects(
      runBackup(process.context, { source: "disk", volume: "w", base: uid }),
      usage,
    );
    const job = { source: "disk", volume: "v", base: uid, blockBytes: 2 * B };
    await assert.rejects(runBackup(process.context, job), usage);
    const unfinished = "v-x" as VersionUid;
    process.device("disk", image(500 * B)).badOffset = 333 * B;
    await assert.rejects(
      runBackup(process.context, { source: "disk", volume: "v", uid: unfinished }),
    );
    await assert.rejects(
      runBackup(process.context, { source: "disk", volume: "v", base: unfinished }),
      usage,
    );
    await process.close();
  });
});

describe("a backup that fails", () => {
  it("names the offset of a read error, and leaves no valid version", async () => {
    const process = await openOneProcess();
    const device = process.device("disk", image(500 * B));
    device.badOffset = 333 * B + 5;
    await assert.rejects(
      runBackup(process.context, { source: "disk", volume: "v", uid: "v-x" as VersionUid }),
      (error) => isErrorCode(error, "IO") && typeof error.details["offset"] === "number",
    );
    const version = await process.repo.kv.read((reader) =>
      readVersion(reader, "v-x" as VersionUid),
    );
    assert.equal(version?.state, "incomplete");
    delete device.badOffset;
    const again = await runBackup(process.context, { source: "disk", volume: "v" });
    assert.equal(again.uid, "v-x");
    assert.equal(again.resumed, true);
    assert.deepEqual(await restored(process, again.uid), device.data);
    await process.close();
  });

  it("fails when the source shrinks while it is read", async () => {
    const process = await openOneProcess();
    const device = process.device("disk", image(500 * B));
    device.onRead = (offset) => {
      if (offset > 100 * B) device.data = device.data.subarray(0, 50 * B);
    };
    const backup = runBackup(process.context, { source: "disk", volume: "v" });
    await assert.rejects(backup, (error) => isErrorCode(error, "IO"));
    await process.close();
  });

  it("goes on where it stopped: nothing stored is sent again, a frozen source is not read again", async () => {
    const process = await openOneProcess({ storages: 1 });
    const device = process.device("disk", image(2000 * B));
    const stop = new AbortController();
    device.onRead = async (offset) => {
      if (offset < 1500 * B) return;
      stop.abort();
      await new Promise((resolve) => setTimeout(resolve, 50));
    };
    const job = { source: "disk", volume: "v", snapshot: "snap1" };
    await assert.rejects(runBackup(process.context, job, { signal: stop.signal }), (error) =>
      isErrorCode(error, "CANCELLED"),
    );
    delete device.onRead;
    device.reads = 0;
    const stored = objects(process, 0, "blocks/").length;
    assert.ok(stored > 0);
    const result = await runBackup(process.context, job);
    assert.equal(result.resumed, true);
    assert.ok(
      result.statistics.bytesRead < 1300 * B,
      `${result.statistics.bytesRead / B} blocks were read again`,
    );
    assert.equal(objects(process, 0, "blocks/").length, stored + result.statistics.blocksNew);
    assert.deepEqual(await restored(process, result.uid), device.data);
    await process.close();
  });

  it("is taken up again by its own process when others took it for dead", async () => {
    const process = await openOneProcess();
    const device = process.device("disk", image(800 * B));
    let killed = false;
    device.onRead = async (offset) => {
      if (killed || offset < 400 * B) return;
      killed = true;
      await noticeDead({ ...process.context, isOwnerAlive: () => false });
    };
    const result = await runBackup(process.context, { source: "disk", volume: "v" });
    assert.equal(killed, true);
    assert.equal(result.resumed, true);
    assert.deepEqual(await restored(process, result.uid), device.data);
    await process.close();
  });
});

describe("storages", () => {
  it("that are away are owed what they lack, and get it when they are back", async () => {
    const process = await openOneProcess({ storages: 2 });
    const data = image(600 * B);
    process.device("disk", data);
    process.stores[1]!.away = true;
    const first = await runBackup(process.context, { source: "disk", volume: "v" });
    assert.deepEqual(
      first.storages.map(({ complete }) => complete),
      [true, false],
    );
    assert.equal(process.stores[1]!.objects.size, 0);
    process.stores[1]!.away = false;
    const second = await runBackup(process.context, { source: "disk", volume: "v" });
    assert.deepEqual(
      second.storages.map(({ complete }) => complete),
      [true, true],
    );
    assert.equal(second.statistics.bytesNew, 0, "nothing was read from the source for it");
    process.stores[0]!.away = true;
    assert.deepEqual(
      await restored(process, first.uid),
      data,
      "the other storage alone restores it",
    );
    await process.close();
  });

  it("that are away are not complete either when everything but the head is there already", async () => {
    const process = await openOneProcess({ storages: 2 });
    process.device("disk", image(600 * B));
    const first = await runBackup(process.context, { source: "disk", volume: "v" });
    process.stores[1]!.away = true;
    const second = await runBackup(process.context, { source: "disk", volume: "v" });
    assert.deepEqual(
      second.storages.map(({ complete }) => complete),
      [true, false],
    );
    const listed = await listPlacedVersions(process.repo.kv);
    assert.deepEqual(
      listed.map(({ version, missingAt, restorable }) => [version.uid, missingAt, restorable]),
      [
        [first.uid, [], true],
        [second.uid, [process.storageIds[1]], true],
      ],
    );
    await process.close();
  });

  it("are all required when the user says so", async () => {
    const process = await openOneProcess({ storages: 2 });
    process.device("disk", image(50 * B));
    process.stores[1]!.away = true;
    const job = { source: "disk", volume: "v", requireComplete: true };
    await assert.rejects(runBackup(process.context, job), (error) =>
      isErrorCode(error, "UNAVAILABLE"),
    );
    process.stores[1]!.away = false;
    const result = await runBackup(process.context, job);
    assert.deepEqual(
      result.storages.map(({ complete }) => complete),
      [true, true],
    );
    await process.close();
  });

  it("heal a damaged object while it is restored from another one", async () => {
    const process = await openOneProcess({ storages: 2 });
    const data = image(200 * B);
    process.device("disk", data);
    const { uid } = await runBackup(process.context, { source: "disk", volume: "v" });
    for (const name of objects(process, 0, "blocks/")) {
      const bytes = process.stores[0]!.objects.get(name)!;
      bytes[bytes.length >> 1]! ^= 1;
    }
    assert.deepEqual(await restored(process, uid), data);
    await process.close();
  });

  it("without a good copy: the restore names block and offset, or goes on around it", async () => {
    const process = await openOneProcess({ storages: 1 });
    const data = image(200 * B, 3);
    process.device("disk", data);
    const { uid } = await runBackup(process.context, { source: "disk", volume: "v" });
    const [name] = objects(process, 0, "blocks/");
    process.stores[0]!.objects.delete(name!);
    await assert.rejects(
      runRestore(process.context, { uid, target: "t" }),
      (error) => isErrorCode(error, "DAMAGED") && /offset \d+/.test(error.message),
    );
    process.devices.delete("t");
    const result = await runRestore(process.context, { uid, target: "t", keepGoing: true });
    assert.ok(result.damaged.length > 0);
    const expected = Buffer.from(data);
    for (const { offset, length } of result.damaged) expected.fill(0, offset, offset! + length);
    assert.deepEqual(process.devices.get("t")!.data, expected);
    await process.close();
  });

  it("report errors as AshlarError, with what the storage said", async () => {
    const process = await openOneProcess({ storages: 1 });
    process.device("disk", image(50 * B));
    process.stores[0]!.faults = {
      before: ({ kind }) => {
        if (kind === "put")
          throw new AshlarError("IO", "no space", { details: { errno: "ENOSPC" } });
        return "none";
      },
    };
    await assert.rejects(
      runBackup(process.context, { source: "disk", volume: "v" }),
      (error) => isErrorCode(error, "IO") && error.details["errno"] === "ENOSPC",
    );
    await process.close();
  });
});
