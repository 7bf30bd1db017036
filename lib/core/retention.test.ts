import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { DateTime } from "luxon";
import type { DateTimeUnit, DurationLikeObject } from "luxon";
import { AshlarError, ErrorCode } from "./errors.ts";
import { applyRetention, parseRetentionRules } from "./retention.ts";
import type { RetentionDecision, RetentionVersion } from "./retention.ts";

const NOW = Date.parse("2019-05-09T00:00:00Z");
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

function version(date: number, more: Partial<RetentionVersion> = {}): RetentionVersion {
  return {
    uid: `vm-${new Date(date).toISOString()}`,
    volume: "vm",
    date,
    status: "valid",
    protected: false,
    ...more,
  };
}

function at(iso: string, more: Partial<RetentionVersion> = {}): RetentionVersion {
  return version(Date.parse(iso), more);
}

/** 90 days of a version every 15 minutes, up to now. */
const NINETY_DAYS = Array.from({ length: 8641 }, (_, index) => version(NOW - index * 15 * MINUTE));

function decisions(
  rules: string,
  versions: readonly RetentionVersion[],
  now = NOW,
  zone = "UTC",
): RetentionDecision[] {
  return applyRetention(parseRetentionRules(rules), versions, { now, zone });
}

function kept(
  rules: string,
  versions: readonly RetentionVersion[],
  now = NOW,
  zone = "UTC",
): RetentionVersion[] {
  const uids = new Set(
    decisions(rules, versions, now, zone)
      .filter((decision) => decision.keep)
      .map((decision) => decision.uid),
  );
  return versions.filter((each) => uids.has(each.uid));
}

const UNITS: readonly (readonly [string, DateTimeUnit, keyof DurationLikeObject])[] = [
  ["hours", "hour", "hours"],
  ["days", "day", "days"],
  ["weeks", "week", "weeks"],
  ["months", "month", "months"],
  ["years", "year", "years"],
];

/**
 * The rules by brute force, for valid versions in the past: lists the intervals of all buckets on the calendar, and lets
 * every version look for the first that it lies in.
 */
function keptByBruteForce(
  rules: string,
  versions: readonly RetentionVersion[],
  now: number,
  zone: string,
): string[] {
  const counts = new Map(
    rules.split(",").map((rule) => [rule.replace(/\d/g, ""), Number(rule.replace(/\D/g, ""))]),
  );
  const intervals: { start: number; end: number; oldest?: RetentionVersion }[] = [];
  for (const [category, unit, plural] of UNITS) {
    const start = DateTime.fromMillis(now, { zone }).startOf(unit);
    for (let back = 0; back <= (counts.get(category) ?? -1); back += 1) {
      intervals.push({
        start: start.minus({ [plural]: back }).toMillis(),
        end: start.minus({ [plural]: back - 1 }).toMillis(),
      });
    }
  }
  const youngestFirst = [...versions].sort((a, b) => b.date - a.date);
  const result = youngestFirst.splice(0, counts.get("latest") ?? 0).map((each) => each.uid);
  for (const each of youngestFirst) {
    const interval = intervals.find(({ start, end }) => start <= each.date && each.date < end);
    if (interval !== undefined) interval.oldest = each;
  }
  for (const { oldest } of intervals) if (oldest !== undefined) result.push(oldest.uid);
  return result.sort();
}

