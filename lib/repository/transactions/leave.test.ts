// Copies that leave a storage, one transaction after the other, and who keeps them.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isErrorCode } from "#lib/core/errors.ts";
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import { key } from "#lib/repository/keyspace.ts";
import { isLeaving } from "#lib/repository/block-record.ts";
import { idOf, ProtocolWorld, type WorldSession } from "#test/fixtures/protocol-world.ts";
import { lowestHorizon, raiseEpoch } from "./collect.ts";
import { oweChildren, placeFilled } from "./fill.ts";
import { leaveStep, queueLeaving, storagesToLeave } from "./leave.ts";
import { narrowPolicy, widenPolicy } from "./policy.ts";
import { forgetStep, retireStorage } from "./retire.ts";
import { encodeNode } from "#proto/node.ts";
import { commitNode, holdNode } from "./commit-node.ts";
import { confirmHead, planHead } from "./heads.ts";
import { readStamps } from "./storage.ts";
import { drainRechecks } from "./recheck.ts";
import { markBad } from "./verify.ts";
import { readVersion, removeVersion } from "./version.ts";

const X = idOf(1);
const Y = idOf(2);
const N = idOf(0x11);
const M = idOf(0x12);

const refused = (error: unknown): boolean => isErrorCode(error, "REFUSED");
const headPrefix = (uid: VersionUid): string => `heads/${uid}.`;

/** Backs up a version of one leaf over these blocks, with heads. */
async function backUp(
  world: ProtocolWorld,
  root = N,
  children = [X, Y],
  storages = world.storages,
): Promise<WorldSession> {
  const session = await world.session(1, storages);
  for (const child of children) {
    const answer = await world.claim(session, child);
    if (answer.kind === "send") await world.store(child, answer.copies);
  }
  assert.equal((await world.commit(session, root, children)).kind, "committed");
  assert.equal((await world.finish(session, root)).kind, "valid");
  for (const storage of storages) await putHead(world, session.uid, storage);
  await world.abandon(session);
  return session;
}

async function putHead(world: ProtocolWorld, uid: VersionUid, storage: StorageId): Promise<void> {
  const name = (revision: number): string => `${headPrefix(uid)}${revision}.${storage}`;
  const planned = await planHead(world.kv, storage, uid, ({ revision }) => name(revision));
  assert.ok(planned !== undefined, "a head is owed");
  await confirmHead(world.kv, storage, {
    name: planned.name,
    prefix: headPrefix(uid),
    putMs: 0,
    keyId: "00".repeat(8),
  });
}

const narrow = (world: ProtocolWorld, uid: VersionUid, storage: StorageId, isLost = false) =>
  narrowPolicy(world.kv, { uid, storage, headPrefix: headPrefix(uid), isLost });

/** One pass over the queue of a storage; heads in trash are deleted before. */
async function pass(world: ProtocolWorld, storage: StorageId): Promise<number> {
  await world.kv.transact(async (tx) => {
    const start = key.trash(storage, "heads/");
    const end = key.trash(storage, "heads0");
    for (const entry of await tx.range({ start, end, limit: 100 })) tx.clear(entry.key);
  });
  await raiseEpoch(world.kv);
  const horizon = await lowestHorizon(world.kv);
  let moved = 0;
  let from: Buffer | undefined;
  do {
    const step = await leaveStep(world.kv, { storage, horizon, headPrefix }, from);
    moved += step.left + step.marked + step.unfinished;
    from = step.next;
  } while (from !== undefined);
  return moved;
}

async function leave(world: ProtocolWorld, storage: StorageId): Promise<void> {
  while ((await pass(world, storage)) > 0);
}

/** A version has left the second of two storages, and its root is marked to leave. */
async function markedRoot(): Promise<{ world: ProtocolWorld; a: StorageId; b: StorageId }> {
  const world = await ProtocolWorld.open(2);
  const [a, b] = world.storages as [StorageId, StorageId];
  const { uid } = await backUp(world);
  await narrow(world, uid, b);
  assert.equal(await pass(world, b), 1);
  assert.equal((await world.record(N))?.copies.some(isLeaving), true);
  return { world, a, b };
}

