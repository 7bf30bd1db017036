// `block/<id>`: where the copies of a block or a node are. Flat binary: it is the record that is read most.
import { assert, InvariantError } from "#lib/core/assert.ts";
import {
  shortIdFrom,
  SHORT_ID_BYTES,
  type Generation,
  type SessionId,
  type StorageId,
} from "#lib/core/ids.ts";

/** State of one copy (DESIGN §1). */
export type Copy =
  | {
      readonly state: "coming";
      readonly storage: StorageId;
      readonly generation: Generation;
      readonly session: SessionId;
    }
  /**
   * `verifiedMs`: when its bytes were last known to be right, in ms since 1970; also its place in the verify queue. `leaving`: no
   * policy asks for it any more, and whoever relies on it takes that back (DESIGN §4.5).
   */
  | {
      readonly state: "placed";
      readonly storage: StorageId;
      readonly generation: Generation;
      readonly verifiedMs: number;
      readonly leaving?: true;
    }
  | { readonly state: "owed"; readonly storage: StorageId; readonly generation: Generation }
  | { readonly state: "bad"; readonly storage: StorageId; readonly generation: Generation };

/** What the metadata know of a block or a node. */
export interface BlockRecord {
  readonly kind: "block" | "node";
  /** Plaintext bytes; a hint for accounting. */
  readonly plainBytes: number;
  /** Sealed bytes of one object; a hint for accounting, 0 until one was put. */
  readonly storedBytes: number;
  /** The epoch in which it was condemned, or undefined. */
  readonly condemnedEpoch: number | undefined;
  /** The epoch in which the latest of the leaving copies was marked; absent where none is leaving, or the record is condemned. */
  readonly leavingEpoch?: number;
  /** No good copy, or (a node) a child that is marked. */
  readonly damaged: boolean;
  /** At most one that is not bad, and at most one that is bad, per storage. */
  readonly copies: readonly Copy[];
}

const FORMAT = 1;
const FLAG_NODE = 1;
const FLAG_CONDEMNED = 2;
const FLAG_DAMAGED = 4;
const FLAG_LEAVING = 8;
/** Of a copy's state. */
const STATE_LEAVING = 0x80;
const HEADER_BYTES = 19;
const COPY_BYTES = 25;
const STATES = ["coming", "placed", "owed", "bad"] as const;

/**
 * Encodes a record. Layout, little-endian: format u8, flags u8, plain u32, stored u32, epoch u64 (of being condemned, or else of
 * leaving), count u8, then copies.
 */
export function encodeBlockRecord(record: BlockRecord): Buffer {
  const out = Buffer.alloc(HEADER_BYTES + record.copies.length * COPY_BYTES);
  const leaves = record.leavingEpoch !== undefined && record.copies.some(isLeaving);
  assert(!leaves || record.condemnedEpoch === undefined, "what is condemned leaves as a whole");
  out[0] = FORMAT;
  out[1] =
    (record.kind === "node" ? FLAG_NODE : 0) |
    (record.condemnedEpoch === undefined ? 0 : FLAG_CONDEMNED) |
    (record.damaged ? FLAG_DAMAGED : 0) |
    (leaves ? FLAG_LEAVING : 0);
  out.writeUInt32LE(record.plainBytes, 2);
  out.writeUInt32LE(record.storedBytes, 6);
  const epoch = record.condemnedEpoch ?? (leaves ? record.leavingEpoch : 0) ?? 0;
  out.writeBigUInt64LE(BigInt(epoch), 10);
  out[18] = record.copies.length;
  let at = HEADER_BYTES;
  for (const copy of record.copies) {
    out.write(copy.storage, at, "hex");
    out.write(copy.generation, at + 8, "hex");
    out[at + 16] = STATES.indexOf(copy.state) | (leaves && isLeaving(copy) ? STATE_LEAVING : 0);
    if (copy.state === "coming") out.write(copy.session, at + 17, "hex");
    else if (copy.state === "placed") out.writeBigUInt64LE(BigInt(copy.verifiedMs), at + 17);
    at += COPY_BYTES;
  }
  return out;
}

/** The inverse of {@link encodeBlockRecord}. */
export function decodeBlockRecord(bytes: Buffer): BlockRecord {
  assert(bytes.length >= HEADER_BYTES && bytes[0] === FORMAT, "a block record of a known format");
  const flags = bytes[1] as number;
  const count = bytes[18] as number;
  assert(bytes.length === HEADER_BYTES + count * COPY_BYTES, "a block record of the right length");
  const copies: Copy[] = [];
  for (let at = HEADER_BYTES; at < bytes.length; at += COPY_BYTES)
    copies.push(decodeCopy(bytes, at));
  return {
    kind: flags & FLAG_NODE ? "node" : "block",
    plainBytes: bytes.readUInt32LE(2),
    storedBytes: bytes.readUInt32LE(6),
    condemnedEpoch: flags & FLAG_CONDEMNED ? Number(bytes.readBigUInt64LE(10)) : undefined,
    ...(flags & FLAG_LEAVING ? { leavingEpoch: Number(bytes.readBigUInt64LE(10)) } : {}),
    damaged: (flags & FLAG_DAMAGED) !== 0,
    copies,
  };
}

function decodeCopy(bytes: Buffer, at: number): Copy {
  const storage = shortIdFrom<StorageId>(bytes, at);
  const generation = shortIdFrom<Generation>(bytes, at + SHORT_ID_BYTES);
  const stateByte = bytes[at + 16] as number;
  const state = STATES[stateByte & ~STATE_LEAVING];
  switch (state) {
    case "coming":
      return { state, storage, generation, session: shortIdFrom<SessionId>(bytes, at + 17) };
    case "placed":
      return {
        state,
        storage,
        generation,
        verifiedMs: Number(bytes.readBigUInt64LE(at + 17)),
        ...(stateByte & STATE_LEAVING ? { leaving: true } : {}),
      };
    case "owed":
    case "bad":
      return { state, storage, generation };
    default:
      throw new InvariantError("a copy is in a known state");
  }
}

/** Whether the copy is on its way out. */
export function isLeaving(copy: Copy): boolean {
  return copy.state === "placed" && copy.leaving === true;
}

/** The placed copy at a storage, if any. */
export function placedAt(record: BlockRecord, storage: StorageId): Copy | undefined {
  return record.copies.find((copy) => copy.state === "placed" && copy.storage === storage);
}

/** The copy at a storage that is not bad, if any. */
export function currentAt(record: BlockRecord, storage: StorageId): Copy | undefined {
  return record.copies.find((copy) => copy.state !== "bad" && copy.storage === storage);
}

/** Whether any copy is good. */
export function hasGoodCopy(record: BlockRecord): boolean {
  return record.copies.some((copy) => copy.state === "placed");
}
