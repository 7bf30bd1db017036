// Listings, usage, status and comparison over real backups in one process.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { addStorage, listStorages } from "#lib/repository/transactions/storage.ts";
import {
  changeVersion,
  removeVersion,
  requireVersion,
} from "#lib/repository/transactions/version.ts";
import { BLOCK_BYTES, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import { runBackup } from "./backup-job.ts";
import { compareSource } from "./compare-source.ts";
import { decideRetention } from "./enforce-job.ts";
import { parseRetentionRules } from "#lib/core/retention.ts";
import type { BackupResult } from "./jobs.ts";
import { listPlacedVersions, resolveVersion, showVersion } from "./listing.ts";
import { planRemoval } from "./plan-removal.ts";
import { checkRemovable, removeVersions } from "./remove-job.ts";
import { readStatus } from "./status.ts";
import { measureStorages, VersionMeter } from "./usage.ts";

const B = BLOCK_BYTES;

/** A block of one byte value; 0 is a zero block. */
function blocks(...values: number[]): Buffer {
  return Buffer.concat(values.map((value) => Buffer.alloc(B, value)));
}

async function backup(process: OneProcess, volume: string, data: Buffer): Promise<BackupResult> {
  process.device(volume, data);
  return runBackup(process.context, { source: volume, volume });
}

describe("a listing", () => {
  it("calls a version complete only where its head is, whatever else has all of its content", async () => {
    const process = await openOneProcess({ storages: 2 });
    process.device("disk", seededRandom(3).bytes(8 * BLOCK_BYTES));
    const [here, there] = process.storageIds;
    const storages = ["s0"];
    const narrow = await runBackup(process.context, { source: "disk", volume: "v", storages });
    const wide = await runBackup(process.context, { source: "disk", volume: "w" });
    const completeAt = new Map(
      (await listPlacedVersions(process.repo.kv)).map((each) => [
        each.version.uid,
        each.completeAt,
      ]),
    );
    assert.deepEqual(completeAt.get(narrow.uid), [here]);
    assert.deepEqual(new Set(completeAt.get(wide.uid)), new Set([here, there]));
    await process.close();
  });

  it("tells valid, restorable and where complete, sorted by volume and date", async () => {
    const process = await openOneProcess({ quorum: 2 });
    const { kv } = process.repo;
    const b = await backup(process, "b", blocks(1, 2));
    const a1 = await backup(process, "a", blocks(1));
    const a2 = await backup(process, "a", blocks(3));
    const listed = await listPlacedVersions(kv);
    assert.deepEqual(
      listed.map(({ version }) => version.uid),
      [a1.uid, a2.uid, b.uid],
    );
    for (const { completeAt, missingAt, restorable } of listed) {
      assert.deepEqual([...completeAt].sort(), [...process.storageIds].sort());
      assert.deepEqual(missingAt, []);
      assert.ok(restorable);
    }
    const [first] = await listStorages(kv);
    await addStorage(kv, first!.storage, { ...first!.record, state: "disabled" });
    const disabled = await showVersion(kv, b.uid);
    assert.equal(disabled.completeAt.length, 1, "a disabled storage counts for nothing");
    assert.equal(disabled.restorable, false, "the quorum is two");
    await process.close();
  });

  it("resolves uids, beginnings and VOLUME@latest, and never what was removed", async () => {
    const process = await openOneProcess();
    const { kv } = process.repo;
    const a1 = await backup(process, "a", blocks(1));
    const a2 = await backup(process, "a", blocks(2));
    assert.equal(await resolveVersion(kv, a1.uid), a1.uid);
    assert.equal(await resolveVersion(kv, "a@latest"), a2.uid);
    await assert.rejects(resolveVersion(kv, "a-"), (error) => isErrorCode(error, ErrorCode.Usage));
    await removeVersion(kv, a2.uid);
    assert.equal(await resolveVersion(kv, "a-"), a1.uid);
    assert.equal(await resolveVersion(kv, "a@latest"), a1.uid);
    for (const text of [a2.uid, "b@latest", "b"]) {
      await assert.rejects(resolveVersion(kv, text), (error) =>
        isErrorCode(error, ErrorCode.NotFound),
      );
    }
    await process.close();
  });
});

describe("removal", () => {
  it("looks at all versions before the first one goes", async () => {
    const process = await openOneProcess();
    const { kv } = process.repo;
    const one = await backup(process, "a", blocks(1));
    const two = await backup(process, "a", blocks(2));
    await changeVersion(kv, two.uid, { protected: true });
    await assert.rejects(checkRemovable(kv, [one.uid, two.uid]), (error) =>
      isErrorCode(error, ErrorCode.Refused),
    );
    const { removed, failed } = await removeVersions(kv, [two.uid, one.uid]);
    assert.deepEqual(
      removed,
      [one.uid],
      "what became protected meanwhile does not keep the others",
    );
    assert.deepEqual(
      failed.map(({ uid }) => uid),
      [two.uid],
    );
    await process.close();
  });

  it("by rules leaves what a filter leaves out", async () => {
    const process = await openOneProcess();
    const { kv } = process.repo;
    const [a1, a2, b1] = [
      await backup(process, "a", blocks(1)),
      await backup(process, "a", blocks(2)),
      await backup(process, "b", blocks(3)),
    ];
    const rules = parseRetentionRules("latest1");
    const decisions = await decideRetention(
      kv,
      rules,
      ({ volume }) => volume === "a",
      Date.now() + 1000,
    );
    assert.deepEqual(
      decisions.map(({ uid, keep }) => [uid, keep]),
      [
        [a2.uid, true],
        [a1.uid, false],
      ],
    );
    assert.ok(decisions.every(({ uid }) => uid !== b1.uid));
    await process.close();
  });
});

describe("usage", () => {
  it("counts what is unique, shared and virtual", async () => {
    const process = await openOneProcess();
    const { kv } = process.repo;
    const one = await backup(process, "a", blocks(1, 2, 0, 0));
    const two = await backup(process, "a", blocks(1, 3, 4, 0));
    const meter = new VersionMeter(kv);
    const usage = async ({ uid }: BackupResult) => {
      const version = await kv.read((reader) => requireVersion(reader, uid));
      const { removal } = await planRemoval(process.repo, [uid]);
      return meter.measure(version, removal);
    };
    const [first, second] = [await usage(one), await usage(two)];
    assert.deepEqual(
      [first.virtualBytes, first.dataBytes, first.uniqueBytes, first.sharedBytes],
      [4 * B, 2 * B, B, B],
    );
    assert.deepEqual([second.dataBytes, second.uniqueBytes, second.sharedBytes], [3 * B, 2 * B, B]);
    assert.ok(first.uniqueStoredBytes > 0);
    const storages = await measureStorages(kv);
    assert.equal(storages.length, 2);
    for (const storage of storages) assert.deepEqual([storage.blocks, storage.nodes], [4, 2]);
    await process.close();
  });
});

describe("status", () => {
  it("tells sessions, debts and the oldest verification", async () => {
    const process = await openOneProcess();
    const { kv } = process.repo;
    process.stores[1]!.away = true;
    await backup(process, "a", blocks(1, 2));
    const status = await readStatus(kv, process.context.isOwnerAlive, 1000);
    assert.deepEqual(status.sessions, []);
    const there = status.storages.find(({ name }) => name === "s0");
    const away = status.storages.find(({ name }) => name === "s1");
    assert.deepEqual([there!.owedCopies.count, there!.owedHeads.count], [0, 0]);
    assert.ok(away!.owedCopies.count > 0);
    assert.deepEqual(away!.owedHeads, { count: 1, more: false });
    assert.ok((there!.oldestVerifiedMs ?? 0) > 0);
    await process.close();
  });
});

describe("a comparison with a source", () => {
  it("finds what differs, block by block, and what one side has beyond the other", async () => {
    const process = await openOneProcess();
    const { repo } = process;
    const data = Buffer.concat([blocks(1, 0, 2, 0, 3), Buffer.alloc(100, 7)]);
    const { uid } = await backup(process, "a", data);
    const version = await repo.kv.read((reader) => requireVersion(reader, uid));
    const compare = async (bytes: Buffer) =>
      (await compareSource(repo, version, memorySource(bytes))).differing;
    assert.deepEqual(await compare(data), []);
    const changed = Buffer.from(data);
    changed[B] = 1;
    changed[5 * B + 99] = 8;
    assert.deepEqual(await compare(changed), [
      { offset: B, length: B },
      { offset: 5 * B, length: 100 },
    ]);
    assert.deepEqual(await compare(Buffer.concat([data, Buffer.alloc(50)])), [
      { offset: data.length, length: 50 },
    ]);
    assert.deepEqual(await compare(data.subarray(0, 4 * B)), [{ offset: 4 * B, length: B + 100 }]);
    await process.close();
  });
});

function memorySource(bytes: Buffer): Parameters<typeof compareSource>[2] {
  return {
    url: "memory",
    sizeBytes: bytes.length,
    seekable: true,
    frozen: true,
    identity: undefined,
    warnings: [],
    async *extents(range) {
      yield range;
      await Promise.resolve();
    },
    read: (into, offset) => Promise.resolve(bytes.copy(into, 0, offset, offset + into.length)),
    changed: () => Promise.resolve(undefined),
    close: () => Promise.resolve(),
  };
}
