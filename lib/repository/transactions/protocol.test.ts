// The protocol's transactions one by one, and the shortest traces by which earlier wordings of it broke.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isErrorCode } from "#lib/core/errors.ts";
import type { SessionId, Token } from "#lib/core/ids.ts";
import { key, range } from "#lib/repository/keyspace.ts";
import { idOf, ProtocolWorld, type WorldSession } from "#test/fixtures/protocol-world.ts";
import { keepAlive, resumeSession } from "./session.ts";
import { markBad, markVerified } from "./verify.ts";
import { oweChildren, placeFilled } from "./fill.ts";
import { recheckStep } from "./recheck.ts";
import { readVersion, removeVersion } from "./version.ts";

const X = idOf(1);
const Y = idOf(2);
const N = idOf(0x11);
const M = idOf(0x12);
const R = idOf(0x13);

const fenced = (error: unknown): boolean => isErrorCode(error, "FENCED");

async function resume(world: ProtocolWorld, by: WorldSession): Promise<WorldSession> {
  const token = Buffer.alloc(8, 0x77).toString("hex") as Token;
  await resumeSession(world.kv, by.session, { host: "h", lock: "l", token, nowMs: 5 });
  return { ...by, token };
}

describe("claim", () => {
  it("answers send, then send again under the same generation, then known", async () => {
    const world = await ProtocolWorld.open(2);
    const session = await world.session();
    const first = await world.claimSend(session, X);
    assert.deepEqual(await world.claimSend(session, X), first);
    assert.equal((await world.store(X, first)).named, true);
    assert.deepEqual(await world.claim(session, X), { kind: "known" });
    assert.equal(await world.states(X), "placed placed");
  });

  it("makes a second session wait for what the first one brings, and take over when that one dies", async () => {
    const world = await ProtocolWorld.open(1);
    const first = await world.session();
    const second = await world.session();
    const copies = await world.claimSend(first, X);
    assert.deepEqual(await world.claim(second, X), { kind: "wait" });
    await world.die(first);
    const taken = await world.claimSend(second, X);
    assert.notDeepEqual(taken, copies);
    assert.equal((await world.store(X, copies)).named, false, "the late put is not named any more");
    assert.deepEqual(await world.trash(), [`blocks/${X}.${copies[0]?.generation}`]);
    assert.equal((await world.store(X, taken)).named, true);
  });

  it("does not wait for a slow session when it is impatient; the slow one's put goes to trash", async () => {
    const world = await ProtocolWorld.open(1);
    const slow = await world.session();
    const quick = await world.session();
    const copies = await world.claimSend(slow, X);
    const answer = await world.claim(quick, X, { impatient: true });
    assert.equal(answer.kind, "send");
    assert.equal((await world.store(X, copies)).named, false);
    assert.deepEqual(await world.claim(slow, X), { kind: "wait" });
  });

  it("is refused to a session that was taken for dead, was resumed by another, or is gone", async () => {
    const world = await ProtocolWorld.open(1);
    const session = await world.session();
    await world.die(session);
    await assert.rejects(world.claim(session, X), fenced);
    const resumed = await resume(world, session);
    await assert.rejects(world.claim(session, X), fenced);
    assert.equal((await world.claim(resumed, X)).kind, "send");
    await world.die(resumed);
    await world.abandon(session);
    await assert.rejects(world.claim(resumed, X), fenced);
  });

  it("sends what is mine although the quorum also needs what another brings", async () => {
    const world = await ProtocolWorld.open(2);
    const [a, b] = world.storages;
    const onlyB = await world.session(1, [b!]);
    await world.claimSend(onlyB, X);
    const both = await world.session(2, [a!, b!]);
    const copies = await world.claimSend(both, X);
    assert.deepEqual(
      copies.map((copy) => copy.storage),
      [a],
    );
    assert.deepEqual(await world.claimSend(both, X), copies);
    await world.store(X, copies);
    assert.deepEqual(await world.claim(both, X), { kind: "wait" });
  });

  it("turns what was coming from me into owed once the others make the quorum", async () => {
    const world = await ProtocolWorld.open(2);
    const session = await world.session();
    const copies = await world.claimSend(session, X);
    await world.store(X, copies.slice(0, 1));
    assert.deepEqual(await world.claim(session, X), { kind: "known" });
    assert.equal(await world.states(X), "placed owed");
  });

  it("is refused when too few storages of the policy are in use", async () => {
    const world = await ProtocolWorld.open(1);
    const gone = Buffer.alloc(8, 0xff).toString("hex") as (typeof world.storages)[number];
    const session = await world.session(2, [...world.storages, gone]);
    await assert.rejects(world.claim(session, X), (error) => isErrorCode(error, "UNAVAILABLE"));
  });
});

