// What every Clock must do (lib/ports/clock.ts).
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Clock } from "#lib/ports/clock.ts";

/** A clock under test, and how its time passes. */
export interface ClockFixture {
  readonly clock: Clock;
  readonly pass: (ms: number) => Promise<void>;
}

/** Runs the suite against one driver. */
export function describeClock(driver: string, open: () => ClockFixture): void {
  describe(`Clock: ${driver}`, () => {
    it("never goes back", async () => {
      const { clock, pass } = open();
      const before = clock.monotonic();
      await pass(20);
      const after = clock.monotonic();
      assert.ok(after - before >= 19, `${after - before} ms`);
      assert.ok(clock.monotonic() >= after);
    });

    it("knows the date", () => {
      const { clock } = open();
      assert.ok(clock.now() > Date.UTC(2025, 0));
      assert.ok(Number.isFinite(clock.now()));
    });

    it("wakes sleepers in the order of their times", async () => {
      const { clock, pass } = open();
      const woken: number[] = [];
      const sleeping = [30, 10, 20].map(async (ms) => {
        await clock.sleep(ms);
        woken.push(ms);
      });
      await pass(100);
      await Promise.all(sleeping);
      assert.deepEqual(woken, [10, 20, 30]);
    });

    it("does not wake too early", async () => {
      const { clock, pass } = open();
      let woken = false;
      const sleeping = clock.sleep(200).then(() => {
        woken = true;
      });
      await pass(50);
      assert.equal(woken, false);
      await pass(250);
      await sleeping;
      assert.equal(woken, true);
    });

    it("stops sleeping when told to, with the reason", async () => {
      const { clock, pass } = open();
      const stop = new AbortController();
      const sleeping = assert.rejects(clock.sleep(60_000, stop.signal), { message: "enough" });
      await pass(5);
      stop.abort(new Error("enough"));
      await sleeping;
      await assert.rejects(clock.sleep(1, stop.signal), { message: "enough" });
    });

    it("sleeps for no time, and for longer than timers last", async () => {
      const { clock, pass } = open();
      const short = clock.sleep(0);
      await pass(5);
      await short;
      const stop = new AbortController();
      let woken = false;
      const long = clock.sleep(2 ** 40, stop.signal).then(
        () => {
          woken = true;
        },
        () => undefined,
      );
      await pass(20);
      assert.equal(woken, false);
      stop.abort();
      await long;
    });
  });
}
