// A slow, hung or jittery storage never holds a backup up beyond the quorum (DESIGN §4.2, §4.3, §4.7).
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, it } from "node:test";
import type { VersionUid } from "#lib/core/ids.ts";
import { openMemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { range } from "#lib/repository/keyspace.ts";
import { BLOCK_BYTES, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import { runBackup } from "./backup-job.ts";
import { runRestore } from "./restore-job.ts";

const B = BLOCK_BYTES;

async function restored(process: OneProcess, uid: VersionUid, storage: string): Promise<Buffer> {
  await runRestore(process.context, { uid, target: "target", storage });
  const { data } = process.devices.get("target")!;
  process.devices.delete("target");
  return data;
}

/** Delays puts of blocks at a storage. */
function delayPuts(process: OneProcess, store: number, delay: (name: string) => unknown): void {
  process.stores[store]!.faults = {
    before: async ({ kind, name }) => {
      if (kind === "put" && name.startsWith("blocks/")) await delay(name);
      return "none" as const;
    },
  };
}

const complete = ({ complete: whole }: { readonly complete: boolean }): boolean => whole;

describe("a storage that hangs", () => {
  for (const storages of [2, 3]) {
    it(`holds up nothing beyond the quorum, and gets what it is owed once it goes on (${storages} storages)`, async () => {
      const process = await openOneProcess({ storages });
      const data = seededRandom(3).bytes(512 * B);
      const gate = Promise.withResolvers<void>();
      for (let store = 1; store < storages; store += 1) {
        delayPuts(process, store, () => gate.promise);
      }
      const read = Promise.withResolvers<void>();
      process.device("disk", data).onRead = (offset) => {
        if (offset >= data.length - 16 * B) read.resolve();
      };
      const result = runBackup(process.context, { source: "disk", volume: "v" });
      const late = sleep(15_000, "held up", { ref: false });
      assert.notEqual(await Promise.race([read.promise, late]), "held up");
      gate.resolve();
      const { uid, storages: outcomes } = await result;
      assert.ok(outcomes.every(complete), "the copies that were given up were owed");
      assert.deepEqual(await restored(process, uid, `s${storages - 1}`), data);
      await process.close();
    });
  }

  it("is left alone at the end, as owed", async () => {
    const process = await openOneProcess();
    process.device("disk", seededRandom(3).bytes(64 * B));
    const gate = Promise.withResolvers<void>();
    delayPuts(process, 1, () => gate.promise);
    const { upkeep } = process.context;
    const impatient: typeof upkeep = {
      ...upkeep,
      drain: (ms, signal) => upkeep.drain(Math.min(ms, 100), signal),
    };
    const context = { ...process.context, upkeep: impatient };
    const { storages } = await runBackup(context, { source: "disk", volume: "v" });
    assert.deepEqual(storages.map(complete), [true, false]);
    assert.ok(process.logged.some(({ message }) => /s1 stays owed: .* slower/.test(message)));
    gate.resolve();
    await process.close();
  });

  it("is not waited for any more when a signal comes", async () => {
    const process = await openOneProcess();
    process.device("disk", seededRandom(3).bytes(64 * B));
    const gate = Promise.withResolvers<void>();
    delayPuts(process, 1, () => gate.promise);
    const stop = new AbortController();
    // All that counts happens without it; the stop comes while it is waited for.
    const upkeep = {
      ...process.context.upkeep,
      drain: () => Promise.resolve([]),
      checkStamps: async (ids: Parameters<typeof process.context.upkeep.checkStamps>[0]) => {
        setTimeout(() => stop.abort(), 100);
        return process.context.upkeep.checkStamps(ids);
      },
    };
    const { storages } = await runBackup(
      { ...process.context, upkeep },
      { source: "disk", volume: "v" },
      { signal: stop.signal },
    );
    assert.deepEqual(storages.map(complete), [true, false]);
    gate.resolve();
    await process.close();
  });
});

describe("a stop", () => {
  it("ends the wait for late puts, and the backup can be resumed", async () => {
    const process = await openOneProcess();
    process.device("disk", seededRandom(3).bytes(16 * B));
    const gate = Promise.withResolvers<void>();
    delayPuts(process, 1, () => gate.promise);
    const signal = AbortSignal.timeout(1000);
    const job = { source: "disk", volume: "v" };
    const stopped = runBackup(process.context, job, { signal });
    const late = sleep(8000, "held up", { ref: false });
    await assert.rejects(Promise.race([stopped, late]), { name: "TimeoutError" });
    gate.resolve();
    const { resumed, storages } = await runBackup(process.context, job);
    assert.equal(resumed, true);
    assert.ok(storages.every(complete));
    await process.close();
  });
});

describe("a stream", () => {
  it("waits for late copies where its storages are slow in turn", async () => {
    const process = await openOneProcess();
    const data = seededRandom(3).bytes(64 * B);
    process.device("-", data).isStream = true;
    // One block is slow at one storage, another one at the other.
    const slow: string[] = [];
    for (const store of [0, 1]) {
      delayPuts(process, store, (name) => {
        const block = name.split(".")[0]!;
        if (slow[store] === undefined && !slow.includes(block)) slow[store] = block;
        return slow[store] === block ? sleep(1500) : undefined;
      });
    }
    const { uid, storages } = await runBackup(process.context, { source: "-", volume: "v" });
    assert.equal(slow.length, 2);
    assert.ok(storages.every(complete));
    for (const storage of ["s0", "s1"]) {
      assert.deepEqual(await restored(process, uid, storage), data);
    }
    await process.close();
  });

  it("fills copies that were given up from the other storages, where the quorum wants them", async () => {
    const process = await openOneProcess({ storages: 3, quorum: 2 });
    const data = seededRandom(3).bytes(300 * B);
    process.device("-", data).isStream = true;
    // Each of two storages is slower than the grace for one half of the stream.
    let puts = 0;
    for (const store of [1, 2]) {
      delayPuts(process, store, () => {
        puts += 1;
        return puts > 250 === (store === 1) ? sleep(600) : undefined;
      });
    }
    const { uid } = await runBackup(process.context, { source: "-", volume: "v" });
    assert.deepEqual(await restored(process, uid, "s0"), data);
    await process.close();
  });

  it("is complete where a slow storage is required", async () => {
    const process = await openOneProcess();
    const data = seededRandom(3).bytes(100 * B);
    process.device("-", data).isStream = true;
    delayPuts(process, 1, () => sleep(250));
    const job = { source: "-", volume: "v", requireComplete: true };
    const { uid, storages } = await runBackup(process.context, job);
    assert.ok(storages.every(complete));
    assert.deepEqual(await restored(process, uid, "s1"), data);
    await process.close();
  });

  it("is complete when late puts end while the others are recorded", async () => {
    const kv = openMemoryKv();
    const transact = kv.transact.bind(kv);
    kv.transact = async (body, options) => {
      if (options?.label === "store") await sleep(400);
      return transact(body, options);
    };
    const process = await openOneProcess({ kv });
    process.device("-", seededRandom(3).bytes(8 * B)).isStream = true;
    delayPuts(process, 1, () => sleep(450));
    process.context.upkeep.fill = () => assert.fail("nothing has to be filled");
    const job = { source: "-", volume: "v", requireComplete: true };
    const { storages } = await runBackup(process.context, job).catch((error: unknown) => {
      assert.fail(String(error));
    });
    assert.ok(storages.every(complete));
    const owed = await kv.read((reader) =>
      reader.range({ ...range.owed(process.storageIds[1]), limit: 100 }),
    );
    assert.equal(owed.length, 0);
    await process.close();
  });
});