describe("retention rules", () => {
  it("are read in any order", () => {
    assert.deepEqual(
      [...parseRetentionRules("latest3,hours24,days7,weeks4,months12,years2")],
      [
        ["latest", 3],
        ["hours", 24],
        ["days", 7],
        ["weeks", 4],
        ["months", 12],
        ["years", 2],
      ],
    );
    assert.deepEqual(parseRetentionRules("days7, latest3").get("latest"), 3);
  });

  it("are refused where they are none", () => {
    const table: readonly (readonly [string, RegExp])[] = [
      ["", /"" is no rule; expected a category and a count/],
      ["latest3,", /"" is no rule/],
      ["latest", /"latest" is no rule/],
      ["3days", /is no rule/],
      ["days-1", /is no rule/],
      ["Days1", /is no rule/],
      ["day7", /unknown category "day"; did you mean days\?/],
      ["decades1", /unknown category "decades"; .*Expected one of latest, hours/],
      ["days7,days8", /days is given more than once/],
      ["days0", /the count of days must be between 1 and/],
      ["days99999999999", /must be between/],
    ];
    for (const [text, message] of table) {
      assert.throws(
        () => parseRetentionRules(text),
        (error) =>
          error instanceof AshlarError &&
          error.code === ErrorCode.Usage &&
          message.test(error.message),
        text,
      );
    }
  });
});

describe("retention of 90 days of a version every 15 minutes", () => {
  // The figures are Benji's own.
  const FIGURES: readonly (readonly [string, number])[] = [
    ["latest3", 3],
    ["latest10", 10],
    ["hours12", 13],
    ["hours25", 26],
    ["days15", 16],
    ["days31", 32],
    ["weeks4", 5],
    ["months1", 2],
    ["months2", 3],
    ["years1", 1],
    ["latest3,months2", 6],
    ["latest3,hours24,days3", 29],
    ["latest3,hours48,days3", 52],
    ["latest3,hours48,days3,months2", 55],
    ["latest3,hours48,days30,months2", 81],
  ];

  it("keeps what Benji keeps, and filtering again changes nothing", () => {
    for (const [rules, count] of FIGURES) {
      const remaining = kept(rules, NINETY_DAYS);
      assert.equal(remaining.length, count, rules);
      assert.deepEqual(
        remaining.map((each) => each.uid).sort(),
        keptByBruteForce(rules, NINETY_DAYS, NOW, "UTC"),
        rules,
      );
      assert.equal(kept(rules, remaining).length, count, `${rules}, again`);
    }
  });

  it("lets one version go each hour as the window moves", () => {
    let remaining = kept("hours30", NINETY_DAYS);
    assert.equal(remaining.length, 31);
    for (let hour = 1; hour <= 30; hour += 1) {
      const now = NOW + hour * HOUR;
      const after = kept("hours30", remaining, now);
      const gone = remaining.filter((each) => !after.includes(each));
      assert.equal(gone.length, 1);
      assert.ok(now - gone[0]!.date >= 31 * HOUR);
      remaining = after;
    }
    assert.equal(remaining.length, 1);
  });
});

describe("retention over half a year, enforced every hour", () => {
  it("always has one version per bucket, and those that Benji has", () => {
    const rules = "latest8,hours48,days7,weeks4,months2,years1";
    let remaining = [...NINETY_DAYS];
    for (let hour = 0; hour < 4464; hour += 1) {
      const now = NOW + hour * HOUR;
      // The oracle is slow, so it looks at every 20th hour.
      const expected = hour % 20 === 0 ? keptByBruteForce(rules, remaining, now, "UTC") : undefined;
      remaining = kept(rules, remaining, now);
      if (expected !== undefined)
        assert.deepEqual(remaining.map((each) => each.uid).sort(), expected);
      const days = remaining.filter(
        (each) => now - each.date < 8 * DAY && now - each.date > 3 * DAY,
      );
      assert.ok(days.length >= 4 && days.length <= 6, `${days.length} in hour ${hour}`);
      // 8 latest, hours 2 to 48, days 2 to 7, and what reaches further back.
      assert.ok(remaining.length >= 8 + 46 + 5 && remaining.length <= 8 + 47 + 6 + 4 + 2 + 1);
      remaining.push(...[15, 30, 45, 60].map((minute) => version(now + minute * MINUTE)));
    }
  });
});

