// What every Random must do (lib/ports/random.ts).
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Random } from "#lib/ports/random.ts";

/** Runs the suite against one driver. */
export function describeRandom(driver: string, open: () => Random): void {
  describe(`Random: ${driver}`, () => {
    it("gives as many bytes as asked for, and others each time", () => {
      const random = open();
      for (const count of [0, 1, 7, 8, 33]) assert.equal(random.bytes(count).length, count);
      const seen = new Set(Array.from({ length: 1000 }, () => random.bytes(8).toString("hex")));
      assert.equal(seen.size, 1000);
    });

    it("gives all bytes about as often", () => {
      const counts = Array.from({ length: 256 }, () => 0);
      for (const byte of open().bytes(256 * 400)) counts[byte] = (counts[byte] ?? 0) + 1;
      // 400 each on average, with a deviation of 20: seven of those happen once in 10^11 times.
      for (const count of counts) assert.ok(count > 260 && count < 540, `${count}`);
    });

    it("gives whole numbers below a limit, about as often", () => {
      const random = open();
      for (const limit of [1, 2, 3, 10, 1000]) {
        const counts = new Map<number, number>();
        const rounds = limit * 400;
        for (let round = 0; round < rounds; round++) {
          const value = random.below(limit);
          assert.ok(Number.isInteger(value) && value >= 0 && value < limit);
          counts.set(value, (counts.get(value) ?? 0) + 1);
        }
        assert.equal(counts.size, limit);
        for (const count of counts.values())
          assert.ok((count > 260 && count < 540) || limit < 3, `${count}`);
      }
    });

    it("takes large limits", () => {
      const random = open();
      const values = Array.from({ length: 100 }, () => random.below(2 ** 47));
      assert.ok(values.some((value) => value > 2 ** 45));
      assert.ok(values.every((value) => value < 2 ** 47));
    });
  });
}
