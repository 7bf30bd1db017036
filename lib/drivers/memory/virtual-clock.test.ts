import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { virtualClock } from "./virtual-clock.ts";

describe("virtual clock", () => {
  it("stands still until it is moved", async () => {
    const clock = virtualClock({ nowMs: 1000 });
    assert.equal(clock.now(), 1000);
    await clock.advance(500);
    assert.equal(clock.now(), 1500);
    assert.equal(clock.monotonic(), 500);
  });

  it("shows each sleeper the time at which it wanted to wake", async () => {
    const clock = virtualClock();
    const times: number[] = [];
    const work = async (): Promise<void> => {
      for (let round = 0; round < 3; round++) {
        await clock.sleep(100);
        times.push(clock.monotonic());
      }
    };
    void work();
    await clock.advance(250);
    assert.deepEqual(times, [100, 200]);
    assert.equal(clock.monotonic(), 250);
    assert.equal(clock.nextWakeMs, 300);
    assert.equal(await clock.advanceToNext(), true);
    assert.deepEqual(times, [100, 200, 300]);
    assert.equal(await clock.advanceToNext(), false);
    assert.equal(clock.sleeperCount, 0);
  });

  it("wakes those of one moment in the order in which they fell asleep", async () => {
    const clock = virtualClock();
    const woken: string[] = [];
    for (const name of ["a", "b", "c"]) void clock.sleep(10).then(() => woken.push(name));
    await clock.advance(10);
    assert.deepEqual(woken, ["a", "b", "c"]);
  });

  it("lets the wall clock jump without waking anybody", async () => {
    const clock = virtualClock({ nowMs: 1000 });
    let woken = false;
    void clock.sleep(10).then(() => {
      woken = true;
    });
    clock.setNow(999_000);
    await clock.advance(5);
    assert.equal(clock.now(), 999_005);
    assert.equal(woken, false);
  });
});
