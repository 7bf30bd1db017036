import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EpochTracker } from "./epoch-tracker.ts";

describe("EpochTracker", () => {
  it("announces the newest epoch when nothing is held", () => {
    const epochs = new EpochTracker();
    epochs.saw(4);
    epochs.saw(3);
    assert.equal(epochs.announce(), 4);
    assert.equal(epochs.isVoid(3), true);
    assert.equal(epochs.isVoid(4), false);
  });

  it("never passes an epoch that is held, and moves on once the last holder lets go", () => {
    const epochs = new EpochTracker();
    epochs.saw(2);
    const first = epochs.hold(2);
    const second = epochs.hold(2);
    epochs.saw(9);
    assert.equal(epochs.announce(), 2);
    first();
    first();
    assert.equal(epochs.announce(), 2, "letting go twice counts once");
    second();
    assert.equal(epochs.announce(), 9);
  });

  it("never falls back behind what it has announced", () => {
    const epochs = new EpochTracker();
    epochs.saw(7);
    assert.equal(epochs.announce(), 7);
    epochs.hold(5);
    assert.equal(epochs.announce(), 7);
    assert.equal(epochs.isVoid(5), true, "an answer that old must not be used");
  });
});
