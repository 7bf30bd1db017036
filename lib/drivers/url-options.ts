// Options in the URL of a storage, `?name=value&other=value`: what each may be, and what is said of one that is wrong.
import { closestWord } from "#lib/core/closest-word.ts";
import type { AshlarError } from "#lib/core/errors.ts";
import { formatDuration, parseDuration } from "#lib/core/size.ts";

/** One option. */
export interface UrlOption<T> {
  /** What it may be, in words. */
  readonly expected: string;
  /** Undefined where the text is something else. */
  readonly read: (text: string) => T | undefined;
  /** It names a file; it must be absolute in a URL. */
  readonly isFile?: true;
}

/** The options of a kind of storage, by name. */
export type UrlOptions = Readonly<Record<string, UrlOption<unknown>>>;

/** What was given of them. */
export type UrlOptionValues<Options extends UrlOptions> = {
  [K in keyof Options]?: ReturnType<Options[K]["read"]>;
};

/** Makes the error for a URL that is none. */
export type WrongUrl = (problem: string) => AshlarError;

/** A text of a certain form. */
export const textOption = (expected: string, allowed: RegExp): UrlOption<string> => ({
  expected,
  read: (value) => (allowed.test(value) ? value : undefined),
});

/** One of some words. */
export const wordOption = <const T extends string>(words: readonly T[]): UrlOption<T> => ({
  expected: `one of ${words.join(", ")}`,
  read: (value) => words.find((word) => word === value),
});

/** Yes or no. */
export const flagOption: UrlOption<boolean> = {
  expected: "true or false",
  read: (value) => (value === "true" ? true : value === "false" ? false : undefined),
};

/** The path of a file. */
export const fileOption: UrlOption<string> = {
  expected: "the absolute path of a file",
  read: (value) => (value.startsWith("/") ? value : undefined),
  isFile: true,
};

/** A whole number between two others. */
export const wholeOption = (least: number, most: number): UrlOption<number> => ({
  expected: `a whole number between ${least} and ${most}`,
  read: (value) => {
    const number = /^\d{1,6}$/.test(value) ? Number(value) : Number.NaN;
    return number >= least && number <= most ? number : undefined;
  },
});

/** A duration, in ms, between two others. */
export const durationOption = (leastMs: number, mostMs: number): UrlOption<number> => ({
  expected: `a duration between ${formatDuration(leastMs)} and ${formatDuration(mostMs)}, such as 30s`,
  read: (value) => {
    try {
      const ms = parseDuration(value);
      return ms >= leastMs && ms <= mostMs ? ms : undefined;
    } catch {
      return undefined;
    }
  },
});

/** Where a service answers. */
export const endpointOption: UrlOption<string> = {
  expected: "an http or https URL without path",
  read: (value) => (isEndpoint(value) ? value : undefined),
};

function isEndpoint(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const { protocol, pathname, search, username } = new URL(value);
  return (
    ["http:", "https:"].includes(protocol) && pathname === "/" && search === "" && username === ""
  );
}

/** The options that name files, which a configuration may write relative to itself. */
export function fileOptionsOf(options: UrlOptions): readonly string[] {
  return Object.entries(options).flatMap(([name, { isFile }]) => (isFile === true ? [name] : []));
}

/** Reads what a URL gives; throws what `wrong` makes for one that there is not, is there twice, or is something else. */
export function readUrlOptions<Options extends UrlOptions>(
  options: Options,
  params: URLSearchParams,
  wrong: WrongUrl,
): UrlOptionValues<Options> {
  const values: Record<string, unknown> = {};
  for (const [name, text] of params) {
    const option = Object.hasOwn(options, name) ? options[name] : undefined;
    if (option === undefined) throw wrong(noSuchOption(name, Object.keys(options)));
    if (name in values) throw wrong(`the option ${name} is there twice`);
    const value = option.read(text);
    if (value === undefined) {
      // Somebody may have written what belongs into the file.
      const found = option.isFile === true ? "something else" : JSON.stringify(text);
      throw wrong(`option ${name}: expected ${option.expected}, found ${found}`);
    }
    values[name] = value;
  }
  return values as UrlOptionValues<Options>;
}

function noSuchOption(name: string, known: readonly string[]): string {
  const similar = closestWord(name, known);
  const advice =
    similar === undefined ? `there are ${known.join(", ")}` : `did you mean ${similar}?`;
  return `there is no option ${JSON.stringify(name)}; ${advice}`;
}
