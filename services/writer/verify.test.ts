// Pieces of a scrub that come twice, to several at once, late, or end early.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { readBlock } from "#lib/repository/ledger.ts";
import { listVerify } from "#lib/repository/transactions/verify.ts";
import { openTiny, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import { scrub, type OthersWhoVerify } from "./scrub.ts";
import { Verifier, type VerifyRequest } from "./verify.ts";
import { serveVerify } from "./verify-messages.ts";

const BLOCKS = Array.from({ length: 40 }, (_, at) => `b${at}`);

/** All copies at the first storage, as one piece. */
async function pieceOf(
  tiny: TinyRepository,
  other: Partial<VerifyRequest> = {},
): Promise<VerifyRequest> {
  const storage = tiny.id(0);
  const { copies } = await listVerify(tiny.kv, storage, undefined, 1000);
  const named = await tiny.kv.read((reader) =>
    Promise.all(
      copies.map(async ({ id }) => {
        const record = await readBlock(reader, id);
        const copy = record?.copies.find((each) => each.storage === storage);
        assert.ok(copy !== undefined);
        return { id, generation: copy.generation };
      }),
    ),
  );
  const cycleMs = tiny.shared.clock.now() + 1;
  return {
    scrub: "s",
    storage,
    copies: named,
    bad: false,
    deep: true,
    cycleMs,
    boundMs: 3000,
    ...other,
  };
}

/** Counts reads of objects; `then` happens at each. */
function readsOf(tiny: TinyRepository, then?: () => Promise<void> | void): string[] {
  const reads: string[] = [];
  tiny.store(0).faults = {
    before: async ({ kind, name }): Promise<BlobFault> => {
      if (kind === "get") {
        reads.push(name);
        await then?.();
      }
      return "none";
    },
  };
  return reads;
}

describe("a piece of a scrub", () => {
  it("that is done twice reads nothing again, and tells the same", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(BLOCKS);
    const request = await pieceOf(tiny);
    const hit = request.copies.findIndex(({ id }) => id === tiny.blockId("b7"));
    tiny.damage(0, await tiny.nameAt(tiny.blockId("b7"), 0));
    const reads = readsOf(tiny);
    const { damaged, ...first } = await new Verifier(tiny.repo).verify(request);
    assert.equal(reads.length, 41);
    assert.equal(first.checked, 41);
    assert.deepEqual(
      damaged.map(({ index }) => index),
      [hit],
    );
    assert.equal((await tiny.version(uid))?.state, "invalid", "marks have reached the version");
    const again = await new Verifier(tiny.reopen().repo).verify(request);
    assert.equal(reads.length, 41);
    assert.deepEqual({ ...again, damaged: [] }, { ...first, damaged: [] });
    assert.deepEqual(
      again.damaged.map(({ index }) => index),
      [hit],
    );
  });

  it("that two do at once is told alike by both, and marked once", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(["a", "b"]);
    tiny.damage(0, await tiny.nameAt(tiny.blockId("a"), 0));
    const request = await pieceOf(tiny);
    const both = await Promise.all(
      [tiny, tiny.reopen()].map(({ repo }) => new Verifier(repo).verify(request)),
    );
    assert.deepEqual(
      both.map(({ checked, damaged }) => [checked, damaged.length]),
      [
        [3, 1],
        [3, 1],
      ],
    );
    assert.equal(await tiny.states(tiny.blockId("a")), "bad+owed");
  });

  it("of bad copies tells again which ones are good", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(["a"]);
    const request = await pieceOf(tiny);
    const name = await tiny.nameAt(tiny.blockId("a"), 0);
    const bytes = tiny.store(0).objects.get(name) as Buffer;
    tiny.store(0).objects.delete(name);
    await new Verifier(tiny.repo).verify(request);
    tiny.store(0).objects.set(name, bytes);
    const copies = request.copies.filter(({ id }) => id === tiny.blockId("a"));
    const reads = readsOf(tiny);
    for (let time = 0; time < 2; time += 1) {
      const bad = { ...request, copies, bad: true };
      const { restored, checked, damaged } = await new Verifier(tiny.repo).verify(bad);
      assert.deepEqual([restored, checked, damaged], [1, 1, []]);
    }
    assert.deepEqual(reads, [name]);
  });

  it("begins nothing more when its time is up, and says what is left", async () => {
    const tiny = await openTiny({ storages: 1, blockBytes: 2_000_000 });
    await tiny.backup(BLOCKS);
    const request = await pieceOf(tiny, { boundMs: 1500 });
    const reads = readsOf(tiny, () => tiny.shared.clock.advance(1000));
    const first = await new Verifier(tiny.repo).verify(request);
    assert.ok(first.checked > 0 && first.checked < 20, `${first.checked}`);
    assert.equal(first.left.length, 41 - first.checked);
    assert.deepEqual(
      first.left,
      [...request.copies.keys()].slice(first.checked),
      "the last ones are left",
    );
    // One of them in any case.
    const least = await new Verifier(tiny.repo).verify({
      ...request,
      copies: first.left.map((at) => request.copies[at]!),
      boundMs: 0,
    });
    assert.ok(least.checked > 0);
    assert.equal(new Set(reads).size, reads.length);
  });

  it("judges nothing by a storage that is away, and says so", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(["a", "b"]);
    const request = await pieceOf(tiny);
    const other = tiny.reopen();
    tiny.store(0).away = true;
    for (const deep of [true, false]) {
      const outcome = await new Verifier(other.repo).verify({ ...request, deep });
      assert.deepEqual([outcome.left, outcome.damaged], [[0, 1, 2], []]);
      assert.ok(isErrorCode(outcome.away, ErrorCode.Unavailable));
    }
  });

  it("says nothing of copies that were replaced since, and of a suspect storage it looks at none", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(["a"]);
    const request = await pieceOf(tiny);
    const copies = request.copies.map(({ id }, at) => ({
      id,
      generation: request.copies.at(at - 1)!.generation,
    }));
    const reads = readsOf(tiny);
    const { left, checked } = await new Verifier(tiny.repo).verify({ ...request, copies });
    assert.deepEqual([left, checked, reads], [[], 0, []]);
    const clone = await tiny.clone();
    await tiny.backup(["b"]);
    await assert.rejects(new Verifier(clone.repo).verify(request), (error) =>
      isErrorCode(error, ErrorCode.Refused),
    );
    assert.deepEqual(reads, []);
  });
});

