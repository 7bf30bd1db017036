// What an object on a storage is, and who would miss it: from its name, or from the id that is in it.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { BLOCK_ID_BYTES, type BlockId, type StorageId, type VersionUid } from "#lib/core/ids.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { decodeBlockRecord, type BlockRecord } from "#lib/repository/block-record.ts";
import { key, parse, prefixRange } from "#lib/repository/keyspace.ts";
import { decodeRecord, type HeadAtRecord } from "#lib/repository/records.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";
import { parseObjectName } from "#proto/object-names.ts";

/** A block or a node that was found. */
export interface FoundRecord {
  readonly type: "block" | "node";
  readonly id: BlockId;
  readonly record: BlockRecord;
  /** The generation that was asked for, of all that the record may name. */
  readonly generation: string | undefined;
}

/** The head of a version, at the storages where it was put. */
export interface FoundHead {
  readonly type: "head";
  readonly name: string;
  readonly at: readonly { readonly storage: StorageId; readonly head: HeadAtRecord }[];
  readonly uid: VersionUid;
}

/** So many digits of an id tell it apart in all but the largest repositories. */
const PREFIX_DIGITS_MIN = 6;
const ID_DIGITS = BLOCK_ID_BYTES * 2;

/**
 * Finds an object by its name on a storage (also as a path of a file storage), or a block or node by its id or the beginning of it.
 * @throws Usage for what is neither, or fits several; NotFound for what the metadata do not know
 */
export async function findObject(kv: Kv, text: string): Promise<FoundRecord | FoundHead> {
  const name = nameWithin(text);
  const parsed = parseObjectName(name);
  if (parsed?.type === "block" || parsed?.type === "node") {
    const found = await findRecord(kv, parsed.id);
    if (found.type === parsed.type) return { ...found, generation: parsed.generation };
    throw unknown(text);
  }
  if (parsed?.type === "head") return findHead(kv, name);
  if (parsed !== undefined) {
    throw new AshlarError(ErrorCode.Usage, `${text} is a ${parsed.type}: no version needs it`);
  }
  const digits = text.toLowerCase();
  if (!/^[0-9a-f]+$/.test(digits) || digits.length > ID_DIGITS) {
    throw new AshlarError(ErrorCode.Usage, `${text} is no name of an object, and no id`, {
      remedy: "give a name such as blocks/3fa4….0123456789abcdef, or the beginning of an id",
    });
  }
  if (digits.length < PREFIX_DIGITS_MIN) {
    throw new AshlarError(ErrorCode.Usage, `${text} is too short for an id`, {
      remedy: `give at least ${PREFIX_DIGITS_MIN} digits of it`,
    });
  }
  return { ...(await findRecord(kv, digits)), generation: undefined };
}

/** Of a path the part that is the object's name; a file storage has folders in between. */
function nameWithin(text: string): string {
  const match = /(?:^|\/)(blocks|nodes|heads|stamps|keys)\/(?:[0-9a-f]{3}\/)?([^/]+)$/.exec(text);
  return match === null ? text : `${match[1]}/${match[2]}`;
}

async function findRecord(kv: Kv, digits: string): Promise<Omit<FoundRecord, "generation">> {
  // Of an odd number of digits the last one is compared here.
  const whole = digits.slice(0, digits.length & ~1) as BlockId;
  const { start, end } = prefixRange(key.block(whole));
  const found: { readonly id: BlockId; readonly value: Buffer }[] = [];
  let from = start;
  while (found.length < 2) {
    const at = from;
    const entries = await kv.read((reader) => reader.range({ start: at, end, limit: 256 }));
    for (const entry of entries) {
      const id = parse.block(entry.key);
      if (id.startsWith(digits)) found.push({ id, value: entry.value });
    }
    const last = entries.at(-1);
    if (last === undefined || entries.length < 256) break;
    from = Buffer.concat([last.key, Buffer.of(0)]);
  }
  const [first, second] = found;
  if (first === undefined) throw unknown(digits);
  if (second !== undefined) {
    throw new AshlarError(ErrorCode.Usage, `several ids begin with ${digits}`, {
      remedy: "give more digits",
    });
  }
  const record = decodeBlockRecord(first.value);
  return { type: record.kind, id: first.id, record };
}

async function findHead(kv: Kv, name: string): Promise<FoundHead> {
  const at: { storage: StorageId; head: HeadAtRecord }[] = [];
  for (const { storage } of await listStorages(kv)) {
    const value = await kv.read((reader) => reader.get(key.headAt(storage, name)));
    if (value !== undefined) at.push({ storage, head: decodeRecord<HeadAtRecord>(value) });
  }
  const [first] = at;
  if (first === undefined) throw unknown(name);
  return { type: "head", name, at, uid: first.head.uid };
}

function unknown(what: string): AshlarError {
  return new AshlarError(ErrorCode.NotFound, `the metadata do not know ${what}`, {
    remedy:
      "`ashlar gc --sweep` deletes what no record names; another repository may have put it there",
  });
}
