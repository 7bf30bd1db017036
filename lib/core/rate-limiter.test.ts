import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { RateLimiter } from "./rate-limiter.ts";

const RATE = 1_000_000;

describe("a rate limiter", () => {
  it("lets through what it is set to, over ten seconds, whoever asks", async () => {
    const clock = virtualClock();
    const limiter = new RateLimiter(clock, RATE);
    let through = 0;
    const stop = new AbortController();
    const ask = async (bytes: number): Promise<void> => {
      while (!stop.signal.aborted) {
        await limiter.take(bytes, stop.signal);
        through += bytes;
      }
    };
    const asking = [1000, 70_000, 40_000].map((bytes) => ask(bytes).catch(() => undefined));
    await clock.advance(10_000);
    stop.abort();
    await Promise.all(asking);
    assert.ok(Math.abs(through - 10 * RATE) <= 0.05 * 10 * RATE, `${through} bytes in ten seconds`);
  });

  it("saves up no more than a quarter of a second", async () => {
    const clock = virtualClock();
    const limiter = new RateLimiter(clock, RATE);
    await clock.advance(60_000);
    const startMs = clock.monotonic();
    let isThrough = false;
    void limiter.take(RATE).then(() => (isThrough = true));
    await clock.advance(740);
    assert.equal(isThrough, false);
    await clock.advance(20);
    assert.equal(isThrough, true);
    assert.ok(clock.monotonic() - startMs <= 760);
  });

  it("keeps the rate where sizes are known only afterwards, however wrong they were expected", async () => {
    for (const expectedBytes of [0, 1000, 300_000]) {
      const clock = virtualClock();
      const limiter = new RateLimiter(clock, RATE);
      let through = 0;
      const stop = new AbortController();
      const read = async (bytes: number): Promise<void> => {
        while (!stop.signal.aborted) {
          await limiter.takeTurn(expectedBytes, stop.signal);
          through += bytes;
          // What is read takes its time.
          await clock.sleep(3, stop.signal);
          limiter.correct(bytes - expectedBytes);
        }
      };
      const reading = [1000, 70_000, 40_000].map((bytes) => read(bytes).catch(() => undefined));
      await clock.advance(2000);
      through = 0;
      await clock.advance(10_000);
      stop.abort();
      await Promise.all(reading);
      assert.ok(
        Math.abs(through - 10 * RATE) <= 0.05 * 10 * RATE,
        `${through} bytes in ten seconds, where ${expectedBytes} were expected of each read`,
      );
    }
  });

  it("lets nobody wait for who has given up", async () => {
    const clock = virtualClock();
    const limiter = new RateLimiter(clock, RATE);
    const stop = new AbortController();
    const abandoned = [limiter.take(60 * RATE, stop.signal), limiter.takeTurn(RATE, stop.signal)];
    stop.abort(new Error("enough"));
    for (const one of abandoned) await assert.rejects(one, { message: "enough" });
    await assert.rejects(limiter.take(1, stop.signal), { message: "enough" });
    let isThrough = false;
    void limiter.take(RATE).then(() => (isThrough = true));
    await clock.advance(1000);
    assert.equal(isThrough, true);
  });
});
