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
});
