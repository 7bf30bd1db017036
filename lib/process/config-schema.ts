// What may stand in ashlar.yaml: every key with its bounds and its default. Where a value is wrong, the message says what
// is allowed; config-file.ts adds the place.
import { z } from "zod";
import { closestWord } from "#lib/core/closest-word.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatSizeExact, parseSize } from "#lib/core/size.ts";
import { COMPRESSION_LEVEL_MAX, COMPRESSIONS } from "#lib/repository/compression-choice.ts";
import {
  agentSchema,
  clusterKeys,
  jobsSchema,
  natsSchema,
  telemetrySchema,
} from "./cluster-schema.ts";
import {
  duration,
  expecting,
  leaf,
  oneOf,
  optional,
  path,
  share,
  size,
  storageName,
  string,
  whole,
} from "./schema-values.ts";
import { cacheSchema, storageSchema } from "./storage-schema.ts";

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

function defaultsSchema(smallBlocks: boolean) {
  return z.strictObject(
    {
      blockSize: size(blockSizeRule(smallBlocks), (bytes) =>
        isBlockSize(bytes, smallBlocks),
      ).default(BLOCK_BYTES_DEFAULT),
      compression: oneOf(COMPRESSIONS).default("zstd"),
      compressionLevel: whole(1, COMPRESSION_LEVEL_MAX).default(1),
      quorum: whole(1, 16).default(1),
      /** All storages unless given. */
      storages: z
        .array(storageName, expecting("a list of names of storages"))
        .min(1, "expected at least one storage")
        .optional(),
      /** Read first by restores, in this order. */
      prefer: z.array(storageName, expecting("a list of names of storages")).optional(),
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

/** Where the metadata are, unless in the folder itself. */
const foundationDbSchema = z.strictObject(
  {
    clusterFile: path.default("/etc/foundationdb/fdb.cluster"),
    prefix: string("up to 64 letters, digits, - and _", /^[-A-Za-z0-9_]{1,64}$/).default("ashlar"),
  },
  expecting("a section with clusterFile and prefix"),
);

function leafVersion() {
  return leaf("1, the only version of this format", (value) => (value === 1 ? value : undefined));
}

function hostName() {
  return string("a host name", /^[-a-zA-Z0-9_.]{1,253}$/);
}

function contentSchema(smallBlocks: boolean) {
  return z.strictObject(
    {
      version: leafVersion(),
      metadata: path,
      foundationdb: foundationDbSchema.optional(),
      keyFile: path.optional(),
      passphraseFile: path.optional(),
      host: hostName().optional(),
      defaults: optional(defaultsSchema(smallBlocks)),
      storages: z
        .array(storageSchema, expecting("a list of storages"))
        .min(1, "expected at least one storage"),
      sessions: optional(sessionsSchema),
      memory: optional(memorySchema),
      log: optional(logSchema),
      nats: natsSchema.optional(),
      agent: optional(agentSchema),
      jobs: optional(jobsSchema),
      telemetry: optional(telemetrySchema),
    },
    expecting("a section with version, metadata and storages"),
  );
}

/**
 * The configuration of an agent that has nothing of the repository but the dedup key: it reads and restores, and knows neither
 * metadata nor storages.
 */
export const readerSchema = z.strictObject(
  {
    version: leafVersion(),
    host: hostName().optional(),
    dedupKeyFile: path,
    nats: natsSchema,
    agent: optional(agentSchema),
    memory: optional(memorySchema),
    log: optional(logSchema),
    telemetry: optional(telemetrySchema),
  },
  expecting("a section with version, dedupKeyFile and nats"),
);

/** The configuration of somebody who only submits jobs and watches them. */
export const clientSchema = z.strictObject(
  {
    version: leafVersion(),
    host: hostName().optional(),
    nats: natsSchema,
    log: optional(logSchema),
  },
  expecting("a section with version and nats"),
);

/** An agent's file, checked, with defaults. */
export type ReaderContent = z.output<typeof readerSchema>;

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
  { storages, quorum, prefer }: ConfigContent["defaults"],
  names: readonly string[],
  complain: Complain,
): void {
  checkNames(["defaults", "storages"], storages ?? [], names, complain);
  checkNames(["defaults", "prefer"], prefer ?? [], names, complain);
  const count = (storages ?? names).length;
  // An empty list has its own complaint.
  if (count > 0 && quorum > count) {
    complain(
      ["defaults", "quorum"],
      `expected at most ${count}, the number of storages that a version goes to, found ${quorum}`,
    );
  }
}

function checkNames(
  list: readonly string[],
  wanted: readonly string[],
  names: readonly string[],
  complain: Complain,
): void {
  for (const [index, name] of wanted.entries()) {
    const at = [...list, index];
    if (wanted.indexOf(name) !== index) complain(at, `${name} is listed twice`);
    if (names.includes(name)) continue;
    const similar = closestWord(name, names);
    const advice =
      similar === undefined ? `expected some of ${names.join(", ")}` : `did you mean ${similar}?`;
    complain(at, `there is no storage ${JSON.stringify(name)}; ${advice}`);
  }
}

/** The keys that are allowed in the section at `path`; empty where there is no such section. */
export function allowedKeys(schemaPath: readonly PropertyKey[]): readonly string[] {
  const sections: Readonly<Record<string, { readonly shape: object }>> = {
    "": contentSchema(false),
    defaults: defaultsSchema(false),
    storages: storageSchema,
    "storages.cache": cacheSchema,
    sessions: sessionsSchema,
    memory: memorySchema,
    log: logSchema,
    foundationdb: foundationDbSchema,
  };
  const section = schemaPath.filter((part) => typeof part === "string").join(".");
  return clusterKeys[section] ?? Object.keys(sections[section]?.shape ?? {});
}
