// Puts over storages that are slower than the quorum (DESIGN §4.2, §4.7).
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlockId } from "#lib/core/ids.ts";
import type { SlotPool } from "#lib/ports/compute.ts";
import { openTiny, type TinyRepository, type TinySession } from "#test/fixtures/tiny-repository.ts";
import { LateNodes } from "./late-nodes.ts";
import { LatePuts } from "./late-puts.ts";
import { PutTurns } from "./put-turns.ts";
import { putBlocks, type PutContext } from "./put.ts";
import { Settler } from "./settle.ts";

const SLOT_COUNT = 4;
const GRACE_MS = 200;

interface World {
  readonly tiny: TinyRepository;
  readonly session: TinySession;
  readonly pool: SlotPool;
  readonly context: PutContext;
}

async function openWorld(storages = 2): Promise<World> {
  const tiny = await openTiny({ storages });
  const pool = tiny.repo.compute.pool(65_536, SLOT_COUNT);
  const context: PutContext = {
    repo: tiny.repo,
    sealed: pool,
    turns: new PutTurns(SLOT_COUNT),
    lateNodes: new LateNodes(),
    latePuts: new LatePuts(),
  };
  return { tiny, session: await tiny.start(), pool, context };
}

/** Puts to a storage begin, and end when the gate opens. */
function hang(
  { tiny }: World,
  store: number,
): { readonly open: () => void; readonly puts: number } {
  const gate = Promise.withResolvers<void>();
  const state = { open: gate.resolve, puts: 0 };
  tiny.store(store).faults = {
    before: async ({ kind }) => {
      if (kind !== "put") return "none" as const;
      state.puts += 1;
      await gate.promise;
      return "none" as const;
    },
  };
  return state;
}

/** Claims and puts one request of blocks; resolves when it is answered. */
async function bring({ tiny, session, context }: World, names: readonly string[]): Promise<void> {
  const plain = Buffer.concat(names.map((name) => tiny.plain(name)));
  const length = plain.length / names.length;
  const blocks = [];
  for (const [index, name] of names.entries()) {
    const id = tiny.blockId(name);
    const copies = await session.claim("block", id, length);
    assert.ok(copies !== undefined);
    blocks.push({ id, offset: index * length, length, copies, need: 1 });
  }
  const payload = { bytes: plain, retain: () => undefined, release: () => undefined };
  const { outcomes } = await putBlocks(context, { kind: "block", blocks }, payload);
  assert.ok(outcomes.every(({ named }) => named));
}

/** Lets virtual time pass until the work has ended. */
async function within<T>({ tiny }: World, ms: number, work: Promise<T>): Promise<T> {
  const state = { ended: false };
  const tracked = work.finally(() => (state.ended = true));
  tracked.catch(() => undefined);
  for (let passed = 0; passed <= ms && !state.ended; passed += 10) {
    await tiny.shared.clock.advance(10);
  }
  assert.ok(state.ended, `it did not end within ${ms} ms`);
  return tracked;
}

function statesOf({ tiny }: World, names: readonly string[]): Promise<string[]> {
  return Promise.all(names.map((name) => tiny.states(tiny.blockId(name))));
}