describe("retention in local time", () => {
  it("has days and weeks of the calendar, also where they have 23 or 25 hours", () => {
    const now = Date.parse("2026-04-01T10:00:00Z");
    const versions = Array.from({ length: 4 * 24 }, (_, index) => version(now - index * HOUR));
    const local = kept("days2", versions, now, "Europe/Berlin").map((each) => each.uid);
    assert.deepEqual(local, [
      "vm-2026-03-31T22:00:00.000Z",
      "vm-2026-03-30T22:00:00.000Z",
      "vm-2026-03-29T22:00:00.000Z",
    ]);
    // Summer time began on the 29th: that day had 23 hours and is a bucket nonetheless.
    assert.equal(
      kept("days3", versions, now, "Europe/Berlin").at(-1)?.uid,
      "vm-2026-03-28T23:00:00.000Z",
    );
  });

  it("tells the hour that comes twice apart", () => {
    const now = Date.parse("2026-10-25T03:30:00Z");
    const versions = [at("2026-10-25T00:10:00Z"), at("2026-10-25T01:10:00Z")];
    assert.equal(kept("hours5", versions, now, "Europe/Berlin").length, 2);
  });

  it("agrees with brute force, in any zone, whatever the rules and dates", () => {
    const rule = fc.uniqueArray(
      fc.tuple(
        fc.constantFrom("latest", "hours", "days", "weeks", "months", "years"),
        fc.integer({ min: 1, max: 9 }),
      ),
      { selector: ([category]) => category, minLength: 1 },
    );
    // Whole minutes around both changes of summer time, and two years back.
    const minutes = fc.uniqueArray(fc.oneof(fc.nat(4 * 24 * 60), fc.nat(2 * 366 * 24 * 60)), {
      maxLength: 60,
    });
    const nows = fc.constantFrom(
      "2026-03-30T12:34:56Z",
      "2026-10-26T00:00:00Z",
      "2024-02-29T23:59:59Z",
      "2026-01-01T00:00:00Z",
    );
    const zones = fc.constantFrom(
      "UTC",
      "Europe/Berlin",
      "America/New_York",
      "Asia/Kolkata",
      "Pacific/Auckland",
    );
    fc.assert(
      fc.property(rule, minutes, nows, zones, (pairs, ages, iso, zone) => {
        const now = Date.parse(iso);
        const rules = pairs.map(([category, count]) => `${category}${count}`).join(",");
        const versions = ages.map((age) => version(now - age * MINUTE));
        const remaining = kept(rules, versions, now, zone);
        assert.deepEqual(
          remaining.map((each) => each.uid).sort(),
          keptByBruteForce(rules, versions, now, zone),
        );
        assert.deepEqual(kept(rules, remaining, now, zone), remaining);
      }),
      { numRuns: 300 },
    );
  });
});

