// Jobs as people submit them: JSON, checked field by field before anything is remembered of it.
import { z } from "zod";
import { closestWord } from "#lib/core/closest-word.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { parseDuration, parseSize } from "#lib/core/size.ts";
import { COMPRESSION_LEVEL_MAX, COMPRESSIONS } from "#lib/repository/compression-choice.ts";

const text = z.string().min(1).max(4096);
const name = z.string().min(1).max(255);
const flag = z.boolean();
const labels = z.record(z.string().min(1).max(255), z.string().max(4096));
/** Bytes, as a number or as people write them. */
const bytes = z.union([z.number(), z.string()]).transform((value, context) => {
  try {
    return parseSize(String(value));
  } catch (error) {
    context.addIssue({ code: "custom", message: (error as Error).message });
    return z.NEVER;
  }
});

/** Milliseconds, as people write them. */
const duration = z.string().transform((value, context) => {
  try {
    return parseDuration(value);
  } catch (error) {
    context.addIssue({ code: "custom", message: (error as Error).message });
    return z.NEVER;
  }
});

const SPECS = {
  backup: z.strictObject({
    volume: name,
    source: text,
    /** The host whose agent reads it; without it any that may. */
    host: name.optional(),
    uid: name.optional(),
    snapshot: name.optional(),
    base: name.optional(),
    hints: text.optional(),
    strictHints: flag.optional(),
    storages: z.array(name).min(1).optional(),
    quorum: z.int().min(1).max(16).optional(),
    prefer: z.array(name).min(1).optional(),
    compression: z.enum(COMPRESSIONS).optional(),
    compressionLevel: z.int().min(1).max(COMPRESSION_LEVEL_MAX).optional(),
    requireComplete: flag.optional(),
    labels: labels.optional(),
    blockSize: bytes.optional(),
  }),
  restore: z.strictObject({
    /** A uid, its beginning, or VOLUME@latest. */
    version: name,
    target: text,
    host: name.optional(),
    force: flag.optional(),
    sparse: flag.optional(),
    differential: flag.optional(),
    keepGoing: flag.optional(),
    storage: name.optional(),
    offset: bytes.optional(),
    length: bytes.optional(),
  }),
  remove: z.strictObject({ versions: z.array(name).min(1).max(10_000) }),
  enforce: z.strictObject({ rules: text, filter: text.optional() }),
  gc: z.strictObject({
    sweep: flag.optional(),
    abandon: flag.optional(),
    trim: flag.optional(),
  }),
  scrub: z.strictObject({
    deep: flag.optional(),
    storages: z.array(name).min(1).optional(),
    samplePercent: z.number().gt(0).max(100).optional(),
    /** Stop after so long, or so many bytes; the next one goes on there. */
    budgetTime: duration.optional(),
    budgetBytes: bytes.optional(),
  }),
  replicate: z.strictObject({ storages: z.array(name).min(1).optional() }),
  fsck: z.strictObject({ repair: flag.optional(), storages: flag.optional() }),
} as const;

/** Kinds of jobs. */
export type JobKind = keyof typeof SPECS;
/** What a job of a kind is to do. */
export type JobSpec<K extends JobKind> = z.output<(typeof SPECS)[K]>;

/** All kinds. */
export const JOB_KINDS = Object.keys(SPECS) as JobKind[];

/** Beside what a kind asks for. */
const ENVELOPE = z.object({
  kind: z.string(),
  /** Submitting again under the same key gives the same job. */
  key: z.string().min(1).max(255).optional(),
  submitter: z.string().max(255).optional(),
});

/** It is recorded as one value of the metadata, with its outcome beside it. */
const SPEC_BYTES_MAX = 24 * 1024;

/** A checked submission. */
export interface JobRequest {
  readonly kind: JobKind;
  readonly spec: Readonly<Record<string, unknown>>;
  readonly key: string | undefined;
  readonly submitter: string | undefined;
}

/** Reads a submission; Usage, with the field at fault in `details.field`. */
export function parseJobRequest(json: string): JobRequest {
  const value = parseObject(json);
  const { kind, key, submitter, ...rest } = value;
  const envelope = ENVELOPE.safeParse({ kind, key, submitter });
  if (!envelope.success) throw specError(envelope.error.issues, value, []);
  const known = knownKind(envelope.data.kind);
  const spec = SPECS[known].safeParse(rest);
  if (!spec.success) throw specError(spec.error.issues, rest, Object.keys(SPECS[known].shape));
  const { length } = JSON.stringify(rest);
  if (length > SPEC_BYTES_MAX) {
    throw new AshlarError(
      ErrorCode.Usage,
      `the job has ${length} bytes of JSON; ${SPEC_BYTES_MAX} are the most`,
      { remedy: "split it into several jobs" },
    );
  }
  // What is stored is what was submitted, so that a later Ashlar reads it by its own rules.
  return { kind: known, spec: rest, key: envelope.data.key, submitter: envelope.data.submitter };
}