describe("putting", () => {
  it("stores nothing under an id that is not its own, whoever sends it", async () => {
    const world = await openWorld();
    const { tiny, session, context } = world;
    const plain = tiny.plain("good");
    const id = tiny.blockId("good");
    const copies = await session.claim("block", id, plain.length);
    assert.ok(copies !== undefined);
    const request = {
      kind: "block" as const,
      blocks: [{ id, offset: 0, length: plain.length, copies, need: 1 }],
    };
    const send = (bytes: Buffer) => {
      const payload = { bytes, isForeign: true, retain: () => undefined, release: () => undefined };
      return putBlocks(context, request, payload);
    };
    const wrong = Buffer.from(plain);
    wrong[0] = (wrong[0] as number) ^ 1;
    await assert.rejects(send(wrong), (error) => isErrorCode(error, ErrorCode.Damaged));
    assert.deepEqual(await statesOf(world, ["good"]), ["coming coming"]);
    assert.equal(world.pool.freeCount, SLOT_COUNT);
    await within(world, 2 * GRACE_MS, send(plain));
    assert.deepEqual(await statesOf(world, ["good"]), ["placed placed"]);
  });

  it("answers after the grace, and records what comes later", async () => {
    const world = await openWorld();
    const slow = hang(world, 1);
    await within(world, 2 * GRACE_MS, bring(world, ["a", "b"]));
    assert.deepEqual(await statesOf(world, ["a", "b"]), ["placed owed", "placed owed"]);
    assert.equal(world.pool.freeCount, SLOT_COUNT - 1);
    slow.open();
    await world.context.latePuts.ended();
    assert.deepEqual(await statesOf(world, ["a", "b"]), ["placed placed", "placed placed"]);
    assert.equal(world.pool.freeCount, SLOT_COUNT);
  });

  it("records a put that ends while the others are recorded", async () => {
    const world = await openWorld();
    const slow = hang(world, 1);
    world.tiny.kvFaults.beforeCommit = async (label) => {
      if (label === "store") {
        slow.open();
        await new Promise((resolve) => setImmediate(resolve));
      }
      return "ok" as const;
    };
    await within(world, 2 * GRACE_MS, bring(world, ["a"]));
    await world.context.latePuts.ended();
    assert.deepEqual(await statesOf(world, ["a"]), ["placed placed"]);
  });

  for (const storages of [2, 3]) {
    it(`goes on with the slots that hung storages cannot take: ${storages} storages`, async () => {
      const world = await openWorld(storages);
      const hung = Array.from({ length: storages - 1 }, (_, index) => hang(world, index + 1));
      const names = Array.from({ length: 40 }, (_, index) => `block ${index}`);
      const { clock } = world.tiny.shared;
      const startedMs = clock.monotonic();
      const all = Promise.all(names.map((name) => bring(world, [name])));
      await within(world, 10_000, all);
      const tookMs = clock.monotonic() - startedMs;
      assert.ok(tookMs < 5 * GRACE_MS, `the grace was waited for again and again: ${tookMs} ms`);
      assert.ok(world.pool.freeCount >= 2);
      for (const { puts, open } of hung) {
        assert.ok(puts > 0 && puts <= 2, `${puts} puts were begun`);
        open();
      }
      await world.context.latePuts.ended();
      assert.equal(world.pool.freeCount, SLOT_COUNT);
      const states = await statesOf(world, names);
      assert.ok(states.every((state) => /^placed( placed| owed)+$/.test(state)));
      assert.ok(states.some((state) => state.endsWith("placed")));
      await within(world, GRACE_MS, bring(world, ["another"]));
      const [another] = await statesOf(world, ["another"]);
      assert.match(another!, /^placed( placed)+$/);
    });
  }

  it("waits for a storage that is behind where the quorum needs it", async () => {
    const world = await openWorld();
    const slow = hang(world, 1);
    await within(world, 5000, Promise.all(["a", "b"].map((name) => bring(world, [name]))));
    world.tiny.store(0).away = true;
    const last = bring(world, ["c"]);
    for (let count = 0; count < 10; count += 1) await world.tiny.shared.clock.advance(GRACE_MS);
    assert.deepEqual(await statesOf(world, ["c"]), ["coming coming"]);
    slow.open();
    await within(world, GRACE_MS, last);
    assert.deepEqual(await statesOf(world, ["c"]), ["owed placed"]);
  });

  it("records late copies of one storage while another one hangs", async () => {
    const world = await openWorld(3);
    const slow = hang(world, 1);
    hang(world, 2);
    await within(world, 2 * GRACE_MS, bring(world, ["a"]));
    slow.open();
    for (let count = 0; count < 5; count += 1) await world.tiny.shared.clock.advance(1);
    assert.deepEqual(await statesOf(world, ["a"]), ["placed placed owed"]);
    assert.deepEqual(world.context.latePuts.storages, [world.tiny.id(2)]);
  });
});

describe("settling", () => {
  const idsOf = ({ tiny }: World, names: readonly string[]): BlockId[] =>
    names.map((name) => tiny.blockId(name));

  it("waits for late puts, with patience", async () => {
    const world = await openWorld();
    const slow = hang(world, 1);
    await within(world, 2 * GRACE_MS, bring(world, ["a"]));
    const settler = new Settler(world.tiny.repo, world.context.latePuts);
    const request = { ids: idsOf(world, ["a"]), storages: [world.tiny.id(1)], patienceMs: 1000 };
    assert.equal(await within(world, 1100, settler.settle(request)), 1);
    const settling = settler.settle(request);
    await world.tiny.shared.clock.advance(500);
    slow.open();
    assert.equal(await within(world, 400, settling), 0);
  });

  it("fills what was given up", async () => {
    const world = await openWorld();
    const slow = hang(world, 1);
    const names = ["a", "b", "c"];
    await within(world, 5000, Promise.all(names.map((name) => bring(world, [name]))));
    slow.open();
    await world.context.latePuts.ended();
    assert.equal((await statesOf(world, names)).filter((state) => /owed/.test(state)).length, 1);
    const settler = new Settler(world.tiny.repo, world.context.latePuts);
    const storages = [world.tiny.id(0), world.tiny.id(1)];
    const request = { ids: idsOf(world, names), storages, patienceMs: 1000 };
    assert.equal(await within(world, 900, settler.settle(request)), 0);
    assert.deepEqual(await statesOf(world, names), Array(3).fill("placed placed"));
  });
});
