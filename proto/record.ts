// Records at rest: msgpack maps with plain values and sorted keys, so that equal records have equal bytes and any
// msgpack library reads them. Fields are added, never reused; what is not known here is kept.
import { Packr } from "msgpackr";
import { malformed } from "./format-error.ts";

/** Records are small; what nests deeper or is larger was not written by Ashlar. */
const DEPTH_MAX = 8;

// No structures and no extensions: both are msgpackr's own. Maps stay Maps, so that no key is special ("__proto__").
const packr = new Packr({
  useRecords: false,
  mapsAsObjects: false,
  variableMapSize: true,
  int64AsType: "number",
});

/** A value that a record may hold. */
export type RecordValue =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | readonly RecordValue[]
  | { readonly [key: string]: RecordValue | undefined };

/** A record: a map from names to values; undefined means absent. */
export type RecordMap = { readonly [key: string]: RecordValue | undefined };

/** Encodes a record: keys sorted by their UTF-8 bytes at every level, absent fields left out. */
export function encodeRecord(record: RecordMap): Buffer {
  return Buffer.from(packr.pack(sorted(record)));
}

function sorted(value: RecordValue): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value);
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const fields = Object.entries(value).map(
    ([key, field]: [string, RecordValue | undefined]) => [Buffer.from(key), key, field] as const,
  );
  fields.sort(([a], [b]) => Buffer.compare(a, b));
  return new Map(
    fields.flatMap(([, key, field]) => (field === undefined ? [] : [[key, sorted(field)]])),
  );
}

/** Decodes a record, refusing whatever is not a msgpack map of plain values. */
export function decodeRecord(bytes: Uint8Array): RecordMap {
  let value: unknown;
  try {
    // A view of its own, for the library hangs a property on what it reads.
    value = packr.unpack(bytes.subarray());
  } catch (cause) {
    throw malformed("is not msgpack", cause);
  }
  if (!(value instanceof Map)) throw malformed("is not a msgpack map");
  return plain(value, 0) as RecordMap;
}

function plain(value: unknown, depth: number): RecordValue {
  if (depth > DEPTH_MAX) throw malformed("nests too deep");
  if (value === null || typeof value === "boolean") return value;
  if (typeof value === "number" || typeof value === "string") return value;
  if (value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map((item: unknown) => plain(item, depth + 1));
  if (!(value instanceof Map)) throw malformed("has a value of a type that no record has");
  return Object.fromEntries(
    [...value].map(([key, item]: [unknown, unknown]) => {
      if (typeof key !== "string") throw malformed("has a key that is not text");
      return [key, plain(item, depth + 1)];
    }),
  );
}

function isMap(value: unknown): value is RecordMap {
  return (
    typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype
  );
}

/** Reads the fields of a record one by one; each reader throws a FormatError that names the field. */
export class FieldReader {
  readonly #map: RecordMap;
  readonly #path: string;
  readonly #seen = new Set<string>();

  constructor(map: RecordMap, path = "") {
    this.#map = map;
    this.#path = path;
  }

  #take(name: string): RecordValue | undefined {
    this.#seen.add(name);
    return Object.hasOwn(this.#map, name) ? this.#map[name] : undefined;
  }

  #wrong(name: string, expected: string): Error {
    return malformed(`has no valid field "${this.#path}${name}" (${expected} expected)`);
  }

  /** A string, at most `lengthMax` UTF-16 units long. */
  text(name: string, lengthMax = 4096): string {
    const value = this.#take(name);
    if (typeof value !== "string" || value.length > lengthMax)
      throw this.#wrong(name, `text up to ${lengthMax}`);
    return value;
  }

  /** Lower-case hex digits for that many bytes. */
  hex(name: string, bytes: number): string {
    const value = this.#take(name);
    if (!isHex(value, bytes)) throw this.#wrong(name, `${bytes * 2} hex digits`);
    return value;
  }

  /** One of a closed set of words. */
  oneOf<Word extends string>(name: string, words: readonly Word[]): Word {
    const value = this.#take(name);
    const word = words.find((candidate) => candidate === value);
    if (word === undefined) throw this.#wrong(name, `one of ${words.join(", ")}`);
    return word;
  }

  /** A whole number in [min, max]. */
  whole(name: string, min: number, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.#take(name);
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) {
      throw this.#wrong(name, `a whole number from ${min} to ${max}`);
    }
    return value;
  }

  /** True or false. */
  flag(name: string): boolean {
    const value = this.#take(name);
    if (typeof value !== "boolean") throw this.#wrong(name, "true or false");
    return value;
  }

  /** Raw bytes of exactly that length. */
  bytes(name: string, length: number): Buffer {
    const value = this.#take(name);
    if (!(value instanceof Uint8Array) || value.length !== length)
      throw this.#wrong(name, `${length} bytes`);
    return Buffer.from(value);
  }

  /** A list, each item read by `read`. */
  list<Item>(name: string, read: (value: RecordValue) => Item | undefined, what: string): Item[] {
    const value = this.#take(name);
    if (!Array.isArray(value)) throw this.#wrong(name, `a list of ${what}`);
    return value.map((item: RecordValue) => {
      const read1 = read(item);
      if (read1 === undefined) throw this.#wrong(name, `a list of ${what}`);
      return read1;
    });
  }

  /** A map from names to values, each read by `read`. */
  map<Item>(
    name: string,
    read: (value: RecordValue) => Item | undefined,
    what: string,
  ): Record<string, Item> {
    const value = this.#take(name);
    if (!isMap(value)) throw this.#wrong(name, `a map of ${what}`);
    const entries = Object.entries(value).map(([key, item]): [string, Item] => {
      const read1 = item === undefined ? undefined : read(item);
      if (read1 === undefined) throw this.#wrong(name, `a map of ${what}`);
      return [key, read1];
    });
    return Object.fromEntries(entries);
  }

  /** A record inside this one. */
  record(name: string): FieldReader {
    const value = this.#take(name);
    if (!isMap(value)) throw this.#wrong(name, "a map");
    return new FieldReader(value, `${this.#path}${name}.`);
  }

  /** Whether the field is there. */
  has(name: string): boolean {
    return Object.hasOwn(this.#map, name) && this.#map[name] !== undefined;
  }

  /** The fields that nobody asked for: a newer Ashlar's. */
  unknown(): RecordMap {
    return Object.fromEntries(Object.entries(this.#map).filter(([name]) => !this.#seen.has(name)));
  }
}

/** Whether `value` is that many bytes in lower-case hex. */
export function isHex(value: unknown, bytes: number): value is string {
  return typeof value === "string" && value.length === bytes * 2 && /^[0-9a-f]*$/.test(value);
}
