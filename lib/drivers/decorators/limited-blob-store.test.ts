import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RateLimiter } from "#lib/core/rate-limiter.ts";
import { openMemoryBlobStore, type BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { virtualClock, type VirtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import type { BlobStore, GetOptions } from "#lib/ports/blob-store.ts";
import { limitBandwidth } from "./limited-blob-store.ts";

const RATE = 1_000_000;
const SECONDS = 10;

interface Limited {
  readonly clock: VirtualClock;
  readonly store: BlobStore;
  /** What reached the storage behind it, with when. */
  readonly moved: { readonly atMs: number; readonly bytes: number }[];
}

/** A store of which both directions are limited; its objects are named by their sizes, and take 5 ms each. */
function openLimited(sizes: readonly number[]): Limited {
  const clock = virtualClock();
  const moved: { atMs: number; bytes: number }[] = [];
  const memory = openMemoryBlobStore({
    faults: {
      before: async ({ kind, name }): Promise<BlobFault> => {
        if (kind !== "put" && kind !== "get") return "none";
        moved.push({ atMs: clock.monotonic(), bytes: Number(name.split("/")[1]) });
        await clock.sleep(5);
        return "none";
      },
    },
  });
  for (const size of sizes) memory.objects.set(`blocks/${size}`, Buffer.alloc(size));
  const store = limitBandwidth(memory, {
    reads: new RateLimiter(clock, RATE),
    writes: new RateLimiter(clock, RATE),
  });
  return { clock, store, moved };
}

/** Has several do something again and again for ten seconds. */
async function busy(
  clock: VirtualClock,
  doers: readonly ((signal: AbortSignal) => Promise<unknown>)[],
): Promise<void> {
  const stop = new AbortController();
  const doing = doers.map(async (once) => {
    while (!stop.signal.aborted) await once(stop.signal).catch(() => undefined);
  });
  await clock.advance(SECONDS * 1000);
  stop.abort();
  await clock.advance(1000);
  await Promise.all(doing);
}

/** No ten seconds, and no second, have more than the rate, but for what was saved up and one object more. */
function assertRate(moved: Limited["moved"], largestBytes: number): void {
  const inFirst = (ms: number): number =>
    moved.filter(({ atMs }) => atMs < ms).reduce((sum, { bytes }) => sum + bytes, 0);
  const all = inFirst(SECONDS * 1000);
  assert.ok(Math.abs(all - SECONDS * RATE) <= 0.05 * SECONDS * RATE, `${all} in ten seconds`);
  for (let second = 0; second < SECONDS; second += 1) {
    const bytes = inFirst((second + 1) * 1000) - inFirst(second * 1000);
    const most = 1.25 * RATE + 2 * largestBytes;
    assert.ok(bytes <= most, `${bytes} bytes in second ${second}`);
  }
}

const gets = (store: BlobStore, size: number, options: GetOptions = {}) => {
  return (signal: AbortSignal) => store.get(`blocks/${size}`, { ...options, signal });
};

describe("a storage with limited bandwidth", () => {
  it("is written at the rate, whoever writes", async () => {
    const { clock, store, moved } = openLimited([]);
    const put = (size: number) => (signal: AbortSignal) =>
      store.put(`blocks/${size}`, Buffer.alloc(size), { mode: "replace", signal });
    await busy(clock, [put(90_000), put(1000), put(50_000), put(50_000)]);
    assertRate(moved, 90_000);
  });

  it("is read at the rate, though sizes are known only afterwards", async () => {
    const { clock, store, moved } = openLimited([90_000, 1000, 50_000]);
    // Some have much more room than they need, some say nothing of what they expect.
    const doers = [
      gets(store, 90_000, { into: Buffer.alloc(200_000) }),
      gets(store, 50_000, { into: Buffer.alloc(200_000) }),
      gets(store, 1000, { into: Buffer.alloc(200_000) }),
      gets(store, 90_000),
    ];
    await busy(clock, doers);
    assertRate(moved, 90_000);
  });

  it("counts of a range what is read of it, and nothing of what fails", async () => {
    const { clock, store } = openLimited([900_000]);
    let count = 0;
    const range = { offset: 7, length: 10_000 };
    const read = gets(store, 900_000, { range });
    const missing = gets(store, 12_345, { into: Buffer.alloc(900_000) });
    const counted = async (signal: AbortSignal): Promise<void> => {
      await read(signal);
      count += 1;
    };
    await busy(clock, [counted, counted, missing]);
    const bytes = count * range.length;
    assert.ok(Math.abs(bytes - SECONDS * RATE) <= 0.1 * SECONDS * RATE, `${bytes} in ten seconds`);
  });

  it("does not let all first reads begin at once", async () => {
    const { clock, store, moved } = openLimited([RATE]);
    const reading = Array.from({ length: 8 }, () =>
      store.get(`blocks/${RATE}`, { into: Buffer.alloc(RATE) }),
    );
    await clock.advance(0);
    assert.equal(moved.length, 1);
    await clock.advance(8000);
    await Promise.all(reading);
    assert.equal(moved.length, 8);
  });

  it("stops waiting when it is told to, and has put and read nothing", async () => {
    const { clock, store, moved } = openLimited([9_000_000]);
    const stop = new AbortController();
    const { signal } = stop;
    const first = store.get("blocks/9000000", { into: Buffer.alloc(9_000_000) });
    const waiting = [
      store.put("blocks/8000000", Buffer.alloc(8_000_000), { mode: "create", signal }),
      store.get("blocks/1", { range: { offset: 0, length: 9_000_000 }, signal }),
      store.get("blocks/2", { signal }),
    ];
    stop.abort(new Error("enough"));
    for (const one of waiting) await assert.rejects(one, { message: "enough" });
    await clock.advance(10);
    assert.equal((await first).length, 9_000_000);
    assert.deepEqual(
      moved.map(({ bytes }) => bytes),
      [9_000_000],
    );
  });

  it("has its limits apart: reads do not wait for writes", async () => {
    const { clock, store, moved } = openLimited([5]);
    const put = store.put("blocks/9000000", Buffer.alloc(9_000_000), { mode: "create" });
    const get = store.get("blocks/5");
    await clock.advance(10);
    assert.equal((await get).length, 5);
    assert.equal(moved.length, 1);
    await clock.advance(10_000);
    await put;
  });
});