/** As {@link markedRoot}, with X marked, which the root has named. */
async function markedBlock(): Promise<{ world: ProtocolWorld; a: StorageId; b: StorageId }> {
  const marked = await markedRoot();
  assert.equal(await pass(marked.world, marked.b), 1, "the root has left");
  assert.equal(await pass(marked.world, marked.b), 2, "what it named is marked");
  assert.equal((await marked.world.record(X))?.copies.some(isLeaving), true);
  return marked;
}

describe("leaving a storage", () => {
  it("takes root, then blocks, each marked first, and leaves everything at the others", async () => {
    const { world, b } = await markedRoot();
    assert.equal(await world.states(N), "placed placed");
    await leave(world, b);
    for (const id of [N, X, Y]) assert.equal(await world.states(id), "placed ");
    assert.deepEqual(await storagesToLeave(world.kv), []);
    const trash = await world.trash();
    assert.deepEqual(trash.map((name) => name.slice(0, 8)).toSorted(), [
      `blocks/${X[0]}`,
      `blocks/${Y[0]}`,
      `nodes/${N.slice(0, 2)}`,
    ]);
  });

  it("waits until the head is gone", async () => {
    const world = await ProtocolWorld.open(2);
    const b = world.storages[1] as StorageId;
    const { uid } = await backUp(world);
    await narrow(world, uid, b);
    await raiseEpoch(world.kv);
    const options = { storage: b, horizon: await lowestHorizon(world.kv), headPrefix };
    assert.equal((await leaveStep(world.kv, options, undefined)).marked, 0);
  });

  it("keeps what another version needs there, and gives it up with that one", async () => {
    const world = await ProtocolWorld.open(2);
    const b = world.storages[1] as StorageId;
    const first = await backUp(world);
    const second = await backUp(world, M, [X]);
    await narrow(world, first.uid, b);
    await leave(world, b);
    assert.equal(await world.states(N), "placed ");
    assert.equal(await world.states(Y), "placed ");
    assert.equal(await world.states(X), "placed placed");
    await narrow(world, second.uid, b);
    await leave(world, b);
    assert.equal(await world.states(X), "placed ");
  });

  it("keeps the last good copy, until there is another one", async () => {
    const { world, a, b } = await markedBlock();
    const generation = (await world.record(X))?.copies.find(({ storage }) => storage === a);
    await markBad(world.kv, world.random, {
      id: X,
      storage: a,
      generation: generation?.generation as never,
    });
    await leave(world, b);
    assert.equal(await world.states(X), "bad+owed placed");
    const owed = (await world.record(X))?.copies.find(({ state }) => state === "owed");
    const { generation: fresh } = owed as NonNullable<typeof owed>;
    const filled = { id: X, kind: "block", storage: a, generation: fresh, storedBytes: 9 } as const;
    assert.equal(await placeFilled(world.kv, 9, filled), "placed");
    await leave(world, b);
    assert.equal(await world.states(X), "placed ");
  });

  it("waits for who was answered before the mark, as far as its horizon goes", async () => {
    const world = await ProtocolWorld.open(2);
    const b = world.storages[1] as StorageId;
    const { uid } = await backUp(world);
    await world.session();
    await narrow(world, uid, b);
    await leave(world, b);
    assert.equal(await world.states(N), "placed placed", "a live session may rely on it");
  });

  it("finds all that no policy asks for", async () => {
    const world = await ProtocolWorld.open(2);
    const [a, b] = world.storages as [StorageId, StorageId];
    const both = await backUp(world);
    await backUp(world, M, [X], [a]);
    await removeVersion(world.kv, both.uid);
    await world.collect();
    assert.equal(await world.states(X), "placed placed");
    await queueLeaving(world.kv, b, "placed", undefined);
    await leave(world, b);
    assert.equal(await world.states(X), "placed ");
    assert.equal(await world.states(M), "placed ");
  });
});

