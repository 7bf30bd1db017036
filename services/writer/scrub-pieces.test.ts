import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import type { ScrubCopy } from "./scrub-copies.ts";
import { cutPieces, PieceWindow } from "./scrub-pieces.ts";

const MIB = 1024 * 1024;

const copy = (at: number, storedBytes: number, other: Partial<ScrubCopy> = {}): ScrubCopy => ({
  kind: "block",
  id: `id${at}` as BlockId,
  storage: "a" as StorageId,
  generation: "g" as Generation,
  plainBytes: storedBytes,
  storedBytes,
  state: "placed",
  verifiedMs: 0,
  ...other,
});

const cut = (copies: readonly ScrubCopy[]): string[] =>
  [...cutPieces(copies)].map(
    ({ storage, bad, copies: own }) =>
      `${storage}${bad ? " bad" : ""}: ${own.map(({ id }) => id).join(" ")}`,
  );

describe("a piece of a scrub", () => {
  it("has at most so many bytes, or one copy, and keeps the order", () => {
    assert.deepEqual(cut([]), []);
    assert.deepEqual(
      cut([copy(0, 30 * MIB), copy(1, 34 * MIB), copy(2, 1), copy(3, 90 * MIB), copy(4, 1)]),
      ["a: id0 id1", "a: id2", "a: id3", "a: id4"],
    );
  });

  it("is of one storage, and of bad copies or none", () => {
    const b = { storage: "b" as StorageId };
    assert.deepEqual(
      cut([copy(0, 1), copy(1, 1, b), copy(2, 1, { state: "bad" }), copy(3, 1), copy(4, 1, b)]),
      ["a: id0 id3", "b: id1 id4", "a bad: id2"],
    );
  });
});

describe("the window of pieces under way", () => {
  /** Answers of so many writers with places for four pieces each, all of the same work. */
  function settled(writers: number, workMs: number): number {
    const window = new PieceWindow();
    for (let round = 0; round < 1000; round += 1) {
      const rounds = Math.max(1, window.size / (writers * 4));
      window.answered(workMs, workMs * rounds + 5);
    }
    return window.size;
  }

  it("gives all writers something to do, and lets little wait", () => {
    for (const [writers, workMs] of [
      [1, 3000],
      [3, 3000],
      [5, 800],
    ] as const) {
      const size = settled(writers, workMs);
      assert.ok(size >= writers * 4 && size <= writers * 8, `${size} for ${writers} writers`);
    }
    assert.equal(settled(100, 3000), 64);
  });

  it("becomes smaller when writers leave, and never nothing", () => {
    const window = new PieceWindow();
    for (let answer = 0; answer < 100; answer += 1) window.answered(1000, 1000);
    assert.equal(window.size, 64);
    for (let answer = 0; answer < 100; answer += 1) window.answered(1000, 9000);
    assert.equal(window.size, 2);
  });
});
