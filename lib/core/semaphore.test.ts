import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Semaphore } from "./semaphore.ts";

/** One place that is taken, and the order in which others get it. */
function taken() {
  const semaphore = new Semaphore(1);
  const { promise, resolve: free } = Promise.withResolvers<void>();
  const first = semaphore.run(() => promise);
  const order: string[] = [];
  const wait = (name: string, yields: boolean, signal?: AbortSignal): Promise<void> =>
    semaphore.run(
      async () => {
        order.push(name);
        await setImmediate();
      },
      signal,
      yields,
    );
  return { order, wait, free, first };
}

describe("a semaphore", () => {
  it("lets those that yield wait for the others, though not without end", async () => {
    const { order, wait, free, first } = taken();
    const all = [first];
    for (let at = 0; at < 2; at += 1) all.push(wait(`y${at}`, true));
    for (let at = 0; at < 10; at += 1) all.push(wait(`r${at}`, false));
    free();
    await Promise.all(all);
    assert.equal(order.join(" "), "r0 r1 r2 r3 r4 r5 r6 y0 r7 r8 r9 y1");
  });

  it("forgets who has given up, in either line", async () => {
    const { order, wait, free, first } = taken();
    const stop = new AbortController();
    const given = [wait("y0", true, stop.signal), wait("r0", false, stop.signal)];
    const kept = [wait("y1", true), wait("r1", false)];
    stop.abort(new Error("stop"));
    for (const each of given) await assert.rejects(each, /stop/);
    free();
    await Promise.all([first, ...kept]);
    assert.deepEqual(order, ["r1", "y1"]);
  });
});
