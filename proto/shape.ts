// What a message must look like, as data: a receiver checks what came against it, and a test holds the shapes of a release against
// those of the one before. What is not named is not looked at: a newer Ashlar has put it there.
import { malformed } from "./format-error.ts";

/** A closed set's word. */
type Word = string | boolean;

/** A shape as data. `is` says which. */
export type ShapeData =
  | { readonly is: "anything" }
  | { readonly is: "text" | "flag" | "number" | "bytes" }
  /** One of a closed set of words. */
  | { readonly is: "word"; readonly words: readonly Word[] }
  | { readonly is: "nullable" | "list" | "map"; readonly of: ShapeData }
  | { readonly is: "fields"; readonly fields: Readonly<Record<string, FieldData>> }
  /** One of several, told apart by the word in one of their fields. */
  | {
      readonly is: "choice";
      readonly by: string;
      readonly of: Readonly<Record<string, ShapeData>>;
    };

/** A field: one that is not optional must be there. */
export interface FieldData {
  readonly optional: boolean;
  readonly shape: ShapeData;
}

/** A shape of exactly the type `T`: the compiler holds it against the interface of the message. */
export type Shape<T> = ShapeData & { readonly type?: (value: T) => T };

/** An optional field of the type `T`. */
export interface OptionalField<T> extends FieldData {
  readonly optional: true;
  readonly type?: (value: T) => T;
}

/** A field of `T` by its name, optional exactly where it is in `T`. */
type FieldOf<T, Name extends keyof T> = [T] extends [Readonly<Record<Name, unknown>>]
  ? Shape<T[Name]>
  : OptionalField<Exclude<T[Name], undefined>>;

/** Text. */
export const text: Shape<string> = { is: "text" };
/** True or false. */
export const flag: Shape<boolean> = { is: "flag" };
/** Any number but NaN; patience may be infinite. */
export const number: Shape<number> = { is: "number" };
/** Raw bytes. */
export const bytes: Shape<Buffer> = { is: "bytes" };
/** Whatever it is. */
export const anything: Shape<unknown> = { is: "anything" };

/** One of these words. */
export function word<const W extends Word>(...words: readonly W[]): Shape<W> {
  return { is: "word", words };
}

/** Perhaps null instead. */
export function nullable<T>(of: Shape<T>): Shape<T | null> {
  return { is: "nullable", of };
}

/** A list of any length. */
export function list<T>(of: Shape<T>): Shape<readonly T[]> {
  return { is: "list", of };
}

/** A map from any names. */
export function map<T>(of: Shape<T>): Shape<Readonly<Record<string, T>>> {
  return { is: "map", of };
}

/** A field that may be absent. */
export function optional<T>(shape: Shape<T>): OptionalField<T> {
  return { optional: true, shape };
}

/** A record with these fields, and perhaps others. */
export function fields<T extends object>(all: {
  readonly [Name in keyof T]-?: FieldOf<T, Name>;
}): Shape<T> {
  const entries = Object.entries(all as Record<string, ShapeData | OptionalField<unknown>>);
  return {
    is: "fields",
    fields: Object.fromEntries(
      entries.map(([name, field]): [string, FieldData] => [
        name,
        "optional" in field ? field : { optional: false, shape: field },
      ]),
    ),
  };
}

/** One of several records, told apart by the word in the field `by`. */
export function choice<T extends object, By extends keyof T & string>(
  by: By,
  of: { readonly [W in T[By] & Word as `${W}`]: Shape<Extract<T, Readonly<Record<By, W>>>> },
): Shape<T> {
  return { is: "choice", by, of };
}

/** Throws a FormatError that names the first place where a value is not of the shape. */
export function checkShape(shape: ShapeData, value: unknown, path = ""): void {
  switch (shape.is) {
    case "anything":
      return;
    case "nullable":
      if (value !== null) checkShape(shape.of, value, path);
      return;
    case "list":
      if (!Array.isArray(value)) throw wrong(path, "a list");
      for (const [index, item] of value.entries()) checkShape(shape.of, item, `${path}[${index}]`);
      return;
    case "map":
      if (!isRecord(value)) throw wrong(path, "a map");
      for (const [name, item] of Object.entries(value)) {
        checkShape(shape.of, item, within(path, name));
      }
      return;
    case "fields":
      checkFields(shape.fields, value, path);
      return;
    case "choice":
      checkChoice(shape, value, path);
      return;
    default:
      if (!isPlain(shape, value)) throw wrong(path, describe(shape));
  }
}

function checkFields(all: Readonly<Record<string, FieldData>>, value: unknown, path: string): void {
  if (!isRecord(value)) throw wrong(path, "a map");
  for (const [name, { shape, optional: mayLack }] of Object.entries(all)) {
    const field = Object.hasOwn(value, name) ? value[name] : undefined;
    if (field === undefined && mayLack) continue;
    checkShape(shape, field, within(path, name));
  }
}

function checkChoice(
  { by, of }: Extract<ShapeData, { readonly is: "choice" }>,
  value: unknown,
  path: string,
): void {
  if (!isRecord(value)) throw wrong(path, "a map");
  const name = String(value[by]);
  const chosen = Object.hasOwn(of, name) ? of[name] : undefined;
  if (chosen === undefined) throw wrong(within(path, by), `one of ${Object.keys(of).join(", ")}`);
  checkShape(chosen, value, path);
}

type Plain = Exclude<
  ShapeData,
  { readonly is: "anything" | "nullable" | "list" | "map" | "fields" | "choice" }
>;

function isPlain(shape: Plain, value: unknown): boolean {
  switch (shape.is) {
    case "text":
      return typeof value === "string";
    case "flag":
      return typeof value === "boolean";
    case "number":
      return typeof value === "number" && !Number.isNaN(value);
    case "bytes":
      return value instanceof Uint8Array;
    case "word":
      return shape.words.includes(value as Word);
  }
}

const PLAIN_WORDS = {
  text: "text",
  flag: "true or false",
  number: "a number",
  bytes: "bytes",
} as const;

function describe(shape: Plain): string {
  return shape.is === "word" ? `one of ${shape.words.join(", ")}` : PLAIN_WORDS[shape.is];
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function within(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

function wrong(path: string, expected: string): Error {
  return malformed(`has no valid field "${path}" (${expected} expected)`);
}
