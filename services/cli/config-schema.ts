// What may stand in ashlar.yaml: every key with its bounds and its default. Where a value is wrong, the message says what
// is allowed; config-file.ts adds the place.
import { z } from "zod";
import { closestWord } from "#lib/core/closest-word.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatSizeExact, parseDuration, parsePercent, parseSize } from "#lib/core/size.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const SECOND_MS = 1000;
const HOUR_MS = 3600 * SECOND_MS;
const DAY_MS = 24 * HOUR_MS;

export const BLOCK_BYTES_DEFAULT = 4 * MIB;
export const BLOCK_BYTES_MAX = 16 * MIB;
/** Smaller blocks cost more metadata than they save data. */
export const BLOCK_BYTES_MIN = 64 * KIB;
/** With ASHLAR_TEST_SMALL_BLOCKS=1: tests get trees of many levels out of small images. */
export const BLOCK_BYTES_TEST_MIN = 512;

export const COMPRESSIONS = ["zstd", "lz4", "none"] as const;
export type Compression = (typeof COMPRESSIONS)[number];
export const LOG_LEVELS = ["error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export const LOG_FORMATS = ["text", "json"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** A block size that is allowed, as a sentence for errors and help texts. */
export function blockSizeRule(smallBlocks: boolean): string {
  const least = smallBlocks ? BLOCK_BYTES_TEST_MIN : BLOCK_BYTES_MIN;
  return `a power of two between ${formatSizeExact(least)} and ${formatSizeExact(BLOCK_BYTES_MAX)}`;
}

/** Whether the environment permits block sizes that only tests want. */
export function permitsSmallBlocks(env: Readonly<Record<string, string | undefined>>): boolean {
  return env["ASHLAR_TEST_SMALL_BLOCKS"] === "1";
}

/** Reads a block size (`--block-size`); Usage where it is none. */
export function parseBlockSize(text: string, smallBlocks: boolean): number {
  const bytes = parseSize(text, "block size");
  if (isBlockSize(bytes, smallBlocks)) return bytes;
  throw new AshlarError(
    ErrorCode.Usage,
    `block size: ${JSON.stringify(text)} is not allowed; expected ${blockSizeRule(smallBlocks)}`,
  );
}

function isBlockSize(bytes: number, smallBlocks: boolean): boolean {
  const least = smallBlocks ? BLOCK_BYTES_TEST_MIN : BLOCK_BYTES_MIN;
  return bytes >= least && bytes <= BLOCK_BYTES_MAX && Number.isInteger(Math.log2(bytes));
}

/** A value without parts. `read` answers undefined, or throws AshlarError, for what is not `expected`. */
function leaf<T>(expected: string, read: (value: unknown) => T | undefined) {
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

function string(expected: string, allowed = /[^]/) {
  return leaf(expected, (value) =>
    typeof value === "string" && allowed.test(value) ? value : undefined,
  );
}

function whole(least: number, most: number) {
  return leaf(`a whole number between ${least} and ${most}`, (value) =>
    typeof value === "number" && Number.isInteger(value) && value >= least && value <= most
      ? value
      : undefined,
  );
}

function oneOf<const T extends string>(allowed: readonly T[]) {
  return leaf(`one of ${allowed.join(", ")}`, (value) => allowed.find((each) => each === value));
}

function size(expected: string, isAllowed: (bytes: number) => boolean) {
  return leaf(expected, (value) => {
    if (typeof value !== "string" && typeof value !== "number") return undefined;
    const bytes = parseSize(String(value));
    return isAllowed(bytes) ? bytes : undefined;
  });
}

function duration(leastMs: number, mostMs: number, bounds: string) {
  return leaf(`a duration such as 30s, 5m or 24h, ${bounds}`, (value) => {
    if (typeof value !== "string" && value !== 0) return undefined;
    const ms = parseDuration(String(value));
    return ms >= leastMs && ms <= mostMs ? ms : undefined;
  });
}

const share = leaf("a percentage such as 0.1%", (value) =>
  typeof value === "string" || typeof value === "number" ? parsePercent(String(value)) : undefined,
);

const path = string("a path");
/** What storages may be called. */
export const STORAGE_NAME = /^[a-zA-Z0-9][-a-zA-Z0-9_.]{0,62}$/;
/** In words. */
export const STORAGE_NAME_RULE =
  "a name: up to 63 letters, digits and - _ . that begins with a letter or digit";
const storageName = string(STORAGE_NAME_RULE, STORAGE_NAME);

/** What zod's sections and lists say when they find something else. */
function expecting(expected: string): { error: z.core.$ZodErrorMap } {
  return {
    error: (issue) =>
      issue.code === "invalid_type" ? `expected ${expected}, ${found(issue.input)}` : undefined,
  };
}

/** A section that may be left out, or empty because all that is in it is commented out. */
function optional<T extends z.ZodType>(schema: T) {
  return z.preprocess((value) => (value === null ? {} : value), schema).prefault({});
}

const storageSchema = z.strictObject(
  {
    name: storageName,
    url: string("a URL such as file:///backup, or a path"),
    /** Where it stands; storages of one site may be lost together. */
    site: storageName.optional(),
    simultaneousReads: whole(1, 256).default(8),
    simultaneousWrites: whole(1, 256).default(8),
  },
  expecting("a section with name and url"),
);

function defaultsSchema(smallBlocks: boolean) {
  return z.strictObject(
    {
      blockSize: size(blockSizeRule(smallBlocks), (bytes) =>
        isBlockSize(bytes, smallBlocks),
      ).default(BLOCK_BYTES_DEFAULT),
      compression: oneOf(COMPRESSIONS).default("zstd"),
      compressionLevel: whole(1, 19).default(1),
      quorum: whole(1, 16).default(1),
      /** All storages unless given. */
      storages: z
        .array(storageName, expecting("a list of names of storages"))
        .min(1, "expected at least one storage")
        .optional(),
      hintSample: share.default(0.001),
    },
    expecting("a section"),
  );
}

const sessionsSchema = z.strictObject(
  {
    lease: duration(100, HOUR_MS, "between 100ms and 1h").default(30 * SECOND_MS),
    resumeWindow: duration(0, 365 * DAY_MS, "at most 365d").default(24 * HOUR_MS),
    patience: duration(0, HOUR_MS, "at most 1h").default(30 * SECOND_MS),
  },
  expecting("a section"),
);

const memorySchema = z.strictObject(
  {
    /** For blocks in flight; chosen from the block size and the number of workers unless given. */
    budget: size(
      "a size between 32MiB and 1TiB",
      (bytes) => bytes >= 32 * MIB && bytes <= 1024 ** 4,
    ).optional(),
  },
  expecting("a section"),
);

const logSchema = z.strictObject(
  {
    level: oneOf(LOG_LEVELS).default("info"),
    format: oneOf(LOG_FORMATS).default("text"),
  },
  expecting("a section"),
);

function contentSchema(smallBlocks: boolean) {
  return z.strictObject(
    {
      version: leaf("1, the only version of this format", (value) =>
        value === 1 ? value : undefined,
      ),
      metadata: path,
      keyFile: path.optional(),
      passphraseFile: path.optional(),
      host: string("a host name", /^[-a-zA-Z0-9_.]{1,253}$/).optional(),
      defaults: optional(defaultsSchema(smallBlocks)),
      storages: z
        .array(storageSchema, expecting("a list of storages"))
        .min(1, "expected at least one storage"),
      sessions: optional(sessionsSchema),
      memory: optional(memorySchema),
      log: optional(logSchema),
    },
    expecting("a section with version, metadata and storages"),
  );
}

/** The file's content, checked, with defaults; in ms, bytes and shares; paths as written. */
export type ConfigContent = z.output<ReturnType<typeof contentSchema>>;

/** The whole file. */
export function configSchema(smallBlocks: boolean): z.ZodType<ConfigContent> {
  return contentSchema(smallBlocks).superRefine(checkTogether);
}

type Complain = (path: readonly (string | number)[], message: string) => void;

/** What no key alone can get wrong. */
function checkTogether(content: ConfigContent, context: z.RefinementCtx): void {
  const complain: Complain = (at, message) => {
    context.addIssue({ code: "custom", path: [...at], message });
  };
  if (content.keyFile !== undefined && content.passphraseFile !== undefined) {
    complain(["passphraseFile"], "expected keyFile or passphraseFile, found both");
  }
  const names = content.storages.map(({ name }) => name);
  for (const [index, name] of names.entries()) {
    if (names.indexOf(name) < index) {
      const problem = `the name ${JSON.stringify(name)} is taken by another storage`;
      complain(["storages", index, "name"], problem);
    }
  }
  checkPolicy(content.defaults, names, complain);
}

function checkPolicy(
  { storages, quorum }: ConfigContent["defaults"],
  names: readonly string[],
  complain: Complain,
): void {
  for (const [index, name] of (storages ?? []).entries()) {
    const at = ["defaults", "storages", index];
    if (storages?.indexOf(name) !== index) complain(at, `${name} is listed twice`);
    if (names.includes(name)) continue;
    const similar = closestWord(name, names);
    const advice =
      similar === undefined ? `expected some of ${names.join(", ")}` : `did you mean ${similar}?`;
    complain(at, `there is no storage ${JSON.stringify(name)}; ${advice}`);
  }
  const count = (storages ?? names).length;
  // An empty list has its own complaint.
  if (count > 0 && quorum > count) {
    complain(
      ["defaults", "quorum"],
      `expected at most ${count}, the number of storages that a version goes to, found ${quorum}`,
    );
  }
}

/** The keys that are allowed in the section at `path`; empty where there is no such section. */
export function allowedKeys(schemaPath: readonly PropertyKey[]): readonly string[] {
  const sections: Readonly<Record<string, { readonly shape: object }>> = {
    "": contentSchema(false),
    defaults: defaultsSchema(false),
    storages: storageSchema,
    sessions: sessionsSchema,
    memory: memorySchema,
    log: logSchema,
  };
  return Object.keys(sections[String(schemaPath[0] ?? "")]?.shape ?? {});
}
