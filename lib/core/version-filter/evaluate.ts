// Turns a filter into a function over versions. Types are checked here, once, so that a filter that makes no sense is
// refused before the first version is looked at instead of matching nothing.
import type { AshlarError } from "../errors.ts";
import { unreachable } from "../assert.ts";
import { parseDuration, parseSize } from "../size.ts";
import { closestWord } from "../closest-word.ts";
import { parseDateLiteral } from "./date-literal.ts";
import { filterError } from "./lexer.ts";
import { parseFilter } from "./parser.ts";
import type { Expression, Operand, Operator } from "./parser.ts";
import { matchesLike } from "./like.ts";

/** What a filter can ask of a version. Statistics are absent where a backup has not finished. */
export interface FilterableVersion {
  readonly uid: string;
  /** Ms since 1970. */
  readonly date: number;
  readonly volume: string;
  readonly snapshot: string;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  readonly status: VersionStatus;
  readonly protected: boolean;
  /** Names of the storages of its policy. */
  readonly storages: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly bytesRead?: number | undefined;
  readonly bytesWritten?: number | undefined;
  readonly bytesDeduplicated?: number | undefined;
  readonly bytesSparse?: number | undefined;
  readonly durationMs?: number | undefined;
}

/** What may be said of a version. */
export const VERSION_STATUSES = ["incomplete", "valid", "invalid"] as const;
export type VersionStatus = (typeof VERSION_STATUSES)[number];

type Scalar = string | number | boolean;
/** `undefined`: the version does not have it; then every comparison is false, `!=` too. */
type Read = (version: FilterableVersion) => Scalar | readonly string[] | undefined;
type FieldType = "text" | "names" | "bytes" | "duration" | "date" | "status" | "boolean";
type Predicate = (version: FilterableVersion) => boolean;

interface Field {
  readonly type: FieldType;
  readonly read: Read;
}

const FIELDS: ReadonlyMap<string, Field> = new Map<string, Field>([
  ["uid", { type: "text", read: (version) => version.uid }],
  ["date", { type: "date", read: (version) => version.date }],
  ["volume", { type: "text", read: (version) => version.volume }],
  ["snapshot", { type: "text", read: (version) => version.snapshot }],
  ["size", { type: "bytes", read: (version) => version.sizeBytes }],
  ["block_size", { type: "bytes", read: (version) => version.blockBytes }],
  ["status", { type: "status", read: (version) => version.status }],
  ["protected", { type: "boolean", read: (version) => version.protected }],
  ["storage", { type: "names", read: (version) => version.storages }],
  ["bytes_read", { type: "bytes", read: (version) => version.bytesRead }],
  ["bytes_written", { type: "bytes", read: (version) => version.bytesWritten }],
  ["bytes_deduplicated", { type: "bytes", read: (version) => version.bytesDeduplicated }],
  ["bytes_sparse", { type: "bytes", read: (version) => version.bytesSparse }],
  ["duration", { type: "duration", read: (version) => version.durationMs }],
]);

/** The identifiers of the language, for help texts and completion. `labels["name"]` comes on top. */
export const FILTER_IDENTIFIERS: readonly string[] = [...FIELDS.keys()];

const EXPECTED: Readonly<Record<FieldType, string>> = {
  text: 'a text in quotes, such as "vm-1"',
  names: 'a storage\'s name in quotes, such as "offsite"',
  bytes: "a number of bytes, such as 4096 or 10GiB",
  duration: "seconds or a duration, such as 90 or 5m",
  date: 'a date in quotes, such as "2026-01-31", "2026-01-31T10:00:00Z" or "1 week ago"',
  status: VERSION_STATUSES.map((status) => JSON.stringify(status)).join(", "),
  boolean: "True or False",
};

const EQUALITY: readonly Operator[] = ["==", "!="];
const ORDER: readonly Operator[] = [...EQUALITY, "<", "<=", ">", ">="];
const OPERATORS: Readonly<Record<FieldType, readonly Operator[]>> = {
  text: [...ORDER, "like"],
  names: [...EQUALITY, "like"],
  bytes: ORDER,
  duration: ORDER,
  date: ORDER,
  status: EQUALITY,
  boolean: EQUALITY,
};

interface Context {
  readonly nowMs: number;
  readonly zone: string;
}

/**
 * Compiles a filter.
 * @param now ms since 1970, for relative dates
 * @param zone the IANA time zone of dates that name none; the process' own unless given
 */
export function compileFilter(text: string, now: number, zone = "system"): Predicate {
  return compile(parseFilter(text), { nowMs: now, zone });
}

function compile(expression: Expression, context: Context): Predicate {
  switch (expression.kind) {
    case "or": {
      const operands = expression.operands.map((operand) => compile(operand, context));
      return (version) => operands.some((operand) => operand(version));
    }
    case "and": {
      const operands = expression.operands.map((operand) => compile(operand, context));
      return (version) => operands.every((operand) => operand(version));
    }
    case "not": {
      const operand = compile(expression.operand, context);
      return (version) => !operand(version);
    }
    case "bare":
      return compileBare(expression.operand);
    case "comparison":
      return compileComparison(expression, context);
    default:
      return unreachable(expression);
  }
}

/** An identifier alone: a boolean means itself, a label that it exists, anything else that it is not empty or zero. */
function compileBare(operand: Operand): Predicate {
  if (operand.kind === "literal") {
    throw filterError(
      operand.column,
      `a value alone selects nothing; expected a comparison such as volume == ${JSON.stringify(operand.text)}`,
    );
  }
  const { read } = fieldOf(operand);
  if (operand.kind === "label") return (version) => read(version) !== undefined;
  return (version) => {
    const value = read(version);
    return Array.isArray(value) ? value.length > 0 : Boolean(value);
  };
}

