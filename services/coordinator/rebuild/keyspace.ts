// Records that a rebuild keeps in the metadata while it runs: what the storages list, sorted by id, so that millions of names
// need no memory; and what it has done. They are cleared at its end. Below them stands the token of the run in charge: a
// second run takes over, and the first one stops at its next transaction.
import { blockIdFrom, shortIdFrom, SHORT_ID_BYTES, BLOCK_ID_BYTES } from "#lib/core/ids.ts";
import type { BlockId, Generation, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Kv, KvReader } from "#lib/ports/kv.ts";
import { prefixRange, type KeyRange } from "#lib/repository/keyspace.ts";
import { headObjectName } from "#proto/object-names.ts";

/** What a listing shows of one object. */
export interface ListedObject {
  readonly storage: StorageId;
  readonly generation: Generation;
  readonly sizeBytes: number;
}

/** What a listing shows of one head. */
export interface ListedHead {
  readonly storage: StorageId;
  readonly name: string;
  /** Keyed hash of the version's uid. */
  readonly hash: string;
  readonly revision: number;
}

const ascii = (text: string): Buffer => Buffer.from(text, "latin1");
const hex = (text: string): Buffer => Buffer.from(text, "hex");
const REVISION_BYTES = 8;

const P = {
  token: ascii("rb/t"),
  object: ascii("rb/o/"),
  head: ascii("rb/h/"),
  uid: ascii("rb/u/"),
  done: ascii("rb/d/"),
} as const;

const KINDS = { block: ascii("b"), node: ascii("n") } as const;

function revisionBytes(revision: number): Buffer {
  const out = Buffer.alloc(REVISION_BYTES);
  out.writeBigUInt64BE(BigInt(revision));
  return out;
}

/** Builders of keys. */
export const rebuildKey = {
  token: P.token,
  object: (
    kind: "block" | "node",
    id: BlockId,
    storage: StorageId,
    generation: Generation,
  ): Buffer => Buffer.concat([P.object, KINDS[kind], hex(id), hex(storage), hex(generation)]),
  head: (hash: string, revision: number, storage: StorageId, random: string): Buffer =>
    Buffer.concat([P.head, hex(hash), revisionBytes(revision), hex(storage), hex(random)]),
  uid: (hash: string): Buffer => Buffer.concat([P.uid, hex(hash)]),
  done: (id: BlockId): Buffer => Buffer.concat([P.done, hex(id)]),
} as const;

/** Everything but the token. */
export const rebuildRanges: readonly KeyRange[] = [P.object, P.head, P.uid, P.done].map((prefix) =>
  prefixRange(prefix),
);

/** All listed heads, those of one version together, older revisions first. */
export const headRange: KeyRange = prefixRange(P.head);

/** The heads of one version. */
export function headRangeOf(hash: string): KeyRange {
  return prefixRange(Buffer.concat([P.head, hex(hash)]));
}

/** An object's size as a value. */
export function encodeSize(sizeBytes: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(sizeBytes));
  return out;
}

/** The inverse of {@link encodeSize}; 0 for what is not listed. */
export function decodeSize(value: Buffer | undefined): number {
  return value === undefined ? 0 : Number(value.readBigUInt64LE(0));
}

/** Objects of one id at all storages; more generations than these are not told apart. */
const OBJECTS_MAX = 256;

/** What the storages list of a block or node, by storage, then generation. */
export async function findObjects(
  reader: KvReader,
  kind: "block" | "node",
  id: BlockId,
): Promise<ListedObject[]> {
  const prefix = Buffer.concat([P.object, KINDS[kind], hex(id)]);
  const entries = await reader.range({ ...prefixRange(prefix), limit: OBJECTS_MAX });
  return entries.map(({ key, value }) => ({
    storage: shortIdFrom<StorageId>(key, prefix.length),
    generation: shortIdFrom<Generation>(key, prefix.length + SHORT_ID_BYTES),
    sizeBytes: decodeSize(value),
  }));
}

/** Reads the key of a listed head. */
export function parseHead(key: Buffer): ListedHead {
  const hashAt = P.head.length;
  const revisionAt = hashAt + BLOCK_ID_BYTES;
  const storageAt = revisionAt + REVISION_BYTES;
  const hash = blockIdFrom(key, hashAt);
  const revision = Number(key.readBigUInt64BE(revisionAt));
  const random = key.toString("hex", storageAt + SHORT_ID_BYTES);
  return {
    storage: shortIdFrom<StorageId>(key, storageAt),
    name: headObjectName(hash, revision, random),
    hash,
    revision,
  };
}

/** The uid of the version whose heads have that hash, where the metadata know it. */
export async function findUid(reader: KvReader, hash: string): Promise<VersionUid | undefined> {
  const value = await reader.get(rebuildKey.uid(hash));
  return value === undefined ? undefined : (value.toString("utf8") as VersionUid);
}

/** Whether a rebuild was begun and has not come to its end. */
export async function isRebuildUnfinished(kv: Kv): Promise<boolean> {
  return (await kv.read((reader) => reader.get(P.token))) !== undefined;
}
