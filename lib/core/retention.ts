// Retention: which versions of a volume stay. Rules and results are Benji's, but that invalid versions stand for nothing.
//
// - `latestN` takes the N youngest out first. Each other version falls into the first category (hours, days, weeks, months,
//   years) whose count its age does not exceed. Age is counted in natural boundaries of the local time zone: at 14:05, a
//   version of 13:59 is one hour old. So a category of n has n + 1 buckets, the one of now and n before it.
// - The oldest of a bucket is kept: it is the one that the next, coarser category will want. The others of the bucket go,
//   and so does what is too old for every category.
// - Versions dated in the future are kept, with a warning; protected and incomplete ones are not looked at.
// - An invalid version is never the one that is kept for a bucket, nor one of the latest N: else a damaged version could
//   push the last good one of a day out. It goes when a valid one is kept for its bucket, or when it is too old for every
//   category; otherwise it stays, for what can be salvaged from it may exist nowhere else.
import { DateTime } from "luxon";
import { AshlarError, ErrorCode } from "./errors.ts";
import { closestWord } from "./closest-word.ts";

/** Categories of rules, in the order in which a version is tried against them. */
export const RETENTION_CATEGORIES = [
  "latest",
  "hours",
  "days",
  "weeks",
  "months",
  "years",
] as const;
export type RetentionCategory = (typeof RETENTION_CATEGORIES)[number];
type AgeCategory = Exclude<RetentionCategory, "latest">;

/** Rules: a count for some of the categories. */
export type RetentionRules = ReadonlyMap<RetentionCategory, number>;

const AGE_CATEGORIES: readonly AgeCategory[] = ["hours", "days", "weeks", "months", "years"];
const COUNT_MAX = 1_000_000;

/** What retention asks of a version. */
export interface RetentionVersion {
  readonly uid: string;
  readonly volume: string;
  /** Ms since 1970. */
  readonly date: number;
  readonly status: "incomplete" | "valid" | "invalid";
  readonly protected: boolean;
}

/** What is to become of one version, and why. */
export interface RetentionDecision {
  readonly uid: string;
  readonly volume: string;
  readonly keep: boolean;
  /** A sentence without a full stop, such as `oldest valid version of the day 2026-05-09`. */
  readonly reason: string;
  /** Something is odd about this version that the user should hear of. */
  readonly warning: boolean;
}

/** Reads rules such as `latest3,hours24,days7,weeks4,months12,years2`. Each category at most once, in any order. */
export function parseRetentionRules(text: string): RetentionRules {
  const rules = new Map<RetentionCategory, number>();
  for (const element of text.split(",")) {
    const match = /^([a-z]+)(\d+)$/.exec(element.trim());
    if (match === null) {
      throw rulesError(
        `${JSON.stringify(element)} is no rule; expected a category and a count, as in latest3,hours24,days7`,
      );
    }
    const [, word = "", digits] = match;
    const category = RETENTION_CATEGORIES.find((each) => each === word);
    if (category === undefined) {
      const similar = closestWord(word, RETENTION_CATEGORIES);
      throw rulesError(
        `unknown category "${word}"; ${similar === undefined ? "" : `did you mean ${similar}? `}` +
          `Expected one of ${RETENTION_CATEGORIES.join(", ")}`,
      );
    }
    if (rules.has(category)) throw rulesError(`${category} is given more than once`);
    const count = Number(digits);
    if (count < 1 || count > COUNT_MAX) {
      throw rulesError(
        `the count of ${category} must be between 1 and ${COUNT_MAX}, not ${digits}`,
      );
    }
    rules.set(category, count);
  }
  return rules;
}

function rulesError(message: string): AshlarError {
  return new AshlarError(ErrorCode.Usage, `retention rules: ${message}`);
}

/** When retention is reckoned. */
export interface RetentionTime {
  /** Ms since 1970. */
  readonly now: number;
  /** The IANA time zone of the boundaries; the process' own unless given. */
  readonly zone?: string;
}

/** Decides about every version, each volume for itself. The result is sorted by volume, the youngest version first. */
export function applyRetention(
  rules: RetentionRules,
  versions: readonly RetentionVersion[],
  time: RetentionTime,
): RetentionDecision[] {
  const volumes = Map.groupBy(versions, (version) => version.volume);
  const calendar = new Calendar(rules, time);
  return [...volumes]
    .sort(([a], [b]) => compare(a, b))
    .flatMap(([, ofVolume]) => decideVolume(rules, ofVolume, calendar));
}

