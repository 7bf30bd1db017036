// The simulated ports keep the contracts that the real ones keep: the same suites run on them. And the engine keeps its own
// promises: order, death, standing still.
import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { openMemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { describeBlobStore } from "#test/conformance/blob-store.ts";
import { describeKv } from "#test/conformance/kv.ts";
import { FaultPlan, type FaultRates } from "./faults.ts";
import { Scheduler } from "./scheduler.ts";
import { openSimKv } from "./sim-kv.ts";
import { SimNetwork } from "./sim-network.ts";
import { SimProcess } from "./sim-process.ts";
import { SimStorage } from "./sim-storage.ts";
import { TraceHash } from "./trace-hash.ts";

const LATENCY = { stepMs: 2, slowMs: 0, slowShare: 0 };

/** An engine with a process, and a line for everything that happens. */
class Bench {
  readonly lines: string[] = [];
  readonly scheduler: Scheduler;
  readonly faults: FaultPlan;

  constructor(rates: FaultRates = {}, seed = "1") {
    const trace = new TraceHash((line) => this.lines.push(line));
    this.scheduler = new Scheduler(seededRandom(`order ${seed}`), trace);
    this.faults = new FaultPlan(seededRandom(`faults ${seed}`), rates);
  }

  process(name = "p"): SimProcess {
    return new SimProcess(this.scheduler, LATENCY, { name, host: "h", seed: "1" }, () => 0);
  }

  storage(): SimStorage {
    const watcher = { put: () => undefined, deleted: () => undefined };
    return new SimStorage(this.scheduler, this.faults, watcher, {
      id: "00000000000000aa" as StorageId,
      name: "s",
      lagging: false,
      unreliable: true,
      lockMs: undefined,
      wallMs: () => 0,
    });
  }

  /** Runs everything that will happen. */
  async all(): Promise<void> {
    let isDone = false;
    this.scheduler.after(1e9, undefined, "end", () => (isDone = true));
    await this.scheduler.run(() => isDone, 100_000);
  }
}

function driven(test: TestContext): Bench {
  const bench = new Bench();
  test.after(bench.scheduler.drive());
  return bench;
}

describeBlobStore("simulated", {
  open: (test) => {
    const bench = driven(test);
    const storage = bench.storage();
    return Promise.resolve({
      store: storage.client(bench.process("one")),
      reopen: () => Promise.resolve(storage.client(bench.process("other"))),
      takeAway: () => {
        storage.away = true;
        return Promise.resolve(() => {
          storage.away = false;
          return Promise.resolve();
        });
      },
    });
  },
});

describeKv("simulated", {
  open: () => {
    const bench = new Bench();
    const stop = bench.scheduler.drive();
    const kv = openSimKv(openMemoryKv(), bench.process(), bench.faults);
    return Promise.resolve({
      read: (body) => kv.read(body),
      transact: (body, options) => kv.transact(body, options),
      flush: () => kv.flush(),
      close: () => {
        stop();
        return kv.close();
      },
    });
  },
});

describe("the engine", () => {
  it("runs events in the order of their time, and of the same time as they were made", async () => {
    const bench = new Bench();
    const seen: string[] = [];
    for (const [ms, name] of [
      [5, "c"],
      [1, "a"],
      [5, "d"],
      [2, "b"],
    ] as const) {
      bench.scheduler.after(ms, undefined, name, () => seen.push(name));
    }
    bench.scheduler.after(3, undefined, "taken back", () => seen.push("never"))();
    await bench.all();
    assert.equal(seen.join(""), "abcd");
  });

  it("gives a dead process nothing, and a process that stands still what it waited for later", async () => {
    const bench = new Bench();
    const [dead, still] = [bench.process("dead"), bench.process("still")];
    const seen: string[] = [];
    void dead.clock.sleep(10).then(() => seen.push("dead"));
    void still.clock.sleep(10).then(() => seen.push(`still ${bench.scheduler.nowMs}`));
    bench.scheduler.after(5, undefined, "blow", () => {
      dead.kill();
      still.pause(100);
    });
    await bench.all();
    assert.deepEqual(seen, ["still 105"]);
  });

  it("lets a put take effect whose process has died meanwhile", async () => {
    const bench = new Bench();
    const [process, storage] = [bench.process(), bench.storage()];
    let isAnswered = false;
    const put = storage.client(process).put("blocks/a", Buffer.from("x"), { mode: "create" });
    void put.then(() => (isAnswered = true));
    process.kill();
    await bench.all();
    assert.equal(storage.objects.get("blocks/a")?.toString(), "x");
    assert.equal(isAnswered, false);
  });

  it("delivers a message again whose consumer has died", async () => {
    const bench = new Bench();
    const network = new SimNetwork(bench.scheduler, bench.faults, () => undefined);
    const [sender, first, second] = [bench.process("s"), bench.process("1"), bench.process("2")];
    const seen: string[] = [];
    network.client(first).consume("q", { concurrency: 1 }, async () => {
      seen.push("first");
      first.kill();
      await first.turn("never");
    });
    void network.client(sender).publish("q", { body: Buffer.from("m") });
    bench.scheduler.after(50, undefined, "second", () => {
      network.client(second).consume("q", { concurrency: 1 }, async ({ body }) => {
        seen.push(`second ${Buffer.from(body).toString()}`);
        await second.turn("done");
      });
    });
    await bench.all();
    assert.deepEqual(seen, ["first", "second m"]);
  });

  it("counts a fault where it takes effect, and none once it is over", () => {
    const plan = new FaultPlan(seededRandom(1), { kill: 1 });
    assert.equal(plan.draws("kill"), true);
    assert.deepEqual(plan.total, { fired: 0, kinds: 0 });
    assert.equal(plan.strikes("kill"), true);
    assert.equal(plan.strikes("pause"), false);
    plan.isOver = true;
    assert.equal(plan.strikes("kill"), false);
    assert.deepEqual(plan.total, { fired: 1, kinds: 1 });
  });

  it("gives up a run in which nothing is left to happen, and one without an end", async () => {
    await assert.rejects(
      new Bench().scheduler.run(() => false, 10),
      /nothing is left/,
    );
    const bench = new Bench();
    const again = (): void => void bench.scheduler.after(1, undefined, "again", again);
    again();
    await assert.rejects(
      bench.scheduler.run(() => false, 10),
      /no end after 10 events/,
    );
  });
});