describe("store", () => {
  it("places what is done and owes what is not; landing twice changes nothing", async () => {
    const world = await ProtocolWorld.open(2);
    const session = await world.session();
    const [a, b] = await world.claimSend(session, X);
    await world.store(X, [a!], [b!]);
    assert.equal(await world.states(X), "placed owed");
    await world.store(X, [a!], [b!]);
    assert.equal(await world.states(X), "placed owed");
    await world.store(X, [b!]);
    assert.equal(await world.states(X), "placed placed");
    assert.deepEqual(await world.trash(), []);
  });

  it("counts a dead session's put as long as the record names it", async () => {
    const world = await ProtocolWorld.open(1);
    const session = await world.session();
    const copies = await world.claimSend(session, X);
    await world.die(session);
    assert.equal((await world.store(X, copies)).named, true);
    assert.equal(await world.states(X), "placed");
  });
});

describe("commit", () => {
  it("returns the children that are not placed at a quorum, and commits once they are", async () => {
    const world = await ProtocolWorld.open(1);
    const session = await world.session();
    const copies = await world.claimSend(session, X);
    const refused = await world.commit(session, N, [X]);
    assert.equal(refused.kind, "returned");
    assert.deepEqual(refused.kind === "returned" && refused.children, [0]);
    await world.store(X, copies);
    assert.deepEqual(await world.commit(session, N, [X]), { kind: "committed" });
    assert.equal(await world.states(N), "placed");
    assert.deepEqual(await world.claim(session, N, { kind: "node" }), { kind: "known" });
  });

  it("places a node only where all children are placed; elsewhere it is owed (closure)", async () => {
    const world = await ProtocolWorld.open(2);
    const session = await world.session();
    const copies = await world.claimSend(session, X);
    await world.store(X, copies.slice(0, 1), copies.slice(1));
    assert.equal((await world.commit(session, N, [X])).kind, "committed");
    assert.equal(await world.states(N), "placed owed");
  });

  it("names storages for the quorum when children have theirs at different ones", async () => {
    const world = await ProtocolWorld.open(3);
    const [a, b, c] = world.storages;
    const session = await world.session(2);
    const x = await world.claimSend(session, X);
    const y = await world.claimSend(session, Y);
    await world.store(
      X,
      x.filter((copy) => copy.storage !== c),
      x.filter((copy) => copy.storage === c),
    );
    await world.store(
      Y,
      y.filter((copy) => copy.storage !== b),
      y.filter((copy) => copy.storage === b),
    );
    assert.deepEqual(await world.claim(session, X), { kind: "known" });
    const refused = await world.commit(session, N, [X, Y]);
    assert.ok(refused.kind === "returned");
    assert.deepEqual(refused.storages, [a, b]);
    assert.deepEqual(refused.children, [1]);
    const named = { policy: { storages: refused.storages, quorum: 2 } };
    const again = await world.claim(session, Y, named);
    assert.ok(again.kind === "send");
    await world.store(Y, again.copies);
    const claimed = await world.claim({ ...session, ...named }, N, { kind: "node" });
    assert.ok(claimed.kind === "send");
    const done = await world.commit({ ...session, ...named }, N, [X, Y], {
      durable: claimed.copies,
    });
    assert.equal(done.kind, "committed");
  });

  it("revives a condemned child, and holds the node until its parent is committed", async () => {
    const world = await ProtocolWorld.open(1);
    const old = await world.session();
    await world.bring(old, X);
    await world.die(old);
    await world.abandon(old);
    const session = await world.session();
    assert.deepEqual(await world.claim(session, X), { kind: "known" });
    await world.collect(1);
    assert.notEqual(
      (await world.record(X))?.condemnedEpoch,
      undefined,
      "condemned, but in sight of a horizon",
    );
    assert.equal((await world.commit(session, N, [X])).kind, "committed");
    assert.equal((await world.record(X))?.condemnedEpoch, undefined);
    await world.collect();
    assert.equal(await world.states(N), "placed", "held by the session");
    assert.equal((await world.commit(session, R, [N], { level: 1 })).kind, "committed");
    const holds = await world.kv.read((reader) =>
      reader.range({ ...range.holds(session.session), limit: 9 }),
    );
    assert.deepEqual(
      holds.map((entry) => entry.value.toString("hex")),
      [R],
    );
  });

  it("waits for the mark of a damaged child to go", async () => {
    const world = await ProtocolWorld.open(1);
    const session = await world.session();
    await world.bring(session, X);
    await world.commit(session, N, [X]);
    const [copy] = (await world.record(X))!.copies;
    await markBad(world.kv, world.random, {
      id: X,
      storage: copy!.storage,
      generation: copy!.generation,
    });
    while (await recheckStep(world.kv));
    assert.equal((await world.record(N))?.damaged, true, "damage climbs");
    assert.equal((await world.commit(session, M, [X])).kind, "returned");
    const claimed = await world.claim(session, N, { kind: "node" });
    assert.deepEqual(claimed, { kind: "send", copies: [], need: 0 });
    await world.bring(session, X);
    while (await recheckStep(world.kv));
    assert.equal((await world.record(N))?.damaged, false, "repair climbs");
    assert.deepEqual(await world.claim(session, N, { kind: "node" }), { kind: "known" });
  });
});