function compare(a: string | number, b: string | number): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function decideVolume(
  rules: RetentionRules,
  versions: readonly RetentionVersion[],
  calendar: Calendar,
): RetentionDecision[] {
  // The uid decides between equal dates, so that the same versions always give the same result.
  const youngestFirst = [...versions].sort(
    (a, b) => compare(b.date, a.date) || compare(b.uid, a.uid),
  );
  const considered = youngestFirst.filter(
    (version) => !version.protected && version.status !== "incomplete",
  );
  const valid = considered.filter((version) => version.status === "valid");
  const latest = new Set(valid.slice(0, rules.get("latest") ?? 0));
  const oldestOf = oldestOfBuckets(
    valid.filter((version) => !latest.has(version)),
    calendar,
  );
  const verdict = new Verdict(rules, calendar, valid, latest, oldestOf);
  return youngestFirst.map((version) => verdict.of(version));
}

/** The version that each bucket keeps, among those that `latest` has left. */
function oldestOfBuckets(
  youngestFirst: readonly RetentionVersion[],
  calendar: Calendar,
): ReadonlyMap<string, RetentionVersion> {
  const oldest = new Map<string, RetentionVersion>();
  for (const version of youngestFirst) {
    const bucket = calendar.bucketOf(version);
    if (bucket !== undefined) oldest.set(bucket, version);
  }
  return oldest;
}

/** Says for each version of one volume whether it stays, and why. */
class Verdict {
  readonly #rules: RetentionRules;
  readonly #calendar: Calendar;
  /** How far `latest` reaches back: for ever while there are fewer valid versions than it asks for. */
  readonly #lastOfLatest: number | undefined;
  readonly #latest: ReadonlySet<RetentionVersion>;
  /** By bucket: the oldest valid version. */
  readonly #oldestOf: ReadonlyMap<string, RetentionVersion>;
  /** By bucket: some valid version that is kept, be it as one of the latest. */
  readonly #keptIn: ReadonlyMap<string, RetentionVersion>;

  constructor(
    rules: RetentionRules,
    calendar: Calendar,
    valid: readonly RetentionVersion[],
    latest: ReadonlySet<RetentionVersion>,
    oldestOf: ReadonlyMap<string, RetentionVersion>,
  ) {
    this.#rules = rules;
    this.#calendar = calendar;
    const count = rules.get("latest");
    this.#lastOfLatest =
      count === undefined ? undefined : (valid[count - 1]?.date ?? Number.NEGATIVE_INFINITY);
    this.#latest = latest;
    this.#oldestOf = oldestOf;
    const keptIn = new Map(oldestOf);
    for (const version of latest) {
      const bucket = calendar.bucketOf(version);
      if (bucket !== undefined && !keptIn.has(bucket)) keptIn.set(bucket, version);
    }
    this.#keptIn = keptIn;
  }

  of(version: RetentionVersion): RetentionDecision {
    if (version.protected) return decide(version, true, "protected");
    if (version.status === "incomplete") {
      return decide(version, true, "incomplete: it may be running, or be resumed");
    }
    if (this.#calendar.isFuture(version)) {
      const date = DateTime.fromMillis(version.date, { zone: "utc" }).toISO();
      return { ...decide(version, true, `dated in the future: ${date}`), warning: true };
    }
    return version.status === "valid" ? this.#ofValid(version) : this.#ofInvalid(version);
  }

  #ofValid(version: RetentionVersion): RetentionDecision {
    if (this.#latest.has(version)) {
      const oneOf = this.#latest.size === 1 ? "" : "one of ";
      return decide(version, true, `${oneOf}the ${this.#latestWords()}`);
    }
    const bucket = this.#calendar.bucketOf(version);
    if (bucket === undefined) return decide(version, false, this.#tooOld());
    const kept = this.#oldestOf.get(bucket);
    return kept === version
      ? decide(version, true, `oldest valid version of the ${bucket}`)
      : decide(version, false, `the ${bucket} is kept by ${kept?.uid}`);
  }