function fieldOf(operand: Operand & { kind: "identifier" | "label" }): Field {
  const { name } = operand;
  if (operand.kind === "label") {
    return {
      type: "text",
      // A label may be called "constructor".
      read: ({ labels }) => (Object.hasOwn(labels, name) ? labels[name] : undefined),
    };
  }
  const field = FIELDS.get(name);
  if (field !== undefined) return field;
  const similar = closestWord(name, FILTER_IDENTIFIERS);
  throw filterError(
    operand.column,
    `unknown identifier ${JSON.stringify(name)}; ${similar === undefined ? "" : `did you mean ${similar}? `}` +
      `Expected one of ${FILTER_IDENTIFIERS.join(", ")}, labels["name"], or a text in quotes`,
  );
}

const MIRRORED: Readonly<Record<Exclude<Operator, "like">, Operator>> = {
  "==": "==",
  "!=": "!=",
  "<": ">",
  "<=": ">=",
  ">": "<",
  ">=": "<=",
};

function compileComparison(
  comparison: Expression & { kind: "comparison" },
  context: Context,
): Predicate {
  const { left, right, operator, column } = comparison;
  if (left.kind !== "literal") {
    const field = fieldOf(left);
    checkOperator(field.type, operator, column);
    if (right.kind !== "literal") return compileFields(field, operator, right);
    return compileLiteral(field, operator, right, context);
  }
  if (right.kind === "literal") {
    throw filterError(left.column, "this compares two values; expected an identifier on one side");
  }
  if (operator === "like") {
    throw filterError(left.column, `expected an identifier to the left of "like", found a value`);
  }
  const field = fieldOf(right);
  checkOperator(field.type, operator, column);
  return compileLiteral(field, MIRRORED[operator], left, context);
}

function checkOperator(type: FieldType, operator: Operator, column: number): void {
  const allowed = OPERATORS[type];
  if (allowed.includes(operator)) return;
  throw filterError(
    column,
    `"${operator}" makes no sense here; expected ${allowed.map((each) => `"${each}"`).join(", ")}`,
  );
}

function compileFields(
  left: Field,
  operator: Operator,
  operand: Operand & { kind: "identifier" | "label" },
): Predicate {
  const right = fieldOf(operand);
  if (left.type !== right.type || left.type === "names") {
    throw filterError(
      operand.column,
      `expected ${EXPECTED[left.type]}, found something of another kind`,
    );
  }
  const test = TESTS[operator];
  return (version) => {
    const a = left.read(version) as Scalar | undefined;
    const b = right.read(version) as Scalar | undefined;
    return a !== undefined && b !== undefined && test(a, b);
  };
}

function compileLiteral(
  field: Field,
  operator: Operator,
  literal: Operand & { kind: "literal" },
  context: Context,
): Predicate {
  const value = valueOf(literal, field.type, context);
  const { read, type } = field;
  if (type === "names") {
    // `!=` must mean that the version goes to no such storage; asking whether any name differs would be true of nearly all.
    const test = TESTS[operator === "!=" ? "==" : operator];
    const wanted = operator !== "!=";
    return (version) =>
      (read(version) as readonly string[]).some((name) => test(name, value)) === wanted;
  }
  const test = TESTS[operator];
  return (version) => {
    const actual = read(version) as Scalar | undefined;
    return actual !== undefined && test(actual, value);
  };
}

const TESTS: Readonly<Record<Operator, (left: Scalar, right: Scalar) => boolean>> = {
  "==": (left, right) => left === right,
  "!=": (left, right) => left !== right,
  "<": (left, right) => left < right,
  "<=": (left, right) => left <= right,
  ">": (left, right) => left > right,
  ">=": (left, right) => left >= right,
  like: (left, right) => matchesLike(String(left), String(right)),
};

/** Reads a literal as a value of the field's type. */
function valueOf(
  literal: Operand & { kind: "literal" },
  type: FieldType,
  context: Context,
): Scalar {
  const { text, column } = literal;
  switch (type) {
    case "text":
    case "names":
      // Labels and volumes are texts that may look like numbers: labels["build"] == 17.
      return text;
    case "boolean":
      if (literal.type !== "boolean") break;
      return text.toLowerCase() === "true";
    case "status":
      if (literal.type !== "text" || !VERSION_STATUSES.some((status) => status === text)) break;
      return text;
    case "date": {
      const date =
        literal.type === "text" ? parseDateLiteral(text, context.nowMs, context.zone) : undefined;
      if (date === undefined) break;
      return date;
    }
    case "bytes":
      if (literal.type === "boolean") break;
      return signed(text, column, type, (size) => parseSize(size));
    case "duration":
      if (literal.type === "boolean") break;
      return signed(text, column, type, (duration) =>
        /^[\d.]+$/.test(duration) ? Number(duration) * 1000 : parseDuration(duration),
      );
  }
  throw wrongLiteral(literal.text, column, type);
}

function signed(
  text: string,
  column: number,
  type: FieldType,
  read: (unsigned: string) => number,
): number {
  const unsigned = text.replace(/^[+-]/, "");
  let value: number;
  try {
    value = read(unsigned);
  } catch (error) {
    throw wrongLiteral(text, column, type, error);
  }
  if (Number.isNaN(value)) throw wrongLiteral(text, column, type);
  return text.startsWith("-") ? -value : value;
}

function wrongLiteral(text: string, column: number, type: FieldType, cause?: unknown): AshlarError {
  return filterError(column, `expected ${EXPECTED[type]}, found ${JSON.stringify(text)}`, cause);
}
