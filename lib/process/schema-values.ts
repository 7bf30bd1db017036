// Values of a configuration: what is allowed is told in the words of the error.
import { z } from "zod";
import { AshlarError } from "#lib/core/errors.ts";
import { parseDuration, parsePercent, parseSize } from "#lib/core/size.ts";

/** A value without parts. `read` answers undefined, or throws AshlarError, for what is not `expected`. */
export function leaf<T>(expected: string, read: (value: unknown) => T | undefined) {
  return z.unknown().transform((value, context): T => {
    let result: T | undefined;
    try {
      result = read(value);
    } catch (error) {
      if (!(error instanceof AshlarError)) throw error;
    }
    if (result !== undefined) return result;
    context.issues.push({
      code: "custom",
      input: value,
      message: `expected ${expected}, ${found(value)}`,
    });
    return z.NEVER;
  });
}

function found(value: unknown): string {
  if (value === undefined) return "but it is missing";
  if (value === null) return "found nothing";
  if (Array.isArray(value)) return "found a list";
  if (typeof value === "object") return "found a section";
  return `found ${JSON.stringify(value)}`;
}

/** A text that the pattern allows. */
export function string(expected: string, allowed = /[^]/) {
  return leaf(expected, (value) =>
    typeof value === "string" && allowed.test(value) ? value : undefined,
  );
}

/** A whole number within bounds. */
export function whole(least: number, most: number) {
  return leaf(`a whole number between ${least} and ${most}`, (value) =>
    typeof value === "number" && Number.isInteger(value) && value >= least && value <= most
      ? value
      : undefined,
  );
}

/** One of some words. */
export function oneOf<const T extends string>(allowed: readonly T[]) {
  return leaf(`one of ${allowed.join(", ")}`, (value) => allowed.find((each) => each === value));
}

/** A number of bytes, written as people do. */
export function size(expected: string, isAllowed: (bytes: number) => boolean) {
  return leaf(expected, (value) => {
    if (typeof value !== "string" && typeof value !== "number") return undefined;
    const bytes = parseSize(String(value));
    return isAllowed(bytes) ? bytes : undefined;
  });
}

const RATE_LEAST = 64 * 1024;
const RATE_MOST = 1024 ** 4;

/** A number of bytes per second, written as a size. */
export function bytesPerSecond() {
  return size(
    "a size between 64KiB and 1TiB",
    (bytes) => bytes >= RATE_LEAST && bytes <= RATE_MOST,
  );
}

/** A time in ms, written as people do. */
export function duration(leastMs: number, mostMs: number, bounds: string) {
  return leaf(`a duration such as 30s, 5m or 24h, ${bounds}`, (value) => {
    if (typeof value !== "string" && value !== 0) return undefined;
    const ms = parseDuration(String(value));
    return ms >= leastMs && ms <= mostMs ? ms : undefined;
  });
}

/** A share between 0 and 1, written in percent. */
export const share = leaf("a percentage such as 0.1%", (value) =>
  typeof value === "string" || typeof value === "number" ? parsePercent(String(value)) : undefined,
);

/** A path. */
export const path = string("a path");
/** What storages may be called. */
export const STORAGE_NAME = /^[a-zA-Z0-9][-a-zA-Z0-9_.]{0,62}$/;
/** In words. */
export const STORAGE_NAME_RULE =
  "a name: up to 63 letters, digits and - _ . that begins with a letter or digit";
/** A storage's name. */
export const storageName = string(STORAGE_NAME_RULE, STORAGE_NAME);

/** What zod's sections and lists say when they find something else. */
export function expecting(expected: string): { error: z.core.$ZodErrorMap } {
  return {
    error: (issue) =>
      issue.code === "invalid_type" ? `expected ${expected}, ${found(issue.input)}` : undefined,
  };
}

/** A section that may be left out, or empty because all that is in it is commented out. */
export function optional<T extends z.ZodType>(schema: T) {
  return z.preprocess((value) => (value === null ? {} : value), schema).prefault({});
}