describe("a copy that leaves stays where somebody relies on it", () => {
  const stays = async (world: ProtocolWorld, id = X): Promise<void> => {
    assert.equal((await world.record(id))?.copies.some(isLeaving), false);
  };

  it("a claim does", async () => {
    const { world } = await markedBlock();
    assert.deepEqual(await world.claim(await world.session(), X), { kind: "known" });
    await stays(world);
  });

  it("a claim for other storages does not", async () => {
    const { world, a } = await markedBlock();
    assert.deepEqual(await world.claim(await world.session(1, [a]), X), { kind: "known" });
    assert.equal((await world.record(X))?.copies.some(isLeaving), true);
  });

  it("a commit does, over its children and of itself", async () => {
    const { world, b } = await markedRoot();
    const session = await world.session();
    await world.commit(session, N, [X, Y]);
    await stays(world, N);
    await pass(world, b);
    const other = await markedBlock();
    const late = await other.world.session();
    const durable = await other.world.claimSend(late, M, "node");
    assert.equal(durable.length, 2);
    assert.equal((await other.world.commit(late, M, [X], { durable })).kind, "committed");
    await stays(other.world);
    assert.equal(await other.world.states(M), "placed placed");
  });

  it("a commit does, of what was claimed before the mark", async () => {
    const { world } = await markedRoot();
    const { session, token, policy } = await world.session();
    const plain = encodeNode({ level: 0, children: [X, Y] });
    const position = { level: 0, index: 0 };
    const request = { session, token, id: N, plain, durable: [], storedBytes: 0, policy, position };
    assert.equal((await commitNode(world.kv, 1, request)).kind, "committed");
    await stays(world, N);
  });

  it("a hold does, also of a session that may be resumed", async () => {
    const { world, b } = await markedRoot();
    const by = await world.session();
    const { session, token } = by;
    assert.equal(await holdNode(world.kv, session, token, { level: 0, index: 0 }, N), true);
    await stays(world, N);
    await world.die(by);
    await leave(world, b);
    assert.equal(await world.states(N), "placed placed");
  });

  it("a version that turns valid over it does", async () => {
    const { world, b } = await markedRoot();
    const session = await world.session();
    assert.equal((await world.finish(session, N)).kind, "valid");
    await stays(world, N);
    await leave(world, b);
    assert.equal(await world.states(N), "placed placed");
  });

  it("a node that is filled over it does", async () => {
    const { world, a, b } = await markedBlock();
    const second = await backUp(world, M, [X], [a]);
    await widenPolicy(world.kv, world.random, second.uid, [b]);
    await oweChildren(world.kv, world.random, M, b);
    const owed = (await world.record(M))?.copies.find(({ state }) => state === "owed");
    const { generation } = owed as NonNullable<typeof owed>;
    const filled = { id: M, kind: "node", storage: b, generation, storedBytes: 9 } as const;
    assert.equal(await placeFilled(world.kv, 9, filled), "placed");
    await stays(world);
  });

  it("a version that is to be there again does", async () => {
    const { world, b } = await markedRoot();
    await widenPolicy(world.kv, world.random, "v-1" as VersionUid, [b]);
    await stays(world, N);
    await leave(world, b);
    assert.equal(await world.states(N), "placed placed");
  });
});

describe("a version that leaves a storage", () => {
  it("has to be whole elsewhere first, with a head", async () => {
    const world = await ProtocolWorld.open(2);
    const [a, b] = world.storages as [StorageId, StorageId];
    const { uid } = await backUp(world, N, [X], [a]);
    await assert.rejects(narrow(world, uid, a), refused, "it is nowhere else");
    await widenPolicy(world.kv, world.random, uid, [b]);
    await assert.rejects(narrow(world, uid, a), refused, "it is not there yet");
    const fill = async (id: typeof X, kind: "block" | "node"): Promise<void> => {
      const owed = (await world.record(id))?.copies.find(({ state }) => state === "owed");
      const { generation } = owed as NonNullable<typeof owed>;
      await placeFilled(world.kv, 9, { id, kind, storage: b, generation, storedBytes: 9 });
    };
    await oweChildren(world.kv, world.random, N, b);
    await fill(X, "block");
    await fill(N, "node");
    await assert.rejects(narrow(world, uid, a), refused, "its head is not there yet");
    await putHead(world, uid, b);
    const narrowed = await narrow(world, uid, a);
    assert.deepEqual(narrowed.policy, { storages: [b], quorum: 1 });
    assert.equal(narrowed.revision, 3);
    assert.deepEqual(await narrow(world, uid, a), narrowed, "landing twice changes nothing");
    await leave(world, a);
    for (const id of [N, X]) assert.equal(await world.states(id), " placed");
  });
});

