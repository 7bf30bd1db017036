import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { systemRandom } from "./system-random.ts";

describe("the system's randomness", () => {
  it("gives each its own bytes", () => {
    const random = systemRandom();
    for (const count of [4, 8, 16, 17, 5000]) {
      const seen = new Set<string>();
      const views = Array.from({ length: 2000 }, () => random.bytes(count));
      for (const bytes of views) {
        assert.equal(bytes.length, count);
        seen.add(bytes.toString("hex"));
      }
      // Of four bytes two may be alike by chance.
      assert.ok(seen.size >= 1998, `${seen.size} different ones of ${count} bytes`);
    }
  });
});
