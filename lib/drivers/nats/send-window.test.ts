import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { SendWindow } from "./send-window.ts";

const never = new AbortController().signal;

describe("the window of what is on its way", () => {
  /** Those who asked to send, and have been let in so far. */
  function entering(window: SendWindow, sizes: readonly number[], signal = never): string[] {
    const log: string[] = [];
    for (const [index, bytes] of sizes.entries()) {
      void window.enter(bytes, signal).then(
        () => log.push(`${index}`),
        () => log.push(`${index} aborted`),
      );
    }
    return log;
  }

  it("lets as much in as it is wide, in their order, and more when some has left", async () => {
    const window = new SendWindow(10);
    const log = entering(window, [4, 4, 4, 1]);
    await setImmediate();
    assert.deepEqual(log, ["0", "1"], "a small one does not pass those before it");
    window.left(2);
    await setImmediate();
    assert.deepEqual(log, ["0", "1", "2"]);
    window.left(1);
    await setImmediate();
    assert.deepEqual(log, ["0", "1", "2", "3"]);
  });

  it("lets one in that is larger than itself, alone", async () => {
    const window = new SendWindow(10);
    const log = entering(window, [50, 50]);
    await setImmediate();
    assert.deepEqual(log, ["0"]);
    window.left(49);
    await setImmediate();
    assert.deepEqual(log, ["0"]);
    // More may leave than has entered: what is small does not ask.
    window.left(100);
    await setImmediate();
    assert.deepEqual(log, ["0", "1"]);
  });

  it("forgets who does not wait any longer", async () => {
    const window = new SendWindow(10);
    const stop = new AbortController();
    await window.enter(10, never);
    const log = entering(window, [10], stop.signal);
    const later = entering(window, [10]);
    stop.abort();
    await setImmediate();
    assert.deepEqual(log, ["0 aborted"]);
    window.left(10);
    await setImmediate();
    assert.deepEqual(later, ["0"]);
  });

  it("gives back the room of one that was let in when it had just had enough", async () => {
    const window = new SendWindow(10);
    const stop = new AbortController();
    await window.enter(10, never);
    const log = entering(window, [10], stop.signal);
    const later = entering(window, [10]);
    window.left(10);
    stop.abort();
    await setImmediate();
    const entered = log[0] === "0" ? log : later;
    assert.deepEqual(entered, ["0"]);
    window.left(log[0] === "0" ? 10 : 0);
    await setImmediate();
    assert.deepEqual(later, ["0"]);
  });

  it("keeps nobody when the connection is lost", async () => {
    const window = new SendWindow(10);
    const log = entering(window, [10, 10, 10]);
    await setImmediate();
    window.close();
    await window.enter(10, never);
    await setImmediate();
    assert.deepEqual(log, ["0", "1", "2"]);
  });
});