describe("a storage that is lost", () => {
  it("is forgotten; what only it had is damaged, and nothing more", async () => {
    const world = await ProtocolWorld.open(2);
    const [a, b] = world.storages as [StorageId, StorageId];
    const both = await backUp(world, N, [X]);
    const alone = await backUp(world, M, [Y], [b]);
    await retireStorage(world.kv, b, true);
    await narrow(world, both.uid, b, true);
    await narrow(world, alone.uid, b, true);
    while (await forgetStep(world.kv, b, headPrefix));
    await drainRechecks(world.kv);
    assert.equal(await world.states(X), "placed ");
    assert.equal((await world.record(Y))?.copies.length, 0);
    const state = async (uid: VersionUid) => world.kv.read((reader) => readVersion(reader, uid));
    const [first, second] = [await state(both.uid), await state(alone.uid)];
    assert.deepEqual([first?.state, first?.policy.storages], ["valid", [a]]);
    assert.deepEqual([second?.state, second?.policy.storages], ["invalid", [b]]);
    assert.equal((await readStamps(world.kv, b)).size, 0);
  });

  it("is owed nothing by whoever was bringing it something", async () => {
    const world = await ProtocolWorld.open(2);
    const [a, b] = world.storages as [StorageId, StorageId];
    const session = await world.session();
    const copies = await world.claimSend(session, X);
    await world.store(
      X,
      copies.filter(({ storage }) => storage === a),
    );
    await retireStorage(world.kv, b, true);
    await world.commit(session, N, [X]);
    const finished = await world.finish(session, N);
    assert.equal(finished.kind, "valid");
    if (finished.kind === "valid") assert.deepEqual(finished.version.policy.storages, [a]);
    await world.abandon(session);
    while (await forgetStep(world.kv, b, headPrefix));
    assert.equal(await world.states(X), "placed ");
    assert.equal(await world.states(N), "placed ");
  });

  it("is not owed again what a dead session was to bring there", async () => {
    const world = await ProtocolWorld.open(2);
    const [a, b] = world.storages as [StorageId, StorageId];
    await backUp(world, N, [X], [a]);
    const session = await world.session(2);
    assert.equal((await world.claimSend(session, X)).length, 1);
    assert.equal(await world.states(X), "placed coming");
    await retireStorage(world.kv, b, true);
    await world.die(session);
    await world.abandon(session);
    assert.equal(await world.states(X), "placed ");
  });

  it("is forgotten also where its queues name what is not there", async () => {
    const world = await ProtocolWorld.open(1);
    const [a] = world.storages as [StorageId];
    await world.kv.transact(async (tx) => {
      tx.set(key.owed(a, X), Buffer.alloc(0));
      tx.set(key.verify(a, 1, Y), Buffer.alloc(0));
    });
    await retireStorage(world.kv, a, true);
    let steps = 0;
    while (await forgetStep(world.kv, a, headPrefix)) assert.ok((steps += 1) < 10);
  });

  it("lowers no quorum of a backup that wants all its storages", async () => {
    for (const [count, quorum] of [
      [1, 1],
      [2, 2],
    ] as const) {
      const world = await ProtocolWorld.open(count);
      const session = await world.session(quorum);
      await world.bring(session, X);
      await world.commit(session, N, [X]);
      await retireStorage(world.kv, world.storages[0] as StorageId, true);
      assert.equal((await world.finish(session, N, true)).kind, "returned");
    }
  });

  it("is retired only when it is empty, unless it is given up", async () => {
    const world = await ProtocolWorld.open(2);
    const b = world.storages[1] as StorageId;
    await backUp(world);
    await assert.rejects(retireStorage(world.kv, b, false), refused);
    assert.equal((await retireStorage(world.kv, b, true)).state, "retired");
  });
});
