import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Progress } from "#services/coordinator/jobs.ts";
import { formatProgress, RateMeter } from "./progress-bar.ts";

const MIB = 1024 * 1024;

function progress(given: Partial<Progress>): Progress {
  return {
    phase: "reading",
    bytesDone: 0,
    bytesTotal: 100 * MIB,
    bytesNew: 0,
    bytesKnown: 0,
    bytesSparse: 0,
    ...given,
  };
}

describe("progress", () => {
  it("has share, total, rate, time left, dedup and sparse share", () => {
    const line = formatProgress(
      progress({
        bytesDone: 50 * MIB,
        bytesNew: 10 * MIB,
        bytesKnown: 30 * MIB,
        bytesSparse: 10 * MIB,
      }),
      10 * MIB,
      120,
    );
    assert.equal(
      line,
      "reading [###############...............] 50 % of 100.00 MiB · 10.00 MiB/s · 5s left · dedup 75 % · sparse 20 %",
    );
  });

  it("never says 100 % before the end, nor a time left at the end", () => {
    assert.match(formatProgress(progress({ bytesDone: 100 * MIB - 1 }), 1, 120), / 99 % of /);
    const end = formatProgress(progress({ bytesDone: 100 * MIB }), 10 * MIB, 120);
    assert.match(end, / 100 % of /);
    assert.doesNotMatch(end, /left/);
  });

  it("shows bytes only where the total is unknown, and an empty device as done", () => {
    assert.equal(
      formatProgress(progress({ bytesDone: 3 * MIB, bytesTotal: undefined }), 0, 80),
      "reading 3.00 MiB",
    );
    assert.match(formatProgress(progress({ bytesTotal: 0 }), 0, 80), /100 % of 0 B/);
  });

  it("fits any terminal", () => {
    for (const columns of [1, 10, 20, 40, 79, 200]) {
      const line = formatProgress(progress({ bytesDone: MIB, bytesKnown: MIB }), MIB, columns);
      assert.ok(line.length <= columns, `${line.length} in ${columns}`);
    }
  });
});

describe("the rate", () => {
  it("starts with the first interval and follows slowly", () => {
    const meter = new RateMeter();
    assert.equal(meter.update(0, 0), 0);
    assert.equal(meter.update(1000, 1000), 1000);
    const after = meter.update(2000, 3000);
    assert.ok(after > 1000 && after < 1200, String(after));
  });

  it("stands the same moment twice, and a job that begins anew", () => {
    const meter = new RateMeter();
    meter.update(0, 0);
    meter.update(1000, 1000);
    assert.equal(meter.update(1000, 2000), 1000);
    assert.ok(meter.update(2000, 0) >= 0);
  });
});
