import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { matchesLike } from "./like.ts";

/** The textbook definition, by recursion: slow, and obviously right. */
function matchesSlowly(text: string, pattern: string): boolean {
  const [first, ...rest] = pattern;
  if (first === undefined) return text === "";
  const tail = rest.join("");
  if (first === "%") {
    return matchesSlowly(text, tail) || (text !== "" && matchesSlowly(text.slice(1), pattern));
  }
  return text !== "" && (first === "_" || first === text[0]) && matchesSlowly(text.slice(1), tail);
}

describe("like", () => {
  it("knows %, _ and the backslash, minds case, matches the whole", () => {
    assert.ok(matchesLike("vm-1", "vm%"));
    assert.ok(matchesLike("vm-1", "vm-_"));
    assert.ok(!matchesLike("vm-10", "vm-_"));
    assert.ok(!matchesLike("VM-1", "vm%"));
    assert.ok(!matchesLike("a vm-1", "vm%"));
    assert.ok(matchesLike("", "%"));
    assert.ok(!matchesLike("", "_"));
    assert.ok(matchesLike("a_b", String.raw`a\_b`));
    assert.ok(!matchesLike("axb", String.raw`a\_b`));
    assert.ok(matchesLike("100%", String.raw`100\%`));
    assert.ok(matchesLike("a\\b", String.raw`a\\b`));
    assert.ok(matchesLike("a\\b", String.raw`a\b`));
    assert.ok(matchesLike("🧱", "_"));
    assert.ok(matchesLike("a.b", "a.b") && !matchesLike("axb", "a.b"));
  });

  it("agrees with the definition", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 8 });
    const patterns = fc.string({ unit: fc.constantFrom("a", "b", "%", "_"), maxLength: 8 });
    fc.assert(
      fc.property(letters, patterns, (text, pattern) => {
        assert.equal(matchesLike(text, pattern), matchesSlowly(text, pattern));
      }),
      { numRuns: 2000 },
    );
  });

  it("takes no exponential time", () => {
    assert.ok(!matchesLike("a".repeat(5000), `${"%a".repeat(500)}%b`));
  });
});