  #ofInvalid(version: RetentionVersion): RetentionDecision {
    const last = this.#lastOfLatest;
    if (last !== undefined && version.date >= last) {
      return decide(
        version,
        true,
        `invalid, but younger than the ${this.#latestWords()} reach back`,
      );
    }
    const bucket = this.#calendar.bucketOf(version);
    if (bucket === undefined) return decide(version, false, `invalid, and ${this.#tooOld()}`);
    const kept = this.#keptIn.get(bucket);
    return kept === undefined
      ? decide(
          version,
          true,
          `invalid, but no valid version of the ${bucket} could be kept instead`,
        )
      : decide(version, false, `invalid, and the ${bucket} is kept by ${kept.uid}`);
  }

  #latestWords(): string {
    const count = this.#rules.get("latest") ?? 0;
    return count === 1 ? "latest valid version" : `${count} latest valid versions`;
  }

  #tooOld(): string {
    const words = [...this.#rules].map(([category, count]) => `${category}${count}`).join(",");
    return `older than ${words} reaches back`;
  }
}

function decide(version: RetentionVersion, keep: boolean, reason: string): RetentionDecision {
  return { uid: version.uid, volume: version.volume, keep, reason, warning: false };
}

/** Counts ages in natural boundaries. */
class Calendar {
  readonly #categories: readonly (readonly [AgeCategory, number])[];
  readonly #zone: string;
  readonly #now: number;
  /** By date: every version is asked about several times, and time zones are slow. */
  readonly #buckets = new Map<number, string | undefined>();
  readonly #nowOrdinals: Readonly<Record<AgeCategory, number>>;

  constructor(rules: RetentionRules, time: RetentionTime) {
    this.#categories = AGE_CATEGORIES.flatMap((category) => {
      const count = rules.get(category);
      return count === undefined ? [] : [[category, count] as const];
    });
    this.#zone = time.zone ?? "system";
    this.#now = time.now;
    this.#nowOrdinals = ordinals(this.#local(time.now));
  }

  isFuture(version: RetentionVersion): boolean {
    return version.date > this.#now;
  }

  /** The bucket of a version, as words that name it; undefined where it is too old for every category. */
  bucketOf(version: RetentionVersion): string | undefined {
    if (this.isFuture(version)) return undefined;
    if (!this.#buckets.has(version.date)) {
      this.#buckets.set(version.date, this.#findBucket(this.#local(version.date)));
    }
    return this.#buckets.get(version.date);
  }

  #findBucket(date: DateTime): string | undefined {
    const own = ordinals(date);
    const found = this.#categories.find(
      ([category, count]) => this.#nowOrdinals[category] - own[category] <= count,
    );
    return found === undefined ? undefined : bucketWords(date, found[0]);
  }

  #local(date: number): DateTime {
    return DateTime.fromMillis(date, { zone: this.#zone });
  }
}

/**
 * Numbers the hour, day, … that a time lies in, so that ages are differences. Days and longer are counted on the calendar
 * and not by their length: a day of 23 hours, at the beginning of summer time, is a day. Hours are counted as they pass.
 */
function ordinals(date: DateTime): Readonly<Record<AgeCategory, number>> {
  const day = Date.UTC(date.year, date.month - 1, date.day) / 86_400_000;
  // Where an hour begins is local, too: there are zones half an hour off.
  const hourStart = date.toMillis() - (date.minute * 60 + date.second) * 1000 - date.millisecond;
  return {
    hours: Math.floor(hourStart / 3_600_000),
    days: day,
    // 1970-01-01 was a Thursday; weeks begin on Monday.
    weeks: Math.floor((day + 3) / 7),
    months: date.year * 12 + date.month,
    years: date.year,
  };
}

function bucketWords(date: DateTime, category: AgeCategory): string {
  const day = date.toISODate() ?? "";
  switch (category) {
    case "hours": {
      // With its offset, for an hour comes twice when summer time ends.
      const time = date.toISOTime() ?? "";
      return `hour ${day} ${time.slice(0, 2)}:00${time.slice(12)}`;
    }
    case "days":
      return `day ${day}`;
    case "weeks":
      return `week of ${date.startOf("week").toISODate()}`;
    case "months":
      return `month ${day.slice(0, -3)}`;
    case "years":
      return `year ${day.slice(0, -6)}`;
    default:
      return category satisfies never;
  }
}
