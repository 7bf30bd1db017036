// What a version is compressed by, from its job down to the objects.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { CompressionChoice } from "#lib/ports/compute.ts";
import { retireStorage } from "#lib/repository/transactions/retire.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { decodeSealed } from "#proto/sealed-object.ts";
import { BLOCK_BYTES, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import { runBackup } from "./backup-job.ts";
import { choosePolicy } from "./choose-policy.ts";
import type { BackupJob } from "./jobs.ts";
import { runRestore } from "./restore-job.ts";

const JOB: BackupJob = { source: "disk", volume: "v" };

/** Blocks that can be compressed, none like another of the same or another seed. */
function compressible(blocks: number, seed: number): Buffer {
  const data = Buffer.alloc(blocks * BLOCK_BYTES, "ashlar ");
  for (let at = 0; at < blocks; at += 1) data.writeUInt32LE(seed * 1000 + at, at * BLOCK_BYTES);
  return data;
}

/** How the blocks and nodes at a storage are compressed that were not there before. */
function compressionsOf(process: OneProcess, before: ReadonlySet<string>): string[] {
  const found = new Set<string>();
  for (const [name, bytes] of process.stores[0]!.objects) {
    const isTree = name.startsWith("blocks/") || name.startsWith("nodes/");
    if (isTree && !before.has(name)) found.add(decodeSealed(bytes).header.compression);
  }
  return [...found];
}

const withSettings = (process: OneProcess, compression: CompressionChoice) => ({
  ...process.context,
  settings: { ...process.context.settings, compression },
});

describe("the compression of a version", () => {
  it("is what its job says, what the coordinator's configuration says, or the writer's", async () => {
    const process = await openOneProcess();
    const cases: [Partial<BackupJob>, CompressionChoice | undefined, string][] = [
      [{}, undefined, "zstd"],
      [{}, { name: "lz4", level: 1 }, "lz4"],
      [{ compression: "none" }, { name: "lz4", level: 1 }, "none"],
      [{ compression: "lz4" }, undefined, "lz4"],
      [{ compression: "zstd", compressionLevel: 19 }, { name: "lz4", level: 1 }, "zstd"],
    ];
    for (const [index, [wish, configured, expected]] of cases.entries()) {
      const data = compressible(20, index + 1);
      process.device("disk", data);
      const before = new Set(process.stores[0]!.objects.keys());
      const context =
        configured === undefined ? process.context : withSettings(process, configured);
      const { uid } = await runBackup(context, { ...JOB, ...wish });
      // A node has so little that compressing it may save nothing.
      const found = compressionsOf(process, before).filter((name) => name !== "none");
      assert.deepEqual(found, expected === "none" ? [] : [expected], `case ${index}`);
      await runRestore(process.context, { uid, target: `target${index}` });
      assert.deepEqual(process.devices.get(`target${index}`)?.data, data);
    }
    await process.close();
  });

  it("is recorded with its level, and a higher one saves more", async () => {
    const process = await openOneProcess({ blockBytes: 64 * 1024 });
    const words = Array.from({ length: 40_000 }, (_, at) => `${(at * 7919) % 4099} `).join("");
    const stored: number[] = [];
    for (const compressionLevel of [1, 19]) {
      process.device("disk", Buffer.from(`${compressionLevel} ${words}`));
      const { uid, statistics } = await runBackup(process.context, {
        ...JOB,
        compression: "zstd",
        compressionLevel,
      });
      const version = await process.repo.kv.read((reader) => readVersion(reader, uid));
      assert.deepEqual(version?.policy.compression, { name: "zstd", level: compressionLevel });
      stored.push(statistics.bytesStored);
    }
    const [fast, small] = stored as [number, number];
    assert.ok(small < fast * 0.97, `${small} bytes at level 19, ${fast} at level 1`);
    await process.close();
  });

  it("takes the configured level only with the configured compression", async () => {
    const process = await openOneProcess();
    const context = withSettings(process, { name: "zstd", level: 7 });
    const chosen = async (job: Partial<BackupJob>) =>
      (await choosePolicy(context, { ...JOB, ...job })).compression;
    assert.deepEqual(await chosen({}), { name: "zstd", level: 7 });
    assert.deepEqual(await chosen({ compression: "zstd" }), { name: "zstd", level: 7 });
    assert.deepEqual(await chosen({ compression: "lz4" }), { name: "lz4", level: 1 });
    assert.deepEqual(await chosen({ compressionLevel: 3 }), { name: "zstd", level: 3 });
    for (const job of [
      { compression: "lz4", compressionLevel: 3 },
      { compression: "brotli" },
      { compressionLevel: 20 },
      { compressionLevel: 1.5 },
    ]) {
      await assert.rejects(chosen(job), (error) => isErrorCode(error, "USAGE"));
    }
    await process.close();
  });

  it("is the new wish where a backup is gone on with", async () => {
    const process = await openOneProcess({ storages: 1 });
    const device = process.device("disk", compressible(2000, 1));
    const stop = new AbortController();
    device.onRead = async (offset) => {
      if (offset < 1500 * BLOCK_BYTES) return;
      stop.abort();
      await new Promise((resolve) => setTimeout(resolve, 50));
    };
    const job = { ...JOB, snapshot: "s" };
    await assert.rejects(runBackup(process.context, job, { signal: stop.signal }));
    delete device.onRead;
    const before = new Set(process.stores[0]!.objects.keys());
    const result = await runBackup(process.context, { ...job, compression: "lz4", prefer: ["s0"] });
    assert.equal(result.resumed, true);
    assert.ok(compressionsOf(process, before).includes("lz4"));
    assert.ok(!compressionsOf(process, before).includes("zstd"));
    const version = await process.repo.kv.read((reader) => readVersion(reader, result.uid));
    assert.deepEqual(version?.policy.compression, { name: "lz4", level: 1 });
    assert.deepEqual(version?.policy.prefer, process.storageIds);
    await process.close();
  });
});

describe("the storages of a version", () => {
  it("are without what was removed from the repository, unless that is asked for by name", async () => {
    const process = await openOneProcess({ storages: 3 });
    const [first, second] = process.storageIds;
    const context = {
      ...process.context,
      settings: { ...process.context.settings, prefer: ["s0", "s1"] },
    };
    const { policy } = await backedUp();
    assert.deepEqual(policy.storages, process.storageIds);
    await retireStorage(process.repo.kv, first as StorageId, true);
    const { policy: later } = await backedUp();
    assert.deepEqual(later.storages, process.storageIds.slice(1));
    assert.deepEqual(later.prefer, [second]);
    assert.match(process.logged.map(({ message }) => message).join("\n"), /s0 was removed from/);
    await assert.rejects(
      runBackup(context, { ...JOB, storages: ["s0", "s1"], quorum: 2 }),
      /only 1 of its storages are in use/,
    );
    await process.close();

    async function backedUp() {
      process.device("disk", compressible(20, 1));
      const { uid } = await runBackup(context, JOB);
      const version = await process.repo.kv.read((reader) => readVersion(reader, uid));
      assert.ok(version !== undefined);
      return version;
    }
  });
});
