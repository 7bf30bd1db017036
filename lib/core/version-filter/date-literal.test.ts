import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseDateLiteral } from "./date-literal.ts";

// A Saturday, 16:23 in Berlin (summer time).
const NOW = Date.parse("2026-05-09T14:23:45.678Z");

function read(text: string, zone = "Europe/Berlin", now = NOW): string | undefined {
  const date = parseDateLiteral(text, now, zone);
  return date === undefined ? undefined : new Date(date).toISOString();
}

describe("date literals", () => {
  it("reads ISO 8601; without a zone it is local time, without a time the day's beginning", () => {
    const table: readonly (readonly [string, string])[] = [
      ["2024-01-31", "2024-01-30T23:00:00.000Z"],
      ["2024-07-31", "2024-07-30T22:00:00.000Z"],
      ["2024-01-31T10:00:00Z", "2024-01-31T10:00:00.000Z"],
      ["2024-01-31T10:00:00+02:00", "2024-01-31T08:00:00.000Z"],
      ["2024-01-31T10:00:00.250", "2024-01-31T09:00:00.250Z"],
      ["2024-01-31 10:00", "2024-01-31T09:00:00.000Z"],
      ["20240131T1000Z", "2024-01-31T10:00:00.000Z"],
      ["2024", "2023-12-31T23:00:00.000Z"],
      ["2024-03", "2024-02-29T23:00:00.000Z"],
    ];
    for (const [text, expected] of table) assert.equal(read(text), expected, text);
  });

  it("reads what is relative to now, and keeps the time of day", () => {
    const table: readonly (readonly [string, string])[] = [
      ["now", "2026-05-09T14:23:45.678Z"],
      ["2 hours ago", "2026-05-09T12:23:45.678Z"],
      ["5 min ago", "2026-05-09T14:18:45.678Z"],
      ["1 week ago", "2026-05-02T14:23:45.678Z"],
      ["1 Week Ago", "2026-05-02T14:23:45.678Z"],
      ["1 month ago", "2026-04-09T14:23:45.678Z"],
      ["a year ago", "2025-05-09T14:23:45.678Z"],
      ["last month", "2026-04-09T14:23:45.678Z"],
      ["in 2 weeks", "2026-05-23T14:23:45.678Z"],
      // Winter time then: the same time of day, an hour later on the world's clock.
      ["3 months ago", "2026-02-09T15:23:45.678Z"],
    ];
    for (const [text, expected] of table) assert.equal(read(text), expected, text);
  });

  it("reads names of days at their beginning", () => {
    const table: readonly (readonly [string, string])[] = [
      ["today", "2026-05-08T22:00:00.000Z"],
      ["yesterday", "2026-05-07T22:00:00.000Z"],
      ["yesterday 10:00", "2026-05-08T08:00:00.000Z"],
      ["yesterday at noon", "2026-05-08T10:00:00.000Z"],
      ["tomorrow", "2026-05-09T22:00:00.000Z"],
      ["last friday", "2026-05-07T22:00:00.000Z"],
      ["31 January 2024", "2024-01-30T23:00:00.000Z"],
      ["March 2025", "2025-02-28T23:00:00.000Z"],
    ];
    for (const [text, expected] of table) assert.equal(read(text), expected, text);
  });

  it("takes what is named incompletely for the past, unless it says otherwise", () => {
    const table: readonly (readonly [string, string])[] = [
      ["monday", "2026-05-03T22:00:00.000Z"],
      ["next monday", "2026-05-10T22:00:00.000Z"],
      ["June", "2025-05-31T22:00:00.000Z"],
      ["March", "2026-02-28T23:00:00.000Z"],
      ["10 June", "2025-06-09T22:00:00.000Z"],
      ["14:00", "2026-05-09T12:00:00.000Z"],
      ["18:00", "2026-05-08T16:00:00.000Z"],
      ["noon", "2026-05-09T10:00:00.000Z"],
    ];
    for (const [text, expected] of table) assert.equal(read(text), expected, text);
  });

  it("refuses what is no date, more than a date, and ranges", () => {
    for (const text of [
      "",
      "foo",
      "2024-02-30",
      "1 week ago or so",
      "since yesterday",
      "2024-01-01 to 2024-02-01",
      "10 days",
      "2024-13-01",
    ]) {
      assert.equal(read(text), undefined, text);
    }
  });

  it("does not depend on the machine's own zone", () => {
    assert.equal(read("2024-01-31", "America/New_York"), "2024-01-31T05:00:00.000Z");
    assert.equal(read("yesterday", "Pacific/Auckland"), "2026-05-08T12:00:00.000Z");
    assert.equal(read("1 week ago", "Asia/Kolkata"), "2026-05-02T14:23:45.678Z");
  });
});