describe("finish, remove, collect", () => {
  async function version(world: ProtocolWorld): Promise<WorldSession> {
    const session = await world.session();
    await world.bring(session, X);
    await world.commit(session, N, [X]);
    assert.equal((await world.finish(session, N)).kind, "valid");
    await world.abandon(session);
    return session;
  }

  it("turns a version valid once, and lands twice without harm", async () => {
    const world = await ProtocolWorld.open(2);
    const session = await world.session();
    await world.bring(session, X);
    await world.commit(session, N, [X]);
    const first = await world.finish(session, N);
    assert.deepEqual(await world.finish(session, N), first);
    const owed = await world.kv.read((reader) => reader.range({ ...range.owedHeads(), limit: 9 }));
    assert.equal(owed.length, 2, "a head for each storage");
  });

  it("keeps what a valid version refers to, and frees all of it once the version is removed", async () => {
    const world = await ProtocolWorld.open(1);
    const session = await version(world);
    await world.collect();
    assert.equal(await world.states(X), "placed");
    await removeVersion(world.kv, session.uid);
    await removeVersion(world.kv, session.uid);
    await world.collect();
    assert.equal(await world.record(N), undefined);
    assert.equal(await world.record(X), undefined);
    assert.equal((await world.trash()).length, 2);
    const left = await world.kv.read((reader) => reader.range({ ...range.references(), limit: 9 }));
    assert.deepEqual(left, []);
  });

  it("keeps a known block until its reader has used it, however often the collector passes", async () => {
    const world = await ProtocolWorld.open(1);
    const old = await version(world);
    const session = await world.session();
    assert.deepEqual(await world.claim(session, X), { kind: "known" });
    await removeVersion(world.kv, old.uid);
    await world.collect(6);
    assert.equal(await world.states(X), "placed");
    assert.equal((await world.commit(session, M, [X])).kind, "committed");
  });

  it("collects what a session was told once its horizon has passed it", async () => {
    const world = await ProtocolWorld.open(1);
    const old = await version(world);
    const session = await world.session();
    await world.claim(session, X);
    await removeVersion(world.kv, old.uid);
    await world.collect(2);
    await keepAlive(world.kv, session.session, session.token, 9, 1_000);
    await world.collect();
    assert.equal(await world.record(X), undefined);
  });

  it("never moves a horizon back, and gives a resumed session a new one", async () => {
    const world = await ProtocolWorld.open(1);
    const session = await world.session();
    await world.collect(3);
    await keepAlive(world.kv, session.session, session.token, 9, 3);
    await keepAlive(world.kv, session.session, session.token, 9, 2);
    const at = key.horizon(session.session);
    assert.equal((await world.kv.read((reader) => reader.get(at)))?.readBigUInt64LE(0), 3n);
    await world.die(session);
    await resume(world, session);
    assert.equal((await world.kv.read((reader) => reader.get(at)))?.readBigUInt64LE(0), 4n);
  });

  it("leaves nothing of an abandoned session: neither empty records nor copies that come for ever", async () => {
    const world = await ProtocolWorld.open(2);
    const session = await world.session();
    await world.claimSend(session, X);
    const y = await world.claimSend(session, Y);
    await world.store(Y, y.slice(0, 1));
    await world.die(session);
    await world.abandon(session);
    await world.collect();
    assert.equal(await world.record(X), undefined);
    assert.equal(await world.record(Y), undefined);
    assert.equal((await world.trash()).length, 4);
    assert.equal(await world.kv.read((reader) => readVersion(reader, session.uid)), undefined);
    const sessions = await world.kv.read((reader) =>
      reader.range({ ...range.sessions(), limit: 9 }),
    );
    assert.deepEqual(sessions, []);
  });

  it("owes under a new generation what an abandoned session left coming but others refer to", async () => {
    const world = await ProtocolWorld.open(2);
    const [a, b] = world.storages;
    const first = await world.session(1, [a!]);
    await world.bring(first, X);
    await world.commit(first, N, [X]);
    const second = await world.session(1, [b!]);
    const [coming] = await world.claimSend(second, X);
    await world.die(second);
    await world.abandon(second);
    assert.equal(await world.states(X), "placed owed");
    const owed = (await world.record(X))?.copies.find((copy) => copy.storage === b);
    assert.notEqual(owed?.generation, coming?.generation);
    assert.deepEqual(await world.trash(), [`blocks/${X}.${coming?.generation}`]);
  });

  it("does not condemn what a live session is bringing", async () => {
    const world = await ProtocolWorld.open(1);
    const old = await world.session();
    await world.claimSend(old, X);
    await world.die(old);
    const session = await world.session();
    const copies = await world.claimSend(session, X);
    await world.abandon(old);
    assert.equal(await world.isQueued(X), true);
    await world.collect(3);
    assert.equal((await world.store(X, copies)).named, true);
  });
});