describe("a scrub", () => {
  const many = Array.from({ length: 1536 }, (_, at) => `b${at}`);

  it("is spread over all that are there; each object is read once", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(many);
    const reads = readsOf(tiny);
    const shares = new Map<number, number>();
    const others = [1, 2, 3].map((at) => {
      const { repo } = tiny.reopen();
      const open = repo.compute.open.bind(repo.compute);
      repo.compute.open = (requests, out) => {
        shares.set(at, (shares.get(at) ?? 0) + requests.length);
        return open(requests, out);
      };
      return serveVerify(repo, tiny.bus);
    });
    const { storages } = await tiny.context.upkeep.scrub({ deep: true });
    const objects = 1536 + 6 + 1;
    assert.equal(storages[0]?.checked, objects);
    assert.deepEqual([reads.length, new Set(reads).size], [objects, objects]);
    assert.equal(shares.size, 3);
    for (const each of others) await each.stop();
  });

  /** A scrub whose pieces others do in such a way. */
  const scrubBy = (
    tiny: TinyRepository,
    how: (
      work: Verifier,
      ...asked: Parameters<OthersWhoVerify["ask"]>
    ) => ReturnType<OthersWhoVerify["ask"]>,
    options: { readonly deep?: boolean } = {},
  ) => {
    const work = new Verifier(tiny.reopen().repo);
    return scrub(
      tiny.repo,
      { deep: true, ...options },
      {
        ask: (...asked) => how(work, ...asked),
        end: () => undefined,
      },
    );
  };

  it("counts and tells everything once, also when answers are lost, or nobody understands it", async () => {
    const lost = new AshlarError(ErrorCode.Unavailable, "written by a newer Ashlar");
    for (const isDone of [true, false]) {
      const tiny = await openTiny({ storages: 1 });
      await tiny.backup(many.slice(0, 300));
      tiny.damage(0, await tiny.nameAt(tiny.blockId("b9"), 0));
      const reads = readsOf(tiny);
      const result = await scrubBy(tiny, async (work, ...asked) => {
        if (isDone) await work.verify(...asked);
        throw lost;
      });
      assert.deepEqual([result.storages[0]?.checked, result.damaged.length], [303, 1]);
      // Healing looks for what may lie under the new name.
      assert.equal(new Set(reads).size, reads.length);
    }
  });

  it("goes on by itself where a storage is away for others", async () => {
    const tiny = await openTiny({ storages: 2 });
    await tiny.backup(many.slice(0, 300));
    const away = new AshlarError(ErrorCode.Unavailable, "not mounted here");
    const { storages } = await scrubBy(tiny, async (work, request, signal) => {
      if (request.storage !== tiny.id(1)) return work.verify(request, signal);
      // It gets somewhere before.
      const some = { ...request, copies: request.copies.slice(0, 3) };
      const done = await work.verify(some, signal);
      return { ...done, left: [...request.copies.keys()].slice(3), away };
    });
    assert.deepEqual(
      storages.map(({ checked, reason }) => [checked, reason]),
      [
        [303, undefined],
        [303, undefined],
      ],
    );
  });

  it("ends with what is everybody's business: a suspect storage", async () => {
    const tiny = await openTiny({ storages: 2 });
    await tiny.backup(["a"]);
    const refused = new AshlarError(ErrorCode.Refused, "nothing was changed");
    await assert.rejects(
      scrubBy(tiny, () => Promise.reject(refused)),
      /nothing was changed/,
    );
  });

  it("goes on where an earlier try of the same work has come to", async () => {
    const tiny = await openTiny({ storages: 1 });
    await tiny.backup(many);
    const reads = readsOf(tiny);
    let kept: number | undefined;
    const keepCycle = (cycleMs: number): Promise<number> => Promise.resolve((kept ??= cycleMs));
    const stop = new AbortController();
    const first = tiny.context.upkeep.scrub({
      deep: true,
      keepCycle,
      signal: stop.signal,
      onProgress: () => stop.abort(new Error("stop")),
    });
    await assert.rejects(first, /stop/);
    await tiny.verifying.stop();
    assert.ok(reads.length < 1536, `${reads.length}`);
    const next = tiny.reopen();
    await tiny.shared.clock.advance(60_000);
    await next.context.upkeep.scrub({ deep: true, keepCycle });
    assert.equal(new Set(reads).size, 1543);
    assert.ok(reads.length < 1543 + 64, "only what was being read when it stopped is read again");
    const before = reads.length;
    await next.context.upkeep.scrub({ deep: true });
    assert.equal(reads.length, before + 1543, "the next work is a cycle of its own");
  });
});
