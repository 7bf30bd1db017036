// Reading from the storage that is faster, without asking twice for everything.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import { createSharedSlotPool } from "#lib/drivers/compute/slot-pool.ts";
import {
  openMemoryBlobStore,
  type BlobFault,
  type MemoryBlobStore,
} from "#lib/drivers/memory/memory-blob-store.ts";
import { virtualClock, type VirtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import type { Slot, SlotPool } from "#lib/ports/compute.ts";
import type { Copy } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { StorageSet } from "#lib/repository/storages.ts";
import { fetchCopy, type Fetched, type FetchPorts } from "./fetch-copy.ts";
import { ReadSteering } from "./read-steering.ts";

const ID = "ab".repeat(32) as BlockId;
const GENERATION = "00112233445566ff" as Generation;
const NAME = objectName("block", ID, GENERATION);
const BYTES = 1000;

interface Fixture {
  readonly clock: VirtualClock;
  readonly steering: ReadSteering;
  readonly stores: readonly MemoryBlobStore[];
  readonly pool: SlotPool;
  readonly slot: Slot;
  /** How long the next reads of a storage take; Infinity: until `release`. */
  readonly delaysMs: number[];
  readonly reads: number[];
  readonly release: () => void;
  readonly fetch: (second?: boolean) => Promise<Fetched>;
}

async function open(): Promise<Fixture> {
  const clock = virtualClock();
  const steering = new ReadSteering(clock);
  const stores = [openMemoryBlobStore(), openMemoryBlobStore()];
  const delaysMs = [0, 0];
  const reads = [0, 0];
  const held = Promise.withResolvers<void>();
  for (const [index, store] of stores.entries()) {
    store.objects.set(NAME, Buffer.alloc(BYTES, index + 1));
    store.faults = {
      before: async ({ kind }): Promise<BlobFault> => {
        if (kind !== "get") return "none";
        reads[index] = (reads[index] ?? 0) + 1;
        const ms = delaysMs[index] as number;
        if (ms === Infinity) await held.promise;
        else if (ms > 0) await clock.sleep(ms);
        return "none";
      },
    };
  }
  const ids = ["0000000000000001", "0000000000000002"] as StorageId[];
  const limits = { writesMax: 8, readsMax: 8, removalsMax: 1 };
  const storages = new StorageSet(
    stores.map((store, index) => ({
      id: ids[index] as StorageId,
      name: `s${index}`,
      site: "x",
      store,
      ...limits,
    })),
  );
  const ports: FetchPorts = { clock, storages, telemetry: noTelemetry() };
  const pool = createSharedSlotPool(BYTES, 2);
  const slot = await pool.acquire();
  const copyAt = (index: number): Copy => ({
    state: "placed",
    storage: ids[index] as StorageId,
    generation: GENERATION,
    verifiedMs: 0,
  });
  const fetch = (second = true): Promise<Fetched> =>
    fetchCopy(ports, steering, {
      kind: "block",
      id: ID,
      first: copyAt(0),
      second: second ? copyAt(1) : undefined,
      cached: undefined,
      into: slot.bytes,
      slot,
    });
  return {
    clock,
    steering,
    stores,
    pool,
    slot,
    delaysMs,
    reads,
    release: () => held.resolve(),
    fetch,
  };
}

/** Reads that tell what is usual: 10 ms each. */
async function accustom({ clock, delaysMs, fetch }: Fixture, count = 20): Promise<void> {
  delaysMs[0] = 10;
  for (let index = 0; index < count; index += 1) {
    const fetched = fetch();
    await clock.advance(10);
    await fetched;
  }
}

const from = ({ sealed }: Fetched): number => sealed[0] as number;

describe("fetching a copy", () => {
  it("asks one storage only while it answers as usual", async () => {
    const fixture = await open();
    await accustom(fixture);
    assert.deepEqual(fixture.reads, [20, 0]);
  });

  it("asks another storage when the first is unusually slow, and keeps the slot until that has ended", async () => {
    const fixture = await open();
    await accustom(fixture);
    const { clock, delaysMs, pool, slot, reads } = fixture;
    delaysMs[0] = Infinity;
    const fetched = fixture.fetch();
    await clock.advance(99);
    assert.equal(reads[1], 0, "it has a while");
    await clock.advance(1);
    assert.equal(from(await fetched), 2);
    slot.release();
    assert.equal(pool.freeCount, 1, "the slow one may still write into it");
    fixture.release();
    await clock.advance(0);
    assert.equal(pool.freeCount, 2);
  });

  it("takes the first one where that is faster after all", async () => {
    const fixture = await open();
    await accustom(fixture);
    const { clock, delaysMs, pool, slot } = fixture;
    delaysMs[0] = 150;
    delaysMs[1] = 1000;
    const fetched = fixture.fetch();
    await clock.advance(150);
    assert.equal(from(await fetched), 1);
    slot.release();
    assert.equal(pool.freeCount, 2);
  });

  it("has more patience with a storage of which it knows nothing", async () => {
    const { clock, delaysMs, reads, fetch } = await open();
    delaysMs[0] = 1999;
    const fetched = fetch();
    await clock.advance(1999);
    assert.equal(from(await fetched), 1);
    assert.equal(reads[1], 0);
  });

  it("says what the first has to say when neither gives anything", async () => {
    const fixture = await open();
    await accustom(fixture);
    const { clock, delaysMs, stores } = fixture;
    delaysMs[0] = 200;
    for (const store of stores) store.objects.delete(NAME);
    const fetched = fixture.fetch();
    const rejected = assert.rejects(fetched, (error) => {
      assert.ok(error instanceof AshlarError && error.code === ErrorCode.NotFound);
      return true;
    });
    await clock.advance(300);
    await rejected;
  });

  it("does not ask twice for everything where all are slow", async () => {
    const fixture = await open();
    await accustom(fixture);
    const { clock, delaysMs, reads } = fixture;
    delaysMs.fill(500);
    const before = [...reads];
    for (let index = 0; index < 100; index += 1) {
      const fetched = fixture.fetch();
      // Nothing is learned from it: the first is as patient as ever, and the second is asked each time that it may be.
      await clock.advance(500);
      await fetched;
    }
    const [first = 0, second = 0] = reads.map((count, index) => count - (before[index] as number));
    assert.equal(first, 100);
    assert.ok(second <= 25, `${second} of 100 were asked for twice`);
  });
});

describe("a storage that hangs", () => {
  it("holds up no read for long, however many there were before", async () => {
    const fixture = await open();
    await accustom(fixture);
    const { clock, delaysMs } = fixture;
    delaysMs[0] = Infinity;
    for (let index = 0; index < 30; index += 1) {
      const fetched = fixture.fetch();
      await clock.advance(100 + 4 * 100);
      assert.equal(from(await fetched), 2, `read ${index}`);
    }
    fixture.release();
  });

  it("comes after all others, and is tried again now and then", async () => {
    const { clock } = await open();
    const steering = new ReadSteering(clock);
    const storage = "0000000000000001" as StorageId;
    for (let index = 0; index < 2; index += 1) steering.wasOverdue(storage);
    assert.ok(!steering.isToAvoid(storage));
    steering.wasOverdue(storage);
    const asked = Array.from({ length: 64 }, () => steering.isToAvoid(storage));
    assert.equal(asked.filter((isAvoided) => !isAvoided).length, 2);
    await steering.watch(storage, () => Promise.resolve());
    assert.ok(!steering.isToAvoid(storage), "it has answered");
  });

  it("tells that nothing else may go where it may still write, and what it said before it was overtaken", async () => {
    const fixture = await open();
    await accustom(fixture);
    const { clock, delaysMs, stores } = fixture;
    delaysMs[0] = Infinity;
    const busy = fixture.fetch();
    await clock.advance(100);
    assert.equal((await busy).isBusy, true);
    fixture.release();
    delaysMs.splice(0, 2, 150, 100);
    stores[0]?.objects.delete(NAME);
    const failed = fixture.fetch();
    await clock.advance(100);
    await clock.advance(50);
    await clock.advance(100);
    const { isBusy, firstError } = await failed;
    assert.equal(isBusy, undefined);
    assert.ok(isErrorCode(firstError, ErrorCode.NotFound));
  });
});

describe("the steering of reads", () => {
  it("counts what is under way, also when it fails", async () => {
    const { steering } = await open();
    const storage = "0000000000000001" as StorageId;
    const read = Promise.withResolvers<void>();
    const watched = steering.watch(storage, () => read.promise);
    assert.equal(steering.underWay(storage), 1);
    read.reject(new Error("no"));
    await assert.rejects(watched);
    assert.equal(steering.underWay(storage), 0);
  });

  it("expects of a storage what it did before, and more of one that has less to do", async () => {
    const fixture = await open();
    const { steering, clock } = fixture;
    const [slow, fast] = ["0000000000000001", "0000000000000002"] as StorageId[];
    const read = async (storage: StorageId, ms: number): Promise<void> => {
      const watched = steering.watch(storage, () => clock.sleep(ms));
      await clock.advance(ms);
      await watched;
    };
    await read(slow as StorageId, 100);
    await read(fast as StorageId, 20);
    const expected = (): boolean =>
      steering.expectedMs(fast as StorageId) < steering.expectedMs(slow as StorageId);
    assert.ok(expected());
    const busy = Promise.withResolvers<void>();
    for (let index = 0; index < 5; index += 1) {
      void steering.watch(fast as StorageId, () => busy.promise);
    }
    assert.ok(!expected(), "with five before it, the slow one is as fast");
    busy.resolve();
  });

  it("bounds second requests, those under way and those on the long run", async () => {
    const { clock } = await open();
    const steering = new ReadSteering(clock);
    const end = Promise.withResolvers<void>();
    const held = Array.from({ length: 6 }, () => steering.hedge(() => end.promise));
    assert.equal(held.filter((each) => each !== undefined).length, 4);
    end.resolve();
    await end.promise;
    await clock.advance(0);
    let more = 0;
    while (steering.hedge(() => Promise.resolve()) !== undefined) {
      more += 1;
      await clock.advance(1);
      assert.ok(more < 100);
    }
    assert.equal(more, 6, "ten were saved up");
    const storage = "0000000000000001" as StorageId;
    for (let index = 0; index < 11; index += 1)
      await steering.watch(storage, () => Promise.resolve());
    assert.ok(steering.hedge(() => Promise.resolve()) !== undefined, "one more for ten reads");
    assert.equal(
      steering.hedge(() => Promise.resolve()),
      undefined,
    );
  });
});
