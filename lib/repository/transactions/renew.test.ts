// A copy gets another object: begun, finished, twice, late, never.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Generation, StorageId } from "#lib/core/ids.ts";
import { encodeBlockRecord } from "#lib/repository/block-record.ts";
import { key, range } from "#lib/repository/keyspace.ts";
import { readBlock } from "#lib/repository/ledger.ts";
import { idOf, ProtocolWorld } from "#test/fixtures/protocol-world.ts";
import { beginRenewal, dropRenewals, finishRenewal, isRenewal } from "./renew.ts";
import { setStorageState } from "./storage.ts";
import { markBad, markVerified } from "./verify.ts";

const X = idOf(1);
const N = idOf(0x11);

async function open(): Promise<{
  world: ProtocolWorld;
  storage: StorageId;
  old: Generation;
  begin: () => Promise<Generation | undefined>;
  finish: (to: Generation | undefined) => Promise<boolean>;
  current: () => Promise<Generation | undefined>;
  renewals: () => Promise<number>;
}> {
  const world = await ProtocolWorld.open(1);
  const [storage] = world.storages as [StorageId];
  const session = await world.session();
  await world.bring(session, X);
  await world.commit(session, N, [X]);
  await world.finish(session, N);
  await world.abandon(session);
  const current = async (): Promise<Generation | undefined> =>
    (await world.record(X))?.copies.find(({ state }) => state === "placed")?.generation;
  const old = (await current()) as Generation;
  const copy = { id: X, storage, generation: old };
  return {
    world,
    storage,
    old,
    begin: () => beginRenewal(world.kv, world.random, copy),
    finish: (to) =>
      finishRenewal(world.kv, 7, {
        ...copy,
        kind: "block",
        to: to as Generation,
        storedBytes: 200,
      }),
    current,
    renewals: async () =>
      (await world.kv.read((reader) => reader.range({ ...range.renewals(), limit: 9 }))).length,
  };
}

const nameOf = (generation: Generation | undefined): string => `blocks/${X}.${generation}`;

describe("renewing a copy", () => {
  it("names the new object first, counts the old one until it is there, and then the new one", async () => {
    const { world, storage, old, begin, finish, current, renewals } = await open();
    const to = await begin();
    assert.equal(await current(), old);
    const named = await world.kv.read((reader) => isRenewal(reader, storage, X, to as Generation));
    assert.equal(named, true, "a sweep leaves it alone");
    assert.equal(await finish(to), true);
    assert.equal(await current(), to);
    assert.deepEqual(await world.trash(), [nameOf(old)]);
    assert.equal((await world.record(X))?.storedBytes, 200);
    assert.equal(await renewals(), 0);
  });

  it("goes on with an earlier try under its name, and lands twice without harm", async () => {
    const { world, old, begin, finish, current } = await open();
    const to = await begin();
    assert.equal(await begin(), to);
    assert.equal(await finish(to), true);
    assert.equal(await finish(to), true);
    assert.equal(await begin(), undefined, "the old one is not there any more");
    assert.equal(await current(), to);
    assert.deepEqual(await world.trash(), [nameOf(old)]);
  });

  it("does not trash what has counted and was found bad since", async () => {
    const { world, storage, old, begin, finish } = await open();
    const to = await begin();
    await finish(to);
    await markBad(world.kv, world.random, { id: X, storage, generation: to as Generation });
    assert.equal(await finish(to), false);
    assert.deepEqual(await world.trash(), [nameOf(old)]);
  });

  it("leaves a copy alone that has become another one, and its object goes to trash", async () => {
    const { world, storage, old, begin, finish, renewals } = await open();
    const to = await begin();
    await markBad(world.kv, world.random, { id: X, storage, generation: old });
    assert.equal(await finish(to), false);
    assert.deepEqual(await world.trash(), [nameOf(to)]);
    assert.equal(await renewals(), 0);
  });

  it("under a name that was given up counts for nothing", async () => {
    const { world, storage, old, begin, finish, current, renewals } = await open();
    const to = await begin();
    assert.equal(await dropRenewals(world.kv, undefined), undefined);
    assert.equal(await renewals(), 1, "the copy is there: somebody may be at work");
    await markBad(world.kv, world.random, { id: X, storage, generation: old });
    await dropRenewals(world.kv, undefined);
    assert.equal(await renewals(), 0);
    assert.deepEqual(await world.trash(), [nameOf(to)]);
    assert.equal(await finish(to), false);
    assert.notEqual(await current(), to);
    // A false alarm: the old one is there again, and the new one in trash.
    await markVerified(world.kv, 8, { id: X, storage, generation: old });
    assert.equal(await finish(to), false);
    assert.equal(await current(), old);
  });

  it("is forgotten where the copy has the new object already, as a rebuild may have found it", async () => {
    const { world, begin, current, renewals } = await open();
    const to = (await begin()) as Generation;
    await world.kv.transact(async (tx) => {
      const before = await readBlock(tx, X);
      assert.ok(before !== undefined);
      const copies = before.copies.map((copy) => ({ ...copy, generation: to }));
      tx.set(key.block(X), encodeBlockRecord({ ...before, copies }));
    });
    await dropRenewals(world.kv, undefined);
    assert.equal(await renewals(), 0);
    assert.equal(await current(), to);
    assert.deepEqual(await world.trash(), []);
  });

  it("is not begun where nothing new is taken, or for what nobody needs", async () => {
    const { world, storage, begin } = await open();
    await setStorageState(world.kv, storage, "readonly");
    assert.equal(await begin(), undefined);
    await setStorageState(world.kv, storage, "in-use");
    assert.notEqual(await begin(), undefined);
  });
});
