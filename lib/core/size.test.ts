import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { AshlarError, ErrorCode } from "./errors.ts";
import {
  formatDuration,
  formatDurationExact,
  formatSize,
  formatSizeExact,
  parseDuration,
  parsePercent,
  parseSize,
} from "./size.ts";

function usage(pattern: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof AshlarError && error.code === ErrorCode.Usage && pattern.test(error.message);
}

describe("sizes", () => {
  it("reads every unit, all of them binary", () => {
    const table: readonly (readonly [string, number])[] = [
      ["0", 0],
      ["512", 512],
      ["512B", 512],
      ["64KiB", 65_536],
      ["64k", 65_536],
      ["4MiB", 4_194_304],
      ["4M", 4_194_304],
      ["4 MiB", 4_194_304],
      ["1gib", 1_073_741_824],
      ["1.5GiB", 1_610_612_736],
      ["16T", 17_592_186_044_416],
      ["1PiB", 1_125_899_906_842_624],
      ["0.3KiB", 307],
    ];
    for (const [text, bytes] of table) assert.equal(parseSize(text), bytes, text);
  });

  it("refuses what is no size and names what it was for", () => {
    for (const text of [
      "",
      "MiB",
      "4MB",
      "64kB",
      "-1",
      "+1",
      "1.GiB",
      "4Mi B",
      "1e3",
      "4 MiB x",
      "١",
      "1,5GiB",
      "0x10",
    ]) {
      assert.throws(
        () => parseSize(text, "block size"),
        usage(/^block size: .* is not a size; expected/),
        text,
      );
    }
    assert.throws(() => parseSize("9PiB"), usage(/larger than/));
  });

  it("prints two decimals, and never 1024.00 of a unit", () => {
    const table: readonly (readonly [number, string])[] = [
      [0, "0 B"],
      [1023, "1023 B"],
      [1024, "1.00 KiB"],
      [1_610_612_736, "1.50 GiB"],
      [1_048_575, "1.00 MiB"],
      [1_048_571, "1.00 MiB"],
      [1_048_565, "1023.99 KiB"],
      [17_592_186_044_416, "16.00 TiB"],
      [-2048, "-2.00 KiB"],
    ];
    for (const [bytes, text] of table) assert.equal(formatSize(bytes), text);
    fc.assert(
      // From 7.995 PiB on the rounded text is beyond what can be counted.
      fc.property(fc.nat(7 * 1024 ** 5), (bytes) => {
        const text = formatSize(bytes);
        assert.doesNotMatch(text, /^1024/);
        assert.ok(Math.abs(parseSize(text) - bytes) <= bytes * 0.01 + 0.5, text);
      }),
    );
  });

  it("prints exactly what it reads back", () => {
    assert.equal(formatSizeExact(4_194_304), "4MiB");
    assert.equal(formatSizeExact(1536 * 1024), "1536KiB");
    assert.equal(formatSizeExact(513), "513");
    fc.assert(fc.property(fc.maxSafeNat(), (bytes) => parseSize(formatSizeExact(bytes)) === bytes));
  });
});

describe("durations", () => {
  it("reads single and compound durations", () => {
    const table: readonly (readonly [string, number])[] = [
      ["0", 0],
      ["0s", 0],
      ["250ms", 250],
      ["30s", 30_000],
      ["5m", 300_000],
      ["2h", 7_200_000],
      ["7d", 604_800_000],
      ["1w", 604_800_000],
      ["1h30m", 5_400_000],
      ["1.5h", 5_400_000],
    ];
    for (const [text, ms] of table) assert.equal(parseDuration(text), ms, text);
  });

  it("refuses a bare number, other units and signs", () => {
    for (const text of ["", "30", "5 m", "5M", "-5m", "5min", "h", "1h-", "1y"]) {
      assert.throws(
        () => parseDuration(text, "sessions.lease"),
        usage(/^sessions\.lease: .* is not a duration/),
        text,
      );
    }
    assert.throws(() => parseDuration("99999999999999w"), usage(/longer than/));
  });

  it("prints for people", () => {
    const table: readonly (readonly [number, string])[] = [
      [0, "0ms"],
      [250, "250ms"],
      [1000, "1s"],
      [3400, "3.4s"],
      [9949, "9.9s"],
      [9960, "10s"],
      [59_600, "1m"],
      [90_000, "1m30s"],
      [3_600_000, "1h"],
      [3_605_000, "1h"],
      [5_400_000, "1h30m"],
      [93_784_000, "1d2h"],
      [-90_000, "-1m30s"],
    ];
    for (const [ms, text] of table) assert.equal(formatDuration(ms), text);
  });

  it("prints exactly what it reads back", () => {
    assert.equal(formatDurationExact(30_000), "30s");
    assert.equal(formatDurationExact(86_400_000), "24h");
    assert.equal(formatDurationExact(172_800_000), "2d");
    assert.equal(formatDurationExact(604_800_000), "7d");
    assert.equal(formatDurationExact(5_400_000), "90m");
    fc.assert(fc.property(fc.maxSafeNat(), (ms) => parseDuration(formatDurationExact(ms)) === ms));
  });
});

describe("percentages", () => {
  it("reads shares, with or without the sign", () => {
    assert.equal(parsePercent("0.1%"), 0.001);
    assert.equal(parsePercent("25"), 0.25);
    assert.equal(parsePercent("100 %"), 1);
    for (const text of ["", "%", "101%", "-1%", "1/2"]) {
      assert.throws(
        () => parsePercent(text, "sample"),
        usage(/^sample: .* is not a percentage/),
        text,
      );
    }
  });
});