/** The kind of that name; Usage where there is none. */
export function knownKind(kind: string): JobKind {
  const known = JOB_KINDS.find((each) => each === kind);
  if (known !== undefined) return known;
  const similar = closestWord(kind, JOB_KINDS);
  throw fieldError(
    "kind",
    `there is no kind of job ${JSON.stringify(kind)}${similar === undefined ? "" : `; did you mean ${similar}?`}`,
    `use one of ${JOB_KINDS.join(", ")}`,
  );
}

/**
 * A job as it is written on a command line: JSON, or a kind and FIELD=VALUE. Only the form is looked at: what the fields mean is
 * the coordinator's business, which may be of another release.
 */
export function parseJobWords(words: readonly string[]): Record<string, unknown> {
  const [first = "", ...rest] = words;
  if (first.trimStart().startsWith("{")) return parseObject(words.join(" "));
  const job: Record<string, unknown> = { kind: first };
  const labelled: Record<string, string> = {};
  for (const word of rest) {
    const at = word.indexOf("=");
    if (at < 1) {
      throw new AshlarError(ErrorCode.Usage, `${JSON.stringify(word)}: expected FIELD=VALUE`);
    }
    const field = word.slice(0, at);
    const value = word.slice(at + 1);
    if (field.startsWith("labels.")) labelled[field.slice("labels.".length)] = value;
    else job[field] = fieldValue(first, field, value);
  }
  return Object.keys(labelled).length === 0 ? job : { ...job, labels: labelled };
}

function fieldValue(kind: string, field: string, value: string): unknown {
  const known = JOB_KINDS.find((each) => each === kind);
  const shape: Readonly<Record<string, z.ZodType>> = known === undefined ? {} : SPECS[known].shape;
  const schema = shape[field];
  const type = schema instanceof z.ZodOptional ? schema.unwrap() : schema;
  if (type instanceof z.ZodBoolean && (value === "true" || value === "false")) {
    return value === "true";
  }
  if (type instanceof z.ZodNumber && /^\d+$/.test(value)) return Number(value);
  if (type instanceof z.ZodArray) return value.split(",");
  return value;
}

/** What a recorded job is to do. */
export function readSpec<K extends JobKind>(kind: K, spec: unknown): JobSpec<K> {
  const read = SPECS[kind].safeParse(spec);
  if (!read.success) throw specError(read.error.issues, spec, Object.keys(SPECS[kind].shape));
  return read.data as JobSpec<K>;
}

/** Reads a JSON object; Usage where it is none. */
export function parseObject(json: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = json.trim() === "" ? {} : JSON.parse(json);
  } catch (error) {
    throw new AshlarError(ErrorCode.Usage, `this is not JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new AshlarError(ErrorCode.Usage, "expected a JSON object", {
    remedy: `write for example {"kind":"backup","volume":"vm1","source":"file:/dev/vg0/vm1"}`,
  });
}

function fieldError(field: string, message: string, remedy?: string): AshlarError {
  return new AshlarError(ErrorCode.Usage, message, {
    ...(remedy === undefined ? {} : { remedy }),
    details: { field },
  });
}

/** The first of what is wrong; a misspelled field before the one that is missing because of it. */
function specError(
  issues: readonly z.core.$ZodIssue[],
  value: unknown,
  fields: readonly string[],
): AshlarError {
  const misspelled = issues.find((issue) => issue.code === "unrecognized_keys");
  if (misspelled !== undefined) {
    const [unknown = ""] = misspelled.keys;
    const similar = closestWord(unknown, fields);
    return fieldError(
      unknown,
      `there is no field ${JSON.stringify(unknown)}${similar === undefined ? "" : `; did you mean ${similar}?`}`,
      `the fields are kind, key, submitter, ${fields.join(", ")}`,
    );
  }
  const [issue] = issues;
  const field = issue?.path.join(".") ?? "";
  const given = issue?.path.reduce<unknown>(
    (at, part) => (at as Record<PropertyKey, unknown> | undefined)?.[part],
    value,
  );
  const what = given === undefined ? "it is missing" : (issue?.message ?? "it cannot be read");
  return fieldError(field, `${field}: ${what}`);
}

/** JSON schema of a submission, for `nats micro info`. */
export function submissionSchema(): object {
  return z.toJSONSchema(
    z.union(
      JOB_KINDS.map((kind) =>
        SPECS[kind].extend({
          kind: z.literal(kind),
          key: ENVELOPE.shape.key,
          submitter: ENVELOPE.shape.submitter,
        }),
      ),
    ),
    { io: "input" },
  );
}