describe("replicate and scrub", () => {
  it("owes the children before the node, and fills them first", async () => {
    const world = await ProtocolWorld.open(2);
    const [a, b] = world.storages;
    const session = await world.session(1, [a!]);
    await world.bring(session, X);
    await world.commit(session, N, [X]);
    const both = await world.session(1, [a!, b!]);
    await world.claim(both, N, { kind: "node" });
    assert.equal((await world.finish(both, N)).kind, "valid");
    assert.equal(await world.states(N), "placed owed");
    const generationAt = async (id: typeof X): Promise<(typeof session)["session"]> =>
      (await world.record(id))!.copies.find((copy) => copy.storage === b)!
        .generation as unknown as SessionId;
    const node = {
      id: N,
      kind: "node",
      storage: b!,
      generation: (await generationAt(N)) as never,
      storedBytes: 9,
    } as const;
    assert.equal(await placeFilled(world.kv, 1, node), "children");
    assert.equal((await oweChildren(world.kv, world.random, N, b!)).missing, 1);
    const block = {
      id: X,
      kind: "block",
      storage: b!,
      generation: (await generationAt(X)) as never,
      storedBytes: 9,
    } as const;
    assert.equal(await placeFilled(world.kv, 1, block), "placed");
    assert.equal((await oweChildren(world.kv, world.random, N, b!)).missing, 0);
    assert.equal(await placeFilled(world.kv, 1, node), "placed");
    assert.equal(await placeFilled(world.kv, 1, node), "placed", "landing twice");
    assert.equal(await world.states(N), "placed placed");
  });

  it("keeps a bad object until its replacement is placed; a false alarm costs nothing", async () => {
    const world = await ProtocolWorld.open(1);
    const session = await world.session();
    await world.bring(session, X);
    await world.commit(session, N, [X]);
    await world.finish(session, N);
    const [copy] = (await world.record(X))!.copies;
    const judged = { id: X, storage: copy!.storage, generation: copy!.generation };
    assert.equal(await markBad(world.kv, world.random, judged), true);
    assert.equal(await markBad(world.kv, world.random, judged), false);
    assert.equal(await world.states(X), "bad+owed");
    while (await recheckStep(world.kv));
    assert.equal(
      (await world.kv.read((reader) => readVersion(reader, session.uid)))?.state,
      "invalid",
    );
    assert.deepEqual(await world.trash(), []);
    const owed = (await world.record(X))!.copies.find((other) => other.state === "owed");
    await markVerified(world.kv, 50, judged);
    while (await recheckStep(world.kv));
    assert.equal(await world.states(X), "placed");
    assert.equal(
      (await world.kv.read((reader) => readVersion(reader, session.uid)))?.state,
      "valid",
    );
    assert.deepEqual(await world.trash(), [`blocks/${X}.${owed?.generation}`]);
  });

  it("lets a new backup of the same content repair every version over it", async () => {
    const world = await ProtocolWorld.open(1);
    const session = await world.session();
    await world.bring(session, X);
    await world.commit(session, N, [X]);
    await world.finish(session, N);
    const [copy] = (await world.record(X))!.copies;
    await markBad(world.kv, world.random, {
      id: X,
      storage: copy!.storage,
      generation: copy!.generation,
    });
    while (await recheckStep(world.kv));
    const next = await world.session();
    await world.bring(next, X);
    while (await recheckStep(world.kv));
    assert.equal(await world.states(X), "placed");
    assert.equal(
      (await world.kv.read((reader) => readVersion(reader, session.uid)))?.state,
      "valid",
    );
    assert.ok((await world.trash()).includes(`blocks/${X}.${copy?.generation}`));
  });
});
