// Restores where something is wrong: storages that are away, blocks and tree nodes that are lost, targets with old content.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Requester } from "#lib/actor/requester.ts";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { VersionUid } from "#lib/core/ids.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { MemoryBlobFaults } from "#lib/drivers/memory/memory-blob-store.ts";
import { key } from "#lib/repository/keyspace.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { decodeNode } from "#proto/node.ts";
import { BLOCK_BYTES, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import { runBackup } from "./backup-job.ts";
import type { RestoreJob, RestoreResult } from "./jobs.ts";
import { rebuild } from "./rebuild/rebuild.ts";
import { runRestore } from "./restore-job.ts";

const B = BLOCK_BYTES;
const LEAF = 256 * B;

interface Backed {
  readonly process: OneProcess;
  readonly data: Buffer;
  readonly uid: VersionUid;
}

async function backedUp(blocks: number, storages = 1): Promise<Backed> {
  const process = await openOneProcess({ storages });
  const data = seededRandom(3).bytes(blocks * B);
  process.device("disk", data);
  const { uid } = await runBackup(process.context, { source: "disk", volume: "v" });
  return { process, data, uid };
}

/** Restores over old content; gives that back as it is afterwards, or the error with it. */
async function over(
  { process, data, uid }: Backed,
  job: Partial<RestoreJob> = {},
): Promise<{
  readonly held: Buffer;
  readonly result?: RestoreResult;
  readonly error?: AshlarError;
}> {
  const { data: held } = process.device("target", Buffer.alloc(data.length, 0x55));
  try {
    const request = { uid, target: "target", force: true, keepGoing: true, ...job };
    return { held, result: await runRestore(process.context, request) };
  } catch (error) {
    assert.ok(error instanceof AshlarError, String(error));
    return { held, error };
  }
}

/** Large buffers are compared without showing how they differ, which would take minutes. */
function same(held: Uint8Array, expected: Uint8Array, message?: string): void {
  assert.ok(Buffer.compare(held, expected) === 0, message ?? "the target holds what it should");
}

const isOld = (held: Buffer): boolean => held.every((byte) => byte === 0x55);

/** A storage that leaves after so many blocks were read. */
function leaving(after: number): MemoryBlobFaults {
  let count = 0;
  return {
    before: ({ kind, name }) => {
      if (kind === "get" && name.startsWith("blocks/") && (count += 1) > after) {
        throw new AshlarError(ErrorCode.Unavailable, "the storage is away");
      }
      return "none";
    },
  };
}

describe("a restore that keeps going", () => {
  it("does not touch its target when no storage that has the version is there", async () => {
    const backed = await backedUp(16, 2);
    const { process, uid } = backed;
    for (const store of process.stores) store.away = true;
    const { held, error } = await over(backed);
    assert.equal(error?.code, ErrorCode.Unavailable);
    assert.match(error.message, new RegExp(`${uid}.*s0.*s1`));
    assert.ok(isOld(held));
    const job = { uid, target: "new", keepGoing: true };
    await assert.rejects(runRestore(process.context, job));
    assert.equal(process.devices.has("new"), false, "it is not even opened");
    await process.close();
  });

  it("does not touch its target when the storage that was chosen is away", async () => {
    const backed = await backedUp(16, 2);
    const [away, there] = backed.process.stores;
    away!.away = true;
    const { held, error } = await over(backed, { storage: "s0" });
    assert.equal(error?.code, ErrorCode.Unavailable);
    assert.ok(isOld(held));
    assert.equal(there!.away, false);
    same((await over(backed)).held, backed.data, "the other one has everything");
    await backed.process.close();
  });

  it("stops when the storage goes away meanwhile: what is away is not lost", async () => {
    const backed = await backedUp(64);
    backed.process.stores[0]!.faults = leaving(20);
    const { held, error } = await over(backed);
    assert.equal(error?.code, ErrorCode.Unavailable);
    assert.ok(!held.subarray(48 * B).includes(Buffer.alloc(B)), "nothing became zero");
    await backed.process.close();
  });

  it("stops where the one copy is damaged and the other away, unless told to do with what is there", async () => {
    const backed = await backedUp(16, 2);
    const { process, data } = backed;
    const [damaged, away] = process.stores;
    const name = [...damaged!.objects.keys()].find((each) => each.startsWith("blocks/"))!;
    damaged!.objects.set(name, Buffer.from("damaged"));
    away!.faults = leaving(0);
    assert.equal((await over(backed)).error?.code, ErrorCode.Unavailable);
    const { held, result } = await over(backed, { storage: "s0" });
    assert.equal(result?.damaged.length, 1);
    const [lost] = result.damaged;
    const expected = Buffer.from(data).fill(0, lost!.offset, lost!.offset! + lost!.length);
    same(held, expected);
    await process.close();
  });
});

/** Takes a leaf out of the metadata. */
async function loseLeaf({ repo }: OneProcess, id: string): Promise<void> {
  await repo.kv.transact(async (tx) => {
    tx.clear(key.node(id as Parameters<typeof key.node>[0]));
    await Promise.resolve();
  });
}

/** The ids of the leaves of the only version, in order, and its root. */
async function treeOf({ process, uid }: Backed): Promise<{ root: string; leaves: string[] }> {
  const { kv } = process.repo;
  const version = await kv.read((reader) => readVersion(reader, uid));
  const root = version!.root!;
  const plain = await kv.read((reader) => reader.get(key.node(root)));
  return { root, leaves: decodeNode(plain!).children.filter((id) => id !== undefined) };
}

describe("a restore whose request comes again", () => {
  it("runs once, and not at all when it is over", async () => {
    const backed = await backedUp(3);
    const { process, data, uid } = backed;
    const { context } = process;
    let again: (() => Promise<unknown>) | undefined;
    const request: Requester["request"] = async (queue, type, body, options) => {
      const send = () => context.requester.request(queue, type, body, options);
      if (type !== "restore") return send();
      again = send;
      const [first] = await Promise.all([send(), send()]);
      return first;
    };
    const requester = Object.assign(Object.create(context.requester) as Requester, { request });
    const target = process.device("target", Buffer.alloc(data.length, 0x55));
    await runRestore({ ...context, requester }, { uid, target: "target", force: true });
    same(target.data, data);
    const writtenBytes = target.written.reduce((sum, { length }) => sum + length, 0);
    assert.equal(writtenBytes, data.length, "what came twice was written once");
    // Its machine runs on it by now.
    target.data.fill(0x77);
    await assert.rejects(again?.() ?? Promise.resolve(), (error) =>
      isErrorCode(error, ErrorCode.Fenced),
    );
    assert.ok(target.data.every((byte) => byte === 0x77));
    await process.close();
  });
});

describe("a tree with a gap", () => {
  it("is named with the version, or restored around", async () => {
    const backed = await backedUp(600);
    const { process, data, uid } = backed;
    const { leaves } = await treeOf(backed);
    await loseLeaf(process, leaves[1]!);
    const { error } = await over(backed, { keepGoing: false });
    assert.equal(error?.code, ErrorCode.Damaged);
    for (const named of [uid, leaves[1]!, `offset ${LEAF}`])
      assert.ok(error.message.includes(named));
    assert.equal(error.details["uid"], uid);
    const { held, result } = await over(backed);
    same(held, Buffer.from(data).fill(0, LEAF, 2 * LEAF));
    assert.deepEqual(
      result?.damaged.map(({ kind, id, offset, length }) => ({ kind, id, offset, length })),
      [{ kind: "node", id: leaves[1], offset: LEAF, length: LEAF }],
    );
    await process.close();
  });

  it("counts only what the version and the range have of it", async () => {
    const backed = await backedUp(600);
    const { process, data } = backed;
    const { leaves } = await treeOf(backed);
    await loseLeaf(process, leaves[2]!);
    const whole = await over(backed);
    same(whole.held, Buffer.from(data).fill(0, 2 * LEAF));
    assert.deepEqual(
      whole.result?.damaged.map(({ offset, length }) => [offset, length]),
      [[2 * LEAF, 88 * B]],
    );
    const part = { offset: 500 * B + 7, length: 20 * B };
    const { held, result } = await over(backed, { range: part });
    const expected = Buffer.from(data).fill(0, 2 * LEAF);
    const end = part.offset + part.length;
    same(held.subarray(0, part.length), expected.subarray(part.offset, end));
    assert.deepEqual(
      result?.damaged.map(({ offset, length }) => [offset, length]),
      [[2 * LEAF, 9 * B]],
    );
    await process.close();
  });

  it("leaves the target alone when nothing of the tree is there", async () => {
    const backed = await backedUp(600);
    const { root } = await treeOf(backed);
    await loseLeaf(backed.process, root);
    const { held, error } = await over(backed);
    assert.equal(error?.code, ErrorCode.Damaged);
    assert.ok(error.message.includes(backed.uid));
    assert.ok(isOld(held));
    await backed.process.close();
  });

  it("comes out of a rebuild from a storage that has lost a node", async () => {
    const backed = await backedUp(600);
    const { process, data, uid } = backed;
    const { leaves } = await treeOf(backed);
    const [store] = process.stores;
    const name = [...store!.objects.keys()].find((each) => each.startsWith(`nodes/${leaves[0]!}`));
    store!.objects.delete(name!);
    const { repo } = process;
    await repo.kv.transact((tx) => Promise.resolve(tx.clearRange(Buffer.of(0), Buffer.of(0xff))));
    const stores = [{ identity: process.storageIds[0]!, name: "s0", store: store! }];
    await rebuild({ ...repo, stores, fresh: true });
    const version = await repo.kv.read((reader) => readVersion(reader, uid));
    assert.equal(version?.state, "invalid");
    const { error } = await over(backed, { keepGoing: false });
    assert.equal(error?.code, ErrorCode.Damaged);
    assert.ok(error.message.includes(uid));
    const { held, result } = await over(backed);
    same(held, Buffer.from(data).fill(0, 0, LEAF));
    assert.deepEqual(
      result?.damaged.map(({ kind, id }) => [kind, id]),
      [["node", leaves[0]]],
    );
    await process.close();
  });
});

describe("a differential restore", () => {
  /** Data in the first and the last block; all zeros between. */
  async function hollow(blocks: number): Promise<Backed> {
    const process = await openOneProcess({ storages: 1 });
    const data = Buffer.alloc(blocks * B);
    data.fill(1, 0, B);
    data.fill(2, (blocks - 1) * B);
    process.device("disk", data);
    const { uid } = await runBackup(process.context, { source: "disk", volume: "v" });
    return { process, data, uid };
  }

  for (const sparse of [false, true]) {
    it(`makes zero only what is not, ${sparse ? "discarding" : "keeping space"}`, async () => {
      const { process, data, uid } = await hollow(700);
      const old = Buffer.from(data);
      old.fill(9, 5 * B + 3, 5 * B + 4);
      old.fill(9, 6 * B, 7 * B);
      old.fill(9, 300 * B, 301 * B);
      const device = process.device("old", old);
      const job = { uid, target: "old", force: true, differential: true, sparse };
      const result = await runRestore(process.context, job);
      same(old, data);
      assert.deepEqual(device.written, []);
      assert.deepEqual(device.zeroed, [
        { offset: 5 * B, length: 2 * B },
        { offset: 300 * B, length: B },
      ]);
      assert.deepEqual(
        [result.bytesWritten, result.bytesZero, result.bytesEqual],
        [0, 3 * B, 697 * B],
      );
      await process.close();
    });
  }

  it("does not read the holes of its target", async () => {
    const { process, data, uid } = await hollow(700);
    const old = Buffer.from(data);
    old.fill(9, 300 * B + 1, 300 * B + 2);
    const device = process.device("old", old);
    device.extents = [
      { offset: 0, length: B },
      { offset: 300 * B, length: 2 * B },
      { offset: 699 * B, length: B },
    ];
    await runRestore(process.context, { uid, target: "old", force: true, differential: true });
    same(old, data);
    assert.deepEqual(device.zeroed, [{ offset: 300 * B, length: B }]);
    assert.equal(device.reads, 3);
    await process.close();
  });

  it("compares a range that begins within a block", async () => {
    const { process, data, uid } = await hollow(100);
    const part = { offset: 3 * B + 11, length: 90 * B };
    const old = Buffer.alloc(part.length).fill(9, 40 * B, 40 * B + 1);
    const device = process.device("old", old);
    const job = { uid, target: "old", force: true, differential: true, range: part };
    await runRestore(process.context, job);
    same(old, data.subarray(part.offset, part.offset + part.length));
    assert.equal(device.zeroed.length, 1);
    assert.ok(device.zeroed[0]!.length <= B);
    await process.close();
  });
});
