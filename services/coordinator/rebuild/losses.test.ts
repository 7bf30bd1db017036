// Rebuild under random histories and losses, and stopped anywhere.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import type { VersionUid } from "#lib/core/ids.ts";
import { key } from "#lib/repository/keyspace.ts";
import { encodeRecord } from "#lib/repository/records.ts";
import { changeVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import { runFsck } from "#services/coordinator/fsck/fsck.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { putOwedHeads } from "#services/writer/heads.ts";
import { assertClosed, headsOn, restoreFrom } from "#test/fixtures/tiny-checks.ts";
import { openTiny, type TinyBlock, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import {
  backupPatiently,
  bringLeaf,
  isClean,
  readBack,
  rebuildAt,
  rebuildFresh,
  snapshotOf,
  stopping,
  withoutMetadata,
} from "#test/fixtures/tiny-rebuild.ts";

/** More runs, or other ones, on request. */
const RUNS = Number(process.env["ASHLAR_TEST_RUNS"] ?? 20);
const SEED = Number(process.env["ASHLAR_TEST_SEED"] ?? 20_260_100);

const STORAGES = 2;
const SUBSETS = [[0], [1], [0, 1]];

/** A step of a history; numbers pick among what there is. */
type Step =
  | {
      readonly kind: "backup";
      readonly blocks: readonly TinyBlock[];
      readonly storages: readonly number[];
      readonly quorum: number;
      readonly away: number | undefined;
    }
  | { readonly kind: "remove" | "label"; readonly pick: number }
  | { readonly kind: "gc" }
  /** An unfinished backup. */
  | { readonly kind: "begin"; readonly blocks: readonly TinyBlock[] };

/** What happens to the storages then: objects by their place in the sorted listing. */
interface Loss {
  readonly storage: number;
  readonly at: number;
  readonly how: "gone" | "rotten" | "cut";
}

const block = fc.option(fc.constantFrom("a", "b", "c", "d", "e", "f"), { nil: undefined });
const blocks = fc.array(block, { minLength: 1, maxLength: 5 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("backup" as const),
      blocks,
      storages: fc.constantFrom([0], [1], [0, 1], [1, 0]),
      quorum: fc.constantFrom(1, 1, 2),
      away: fc.constantFrom(undefined, undefined, 0, 1),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom("remove" as const, "label" as const),
      pick: fc.nat(9),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("gc" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("begin" as const), blocks }) },
);
const loss: fc.Arbitrary<Loss> = fc.record({
  storage: fc.nat(STORAGES - 1),
  at: fc.nat(40),
  how: fc.constantFrom("gone", "gone", "rotten", "cut"),
});

/** What every version that was acknowledged holds. */
type Contents = ReadonlyMap<VersionUid, readonly TinyBlock[]>;

async function openRepository(): Promise<TinyRepository> {
  const tiny = await openTiny({ storages: STORAGES });
  await tiny.kv.transact((tx) =>
    Promise.resolve(tx.set(key.config, encodeRecord(tiny.repo.config))),
  );
  return tiny;
}

async function play(tiny: TinyRepository, steps: readonly Step[]): Promise<Contents> {
  const contents = new Map<VersionUid, readonly TinyBlock[]>();
  for (const each of steps) {
    const uids = [...contents.keys()];
    switch (each.kind) {
      case "backup": {
        const storages = each.storages;
        const quorum = Math.min(each.quorum, storages.length);
        const spare = storages.length - (storages.includes(each.away ?? -1) ? 1 : 0);
        if (each.away !== undefined && spare >= quorum) tiny.store(each.away).away = true;
        const { uid } = await backupPatiently(tiny, each.blocks, { storages, quorum });
        contents.set(uid, each.blocks);
        for (const store of tiny.shared.stores) store.away = false;
        break;
      }
      case "remove":
      case "label": {
        const uid = uids[each.pick % Math.max(1, uids.length)];
        if (uid === undefined) break;
        if (each.kind === "label")
          await changeVersion(tiny.kv, uid, { labels: { n: String(each.pick) } });
        else {
          await removeVersion(tiny.kv, uid);
          contents.delete(uid);
        }
        await putOwedHeads(tiny.repo);
        break;
      }
      case "gc":
        await collectGarbage(tiny.context, { sweep: true });
        break;
      case "begin":
        await bringLeaf(await tiny.start(), each.blocks);
        break;
    }
  }
  return contents;
}

function lose(tiny: TinyRepository, losses: readonly Loss[]): void {
  for (const { storage, at, how } of losses) {
    const { objects } = tiny.store(storage);
    const names = [...objects.keys()]
      .filter((name) => how === "gone" || /^(?:blocks|nodes)\//.test(name))
      .toSorted();
    const name = names[at % Math.max(1, names.length)];
    if (name === undefined) continue;
    if (how === "gone") objects.delete(name);
    else if (how === "cut") objects.set(name, (objects.get(name) as Buffer).subarray(0, 20));
    // What a listing cannot tell of a block, a scrub does.
    else if (name.startsWith("nodes/")) tiny.damage(storage, name);
  }
}

/** Whether a storage has a version whole, by its head and the keys alone. */
function isWholeAt(tiny: TinyRepository, storage: number, uid: VersionUid): boolean {
  if (headsOn(tiny, storage).get(uid)?.root === undefined) return false;
  try {
    restoreFrom(tiny, storage, uid);
    return true;
  } catch {
    return false;
  }
}

async function checkRebuilt(
  tiny: TinyRepository,
  contents: Contents,
  from: readonly number[],
): Promise<void> {
  const whole = [...contents.keys()].filter((uid) => from.some((at) => isWholeAt(tiny, at, uid)));
  const { fresh, result } = await rebuildFresh(tiny, from);
  await isClean(fresh);
  await assertClosed(fresh);
  const valid = result.versions.filter(({ state }) => state === "valid").map(({ uid }) => uid);
  for (const uid of whole)
    assert.ok(valid.includes(uid), `${uid} is whole at one of s${from.join()}`);
  for (const { state, missing } of result.versions)
    // One whose parts lie at different storages is invalid until they are filled, though nothing of it is missing.
    if (state === "valid") assert.equal(missing.length, 0);
  const kept = valid.filter((uid) => contents.has(uid));
  for (const uid of kept) assert.deepEqual(await readBack(fresh, uid), contents.get(uid));
  // And it goes on as a repository.
  const made = ["a", "new", undefined, "f"];
  const { uid } = await backupPatiently(fresh, made, { storages: from, quorum: 1 });
  const gone = kept[0];
  if (gone !== undefined) await removeVersion(fresh.kv, gone);
  for (let round = 0; round < 3; round += 1) {
    await collectGarbage(fresh.context, { sweep: true, abandon: true });
    await isClean(fresh);
  }
  await assertClosed(fresh);
  assert.deepEqual(await readBack(fresh, uid), made);
  for (const each of kept.slice(1))
    assert.deepEqual(await readBack(fresh, each), contents.get(each));
}

describe("rebuild, whatever happened before", () => {
  it("gives back every version that the given storages have, and never a wrong one", async () => {
    const history = fc.record({
      steps: fc.array(step, { minLength: 1, maxLength: 12 }),
      losses: fc.array(loss, { maxLength: 6 }),
    });
    await fc.assert(
      fc.asyncProperty(history, async ({ steps, losses }) => {
        const tiny = await openRepository();
        const contents = await play(tiny, steps);
        lose(tiny, losses);
        const stores = tiny.shared.stores.map((store) => store.snapshot());
        for (const from of SUBSETS) {
          await checkRebuilt(tiny, contents, from);
          for (const [index, store] of stores.entries()) tiny.store(index).restore(store);
        }
      }),
      { numRuns: RUNS, seed: SEED + 1 },
    );
  });

  it("mends metadata that were put back from any older point, without loss", async () => {
    const history = fc.record({
      before: fc.array(step, { minLength: 1, maxLength: 7 }),
      after: fc.array(step, { minLength: 1, maxLength: 7 }),
      losses: fc.array(loss, { maxLength: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(history, async ({ before, after, losses }) => {
        const tiny = await openRepository();
        const early = await play(tiny, before);
        const older = await tiny.clone();
        const late = await play(tiny, after);
        lose(tiny, losses);
        const contents = new Map([...early, ...late]);
        const whole = [...contents.keys()].filter((uid) =>
          [0, 1].some((at) => isWholeAt(tiny, at, uid)),
        );
        const result = await rebuildAt(older, [0, 1]);
        await isClean(older);
        await assertClosed(older);
        for (const uid of whole) {
          const report = result.versions.find((each) => each.uid === uid);
          assert.equal(report?.state, "valid", uid);
        }
        const valid = result.versions.filter(
          ({ uid, state }) => state === "valid" && contents.has(uid),
        );
        for (const { uid } of valid)
          assert.deepEqual(await readBack(older, uid), contents.get(uid));
        for (let round = 0; round < 3; round += 1) {
          await collectGarbage(older.context, { sweep: true, abandon: true });
          await isClean(older);
        }
        for (const { uid } of valid)
          assert.deepEqual(await readBack(older, uid), contents.get(uid));
      }),
      { numRuns: RUNS, seed: SEED + 2 },
    );
  });

  it("has a storage that was put back from any older point filled again, without loss", async () => {
    const history = fc.record({
      before: fc.array(step, { maxLength: 6 }),
      after: fc.array(step, { minLength: 1, maxLength: 6 }),
      storage: fc.nat(STORAGES - 1),
    });
    await fc.assert(
      fc.asyncProperty(history, async ({ before, after, storage }) => {
        const tiny = await openRepository();
        await play(tiny, before);
        const older = tiny.store(storage).snapshot();
        await play(tiny, after);
        tiny.store(storage).restore(older);
        const again = tiny.reopen();
        const other = 1 - storage;
        const whole = (await rebuildAt(again, [storage])).versions.map(({ uid }) => uid);
        await isClean(again);
        for (let round = 0; round < 3; round += 1) {
          await collectGarbage(again.context, { sweep: true, abandon: true });
          await isClean(again);
        }
        for (const uid of whole) {
          const policy = (await again.version(uid))?.policy.storages ?? [];
          if (!policy.includes(again.id(other)) || !isWholeAt(again, other, uid)) continue;
          assert.equal((await again.version(uid))?.state, "valid");
          if (policy.includes(again.id(storage))) assert.ok(isWholeAt(again, storage, uid), uid);
        }
      }),
      { numRuns: RUNS, seed: SEED + 3 },
    );
  });
});

describe("rebuild, stopped anywhere", () => {
  /** Two storages, some losses, a removed version, labels. */
  async function openDamaged(): Promise<TinyRepository> {
    const tiny = await openRepository();
    const { uid } = await tiny.backup(["a", "b", undefined, "c"]);
    const { uid: removed } = await tiny.backup(["x", "y"]);
    await tiny.backup(["a", "z"]);
    await changeVersion(tiny.kv, uid, { labels: { k: "v" } });
    tiny.store(1).away = true;
    await removeVersion(tiny.kv, removed);
    await putOwedHeads(tiny.repo);
    tiny.store(1).away = false;
    tiny.store(0).objects.delete(await tiny.nameAt(tiny.blockId("a"), 0));
    tiny.store(1).objects.delete(await tiny.nameAt(tiny.blockId("a"), 1));
    tiny.store(0).objects.delete(await tiny.nameAt(tiny.blockId("z"), 0));
    return tiny;
  }

  for (const reconcile of [false, true]) {
    it(`comes to the same when it is run again (${reconcile ? "metadata that are there" : "new metadata"})`, async () => {
      const tiny = await openDamaged();
      const start = (): Promise<TinyRepository> =>
        reconcile ? tiny.clone() : withoutMetadata(tiny);
      const stores = tiny.shared.stores.map((store) => store.snapshot());
      const putBack = (): void => {
        for (const [index, store] of stores.entries()) tiny.store(index).restore(store);
      };
      const whole = await start();
      const expected = await rebuildAt(whole, [0, 1], { fresh: !reconcile });
      const snapshot = await snapshotOf(whole, { anyGeneration: true });
      let stops = 0;
      for (let after = 0; ; after += 1) {
        putBack();
        const stopped = await start();
        const kv = stopping(stopped.kv, after, after % 2 === 0);
        try {
          await rebuildAt(stopped, [0, 1], { fresh: !reconcile, kv });
          break;
        } catch (error) {
          assert.equal((error as Error).message, "killed");
          stops += 1;
        }
        // What was taken in before it stopped is found by the collector, should nobody run it again.
        const { findings } = await runFsck(stopped.repo);
        assert.deepEqual(
          findings.filter(({ what }) => /queued nowhere/.test(what)),
          [],
        );
        const result = await rebuildAt(stopped, [0, 1], { fresh: !reconcile });
        assert.deepEqual(
          result.versions.map(({ uid, state, missing }) => ({ uid, state, missing })),
          expected.versions.map(({ uid, state, missing }) => ({ uid, state, missing })),
        );
        assert.deepEqual(
          await snapshotOf(stopped, { anyGeneration: true }),
          snapshot,
          `after ${after}`,
        );
        await isClean(stopped);
      }
      assert.ok(stops > 20, String(stops));
    });
  }
});