describe("retention", () => {
  const now = Date.parse("2026-05-09T14:05:00Z");

  function reasons(
    rules: string,
    versions: readonly RetentionVersion[],
  ): [string, boolean, string][] {
    return decisions(rules, versions, now).map(({ uid, keep, reason }) => [uid, keep, reason]);
  }

  it("says why, youngest first, each volume for itself", () => {
    const versions = [
      at("2026-05-09T14:00:00Z", { uid: "a", volume: "v2" }),
      at("2026-05-08T10:00:00Z", { uid: "b" }),
      at("2026-05-08T09:00:00Z", { uid: "c" }),
      at("2026-05-09T13:59:00Z", { uid: "d" }),
      at("2020-01-01T00:00:00Z", { uid: "e" }),
      at("2020-01-01T00:00:00Z", { uid: "f", protected: true }),
      at("2020-01-01T00:00:00Z", { uid: "g", status: "incomplete" }),
      at("2026-05-09T14:05:01Z", { uid: "h" }),
    ];
    assert.deepEqual(
      reasons("hours1,days3", versions),
      [
        ["a", true, "oldest valid version of the hour 2026-05-09 14:00Z"],
        ["h", true, "dated in the future: 2026-05-09T14:05:01.000Z"],
        ["d", true, "oldest valid version of the hour 2026-05-09 13:00Z"],
        ["b", false, "the day 2026-05-08 is kept by c"],
        ["c", true, "oldest valid version of the day 2026-05-08"],
        ["g", true, "incomplete: it may be running, or be resumed"],
        ["f", true, "protected"],
        ["e", false, "older than hours1,days3 reaches back"],
      ].map(([uid, keep, reason]) => [uid, keep, reason]) as [string, boolean, string][],
    );
    assert.deepEqual(
      decisions("latest1,hours1", versions, now)
        .filter((decision) => decision.warning)
        .map((decision) => decision.uid),
      ["h"],
    );
  });

  it("lets a version of the future take a place among the latest, as Benji does", () => {
    const versions = [
      at("2026-06-01T00:00:00Z", { uid: "later" }),
      at("2026-05-09T14:00:00Z", { uid: "now" }),
    ];
    assert.deepEqual(
      kept("latest1", versions, now).map((each) => each.uid),
      ["later"],
    );
  });

  it("never keeps an invalid version for a bucket that has a valid one", () => {
    const invalid = { status: "invalid" } as const;
    const versions = [
      at("2026-05-09T10:00:00Z", { uid: "good" }),
      at("2026-05-09T09:00:00Z", { uid: "bad", ...invalid }),
      at("2026-05-08T10:00:00Z", { uid: "alone", ...invalid }),
      at("2026-05-08T09:00:00Z", { uid: "alone too", ...invalid }),
      at("2026-04-08T09:00:00Z", { uid: "old", ...invalid }),
    ];
    assert.deepEqual(reasons("days3", versions), [
      ["good", true, "oldest valid version of the day 2026-05-09"],
      ["bad", false, "invalid, and the day 2026-05-09 is kept by good"],
      ["alone", true, "invalid, but no valid version of the day 2026-05-08 could be kept instead"],
      [
        "alone too",
        true,
        "invalid, but no valid version of the day 2026-05-08 could be kept instead",
      ],
      ["old", false, "invalid, and older than days3 reaches back"],
    ]);
  });

  it("does not count invalid versions among the latest, and keeps those in between", () => {
    const invalid = { status: "invalid" } as const;
    const versions = [
      at("2026-05-09T14:04:00Z", { uid: "1", ...invalid }),
      at("2026-05-09T14:03:00Z", { uid: "2" }),
      at("2026-05-09T14:02:00Z", { uid: "3", ...invalid }),
      at("2026-05-09T14:01:00Z", { uid: "4" }),
      at("2026-05-09T14:00:00Z", { uid: "5", ...invalid }),
      at("2026-05-09T13:00:00Z", { uid: "6" }),
    ];
    assert.deepEqual(
      kept("latest2,hours3", versions, now).map((each) => each.uid),
      ["1", "2", "3", "4", "6"],
    );
    assert.equal(
      reasons("latest2,hours3", versions)[4]?.[2],
      "invalid, and the hour 2026-05-09 14:00Z is kept by 2",
    );
    assert.equal(kept("latest4", versions, now).length, 6);
  });

  it("decides about valid versions as if there were no invalid ones, and never twice differently", () => {
    const minutes = fc.uniqueArray(fc.nat(6 * 24 * 60), { maxLength: 40 });
    fc.assert(
      fc.property(
        minutes,
        fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }),
        (ages, bad) => {
          const rules = "latest2,hours20,days3";
          const versions = ages.map((age, index) =>
            version(now - age * MINUTE, bad[index] ? { status: "invalid" } : {}),
          );
          const valid = versions.filter((each) => each.status === "valid");
          const remaining = kept(rules, versions, now);
          assert.deepEqual(
            remaining.filter((each) => each.status === "valid"),
            kept(rules, valid, now),
          );
          assert.deepEqual(kept(rules, remaining, now), remaining);
        },
      ),
    );
  });
});
