// Sizes, durations and percentages as people write and read them. Units of size are binary: a block device is counted
// in powers of two, so `4M` and `4MiB` are the same number here. `4MB` would be 4,000,000 to some: it is refused.
import { AshlarError, ErrorCode } from "./errors.ts";

const SIZE_TEXT = /^(\d+(?:\.\d+)?)\s*(?:([kmgtp])(?:ib)?|b)?$/i;
const SIZE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;
const SIZE_LETTERS = "kmgtp";

/**
 * Reads a size in bytes: `512`, `64KiB`, `4MiB`, `1.5GiB`, `4M`. A fraction of a byte is dropped.
 * @param what what the size is for, as the error names it
 */
export function parseSize(text: string, what = "size"): number {
  const match = SIZE_TEXT.exec(text.trim());
  if (match === null) {
    throw new AshlarError(
      ErrorCode.Usage,
      `${what}: ${JSON.stringify(text)} is not a size; expected a number of bytes such as 512, 64KiB, 4MiB or 1.5GiB`,
    );
  }
  const letter = match[2];
  const exponent = letter === undefined ? 0 : SIZE_LETTERS.indexOf(letter.toLowerCase()) + 1;
  const bytes = Math.floor(Number(match[1]) * 1024 ** exponent);
  if (!Number.isSafeInteger(bytes)) {
    throw new AshlarError(
      ErrorCode.Usage,
      `${what}: ${JSON.stringify(text)} is larger than Ashlar can count`,
    );
  }
  return bytes;
}

/** Prints a size for people: `512 B`, `1.50 GiB`. */
export function formatSize(bytes: number): string {
  const sign = bytes < 0 ? "-" : "";
  let value = Math.abs(bytes);
  let unit = 0;
  // 1023.995 would print as 1024.00, so the next unit begins there.
  while (value >= (unit === 0 ? 1024 : 1023.995) && unit < SIZE_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${sign}${unit === 0 ? String(Math.round(value)) : value.toFixed(2)} ${SIZE_UNITS[unit]}`;
}

/** Prints a size without loss, as a configuration holds it: `4MiB`, `1536KiB`, `513`. */
export function formatSizeExact(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value !== 0 && value % 1024 === 0 && unit < SIZE_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? String(bytes) : `${value}${SIZE_UNITS[unit]}`;
}

const DURATION_TEXT = /^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+$/;
const DURATION_PART = /(\d+(?:\.\d+)?)(ms|s|m|h|d|w)/g;
const DURATION_UNITS: readonly (readonly [name: string, ms: number])[] = [
  ["w", 604_800_000],
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1000],
  ["ms", 1],
];
const DURATION_MS: ReadonlyMap<string, number> = new Map(DURATION_UNITS);

/**
 * Reads a duration in milliseconds: `30s`, `5m`, `2h`, `7d`, `1h30m`. A number without a unit is refused, for nobody
 * can tell whether it means seconds.
 * @param what what the duration is for, as the error names it
 */
export function parseDuration(text: string, what = "duration"): number {
  const trimmed = text.trim();
  let ms = 0;
  if (trimmed !== "0") {
    if (!DURATION_TEXT.test(trimmed)) {
      throw new AshlarError(
        ErrorCode.Usage,
        `${what}: ${JSON.stringify(text)} is not a duration; expected a number and a unit (ms, s, m, h, d, w) such as 30s, 5m, 2h or 1h30m`,
      );
    }
    for (const [, amount, unit] of trimmed.matchAll(DURATION_PART)) {
      ms += Number(amount) * (DURATION_MS.get(unit ?? "") ?? Number.NaN);
    }
  }
  const rounded = Math.round(ms);
  if (!Number.isSafeInteger(rounded)) {
    throw new AshlarError(
      ErrorCode.Usage,
      `${what}: ${JSON.stringify(text)} is longer than Ashlar can count`,
    );
  }
  return rounded;
}

/** Prints a duration for people, in its two largest units: `250ms`, `3.4s`, `1h30m`, `2d`. */
export function formatDuration(ms: number): string {
  const sign = ms < 0 ? "-" : "";
  const value = Math.abs(ms);
  if (value < 1000) return `${sign}${Math.round(value)}ms`;
  // Below ten seconds a tenth is worth reading; 9.96 s rounds to the form that follows.
  if (value < 9950) return `${sign}${(value / 1000).toFixed(1).replace(/\.0$/, "")}s`;
  const seconds = Math.round(value / 1000);
  const parts: readonly (readonly [number, string])[] = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "m"],
    [seconds % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  return (
    sign +
    parts
      .slice(first, first + 2)
      .filter(([count]) => count > 0)
      .map(([count, unit]) => `${count}${unit}`)
      .join("")
  );
}

/** Prints a whole number of milliseconds without loss in one unit, as a configuration holds it: `30s`, `90m`, `24h`. */
export function formatDurationExact(ms: number): string {
  if (ms === 0) return "0s";
  for (const [name, unitMs] of DURATION_UNITS) {
    // A day of backups is thought of in hours ("24h"), and a week in days: the larger unit only where it is a plural.
    if (ms % unitMs === 0 && (ms >= 2 * unitMs || unitMs <= 3_600_000))
      return `${ms / unitMs}${name}`;
  }
  return `${ms}ms`;
}

const PERCENT_TEXT = /^(\d+(?:\.\d+)?)\s*%?$/;

/**
 * Reads a percentage (`0.1%`, or `0.1`, which means the same) as a share between 0 and 1.
 * @param what what the percentage is for, as the error names it
 */
export function parsePercent(text: string, what = "percentage"): number {
  const match = PERCENT_TEXT.exec(text.trim());
  const percent = match === null ? Number.NaN : Number(match[1]);
  if (!(percent <= 100)) {
    throw new AshlarError(
      ErrorCode.Usage,
      `${what}: ${JSON.stringify(text)} is not a percentage; expected 0% to 100%, such as 0.1%`,
    );
  }
  return percent / 100;
}
