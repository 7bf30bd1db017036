// The keys of the metadata (DESIGN §3). One short prefix a kind, then raw bytes, so that related records lie together.
import { createHash } from "node:crypto";
import {
  BLOCK_ID_BYTES,
  blockIdFrom,
  shortIdFrom,
  SHORT_ID_BYTES,
  type BlockId,
  type Generation,
  type JobId,
  type SessionId,
  type StorageId,
  type VersionUid,
} from "#lib/core/ids.ts";
import { assert } from "#lib/core/assert.ts";

/** A half-open key range. */
export interface KeyRange {
  readonly start: Buffer;
  readonly end: Buffer;
}

/** Who holds a reference to a block or node. A hold is a session's, at one position of the tree that it builds. */
export type Parent =
  | { readonly kind: "node"; readonly id: BlockId }
  | { readonly kind: "version"; readonly uid: VersionUid }
  | { readonly kind: "hold"; readonly session: SessionId; readonly position: HoldPosition };

/** Where in the tree under construction a held node belongs; `level` {@link READ_HOLD_LEVEL} marks a root held for reading. */
export interface HoldPosition {
  readonly level: number;
  readonly index: number;
}

/** The hold of a root that is being read: a restore's, an export's, or an incremental's on its base. */
export const READ_HOLD_LEVEL = 255;

const hex = (text: string): Buffer => Buffer.from(text, "hex");
const ascii = (text: string): Buffer => Buffer.from(text, "utf8");
const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
const NUL = Buffer.of(0);

/** A prefix, then ids in hex as raw bytes, in one piece: of all keys these are made most. */
function idKey(prefix: Buffer, first: string, second = ""): Buffer {
  const firstBytes = first.length / 2;
  const out = Buffer.allocUnsafe(prefix.length + firstBytes + second.length / 2);
  prefix.copy(out);
  let written = out.write(first, prefix.length, "hex");
  if (second !== "") written += out.write(second, prefix.length + firstBytes, "hex");
  assert(prefix.length + written === out.length, "an id is hexadecimal");
  return out;
}

function u64(value: number): Buffer {
  assert(Number.isSafeInteger(value) && value >= 0, `not a 64-bit counter: ${value}`);
  const out = Buffer.allocUnsafe(8);
  out.writeBigUInt64BE(BigInt(value));
  return out;
}

/** The range of all keys that start with `prefix`. */
export function prefixRange(prefix: Buffer): KeyRange {
  const end = Buffer.from(prefix);
  let last = end.length - 1;
  while (last >= 0 && end[last] === 0xff) last -= 1;
  assert(last >= 0, "a prefix has a byte below 0xff");
  end[last] = (end[last] as number) + 1;
  return { start: prefix, end: end.subarray(0, last + 1) };
}

/** The first key after `key`: for reading on behind it. */
export function keyAfter(key: Buffer): Buffer {
  return Buffer.concat([key, NUL]);
}

const P = {
  block: ascii("b/"),
  node: ascii("n/"),
  reference: ascii("r/"),
  unreferenced: ascii("u/"),
  condemned: ascii("x/"),
  trash: ascii("t/"),
  waiting: ascii("tw/"),
  waitingUntil: ascii("tq/"),
  owed: ascii("o/"),
  owedHead: ascii("oh/"),
  lock: ascii("lq/"),
  lockWalk: ascii("lw/"),
  lockKeys: ascii("lk/"),
  headAt: ascii("h/"),
  stamp: ascii("st/"),
  run: ascii("sr/"),
  storage: ascii("ss/"),
  verify: ascii("v/"),
  recheck: ascii("k/"),
  leaving: ascii("l/"),
  renewal: ascii("rn/"),
  version: ascii("vu/"),
  volume: ascii("vv/"),
  session: ascii("se/"),
  heartbeat: ascii("sb/"),
  horizon: ascii("sh/"),
  claim: ascii("sc/"),
  hold: ascii("sd/"),
  job: ascii("j/"),
  openJob: ascii("jo/"),
  jobBeat: ascii("jb/"),
  jobKey: ascii("jk/"),
  jobLock: ascii("jl/"),
  jobHook: ascii("jh/"),
  schedule: ascii("js/"),
  accessKey: ascii("a/"),
} as const;

function parentBytes(parent: Parent): Buffer {
  switch (parent.kind) {
    case "node":
      return Buffer.concat([ascii("n"), hex(parent.id)]);
    case "version":
      return Buffer.concat([ascii("v"), ascii(parent.uid)]);
    case "hold":
      return Buffer.concat([ascii("s"), hex(parent.session), positionBytes(parent.position)]);
  }
}

function positionBytes(position: HoldPosition): Buffer {
  return Buffer.concat([Buffer.of(position.level), u64(position.index)]);
}

/** Builders of single keys. */
export const key = {
  config: ascii("c"),
  epoch: ascii("e"),
  accessKeysVersion: ascii("av"),
  block: (id: BlockId): Buffer => idKey(P.block, id),
  node: (id: BlockId): Buffer => idKey(P.node, id),
  reference: (child: BlockId, parent: Parent): Buffer =>
    Buffer.concat([P.reference, hex(child), parentBytes(parent)]),
  unreferenced: (id: BlockId): Buffer => idKey(P.unreferenced, id),
  condemned: (epoch: number, id: BlockId): Buffer =>
    Buffer.concat([P.condemned, u64(epoch), hex(id)]),
  trash: (storage: StorageId, name: string): Buffer =>
    Buffer.concat([P.trash, hex(storage), ascii(name)]),
  /** Trash that is locked at its storage. */
  waiting: (storage: StorageId, name: string): Buffer =>
    Buffer.concat([P.waiting, hex(storage), ascii(name)]),
  /** The same in the order in which the locks run out. */
  waitingUntil: (storage: StorageId, untilMs: number, name: string): Buffer =>
    Buffer.concat([P.waitingUntil, hex(storage), u64(untilMs), ascii(name)]),
  owed: (storage: StorageId, id: BlockId): Buffer => idKey(P.owed, storage, id),
  owedHead: (storage: StorageId, uid: VersionUid): Buffer =>
    Buffer.concat([P.owedHead, hex(storage), ascii(uid)]),
  /** An object whose lock is to be extended from `dueMs` on. */
  lock: (storage: StorageId, dueMs: number, name: string): Buffer =>
    Buffer.concat([P.lock, hex(storage), u64(dueMs), ascii(name)]),
  lockWalk: (storage: StorageId): Buffer => idKey(P.lockWalk, storage),
  lockKeys: (storage: StorageId): Buffer => idKey(P.lockKeys, storage),
  headAt: (storage: StorageId, name: string): Buffer =>
    Buffer.concat([P.headAt, hex(storage), ascii(name)]),
  stamp: (storage: StorageId, name: string): Buffer =>
    Buffer.concat([P.stamp, hex(storage), ascii(name)]),
  run: (storage: StorageId): Buffer => idKey(P.run, storage),
  storage: (storage: StorageId): Buffer => idKey(P.storage, storage),
  verify: (storage: StorageId, lastMs: number, id: BlockId): Buffer =>
    Buffer.concat([P.verify, hex(storage), u64(lastMs), hex(id)]),
  recheck: (id: BlockId): Buffer => idKey(P.recheck, id),
  /** A copy that may have to leave the storage. */
  leaving: (storage: StorageId, id: BlockId): Buffer => idKey(P.leaving, storage, id),
  /** An object that is to take the place of a copy's. */
  renewal: (storage: StorageId, id: BlockId): Buffer => idKey(P.renewal, storage, id),
  version: (uid: VersionUid): Buffer => Buffer.concat([P.version, ascii(uid)]),
  volume: (volume: string, createdMs: number, uid: VersionUid): Buffer =>
    Buffer.concat([P.volume, ascii(volume), NUL, u64(createdMs), ascii(uid)]),
  session: (session: SessionId): Buffer => idKey(P.session, session),
  heartbeat: (session: SessionId): Buffer => idKey(P.heartbeat, session),
  horizon: (session: SessionId): Buffer => idKey(P.horizon, session),
  claim: (session: SessionId, id: BlockId): Buffer => idKey(P.claim, session, id),
  hold: (session: SessionId, position: HoldPosition): Buffer =>
    Buffer.concat([P.hold, hex(session), positionBytes(position)]),
  job: (job: JobId): Buffer => Buffer.concat([P.job, ascii(job)]),
  openJob: (job: JobId): Buffer => Buffer.concat([P.openJob, ascii(job)]),
  jobBeat: (job: JobId): Buffer => Buffer.concat([P.jobBeat, ascii(job)]),
  jobHook: (job: JobId): Buffer => Buffer.concat([P.jobHook, ascii(job)]),
  schedule: (name: string): Buffer => Buffer.concat([P.schedule, ascii(name)]),
  accessKey: (accessId: string): Buffer => idKey(P.accessKey, accessId),
  // Names of any length and any characters.
  jobKey: (name: string): Buffer => Buffer.concat([P.jobKey, digest(name)]),
  jobLock: (name: string): Buffer => Buffer.concat([P.jobLock, digest(name)]),
} as const;

/** Builders of ranges. */
export const range = {
  blocks: (): KeyRange => prefixRange(P.block),
  nodes: (): KeyRange => prefixRange(P.node),
  references: (child?: BlockId): KeyRange =>
    prefixRange(child === undefined ? P.reference : idKey(P.reference, child)),
  unreferenced: (): KeyRange => prefixRange(P.unreferenced),
  /** All condemned, or only those of an epoch before `epoch`. */
  condemned: (epoch?: number): KeyRange =>
    epoch === undefined
      ? prefixRange(P.condemned)
      : { start: P.condemned, end: Buffer.concat([P.condemned, u64(epoch)]) },
  trash: (storage?: StorageId): KeyRange => prefixRange(withStorage(P.trash, storage)),
  waiting: (storage?: StorageId): KeyRange => prefixRange(withStorage(P.waiting, storage)),
  /** All that waits at a storage, or what waits until `untilMs` or less. */
  waitingUntil: (storage: StorageId, untilMs?: number): KeyRange => {
    const all = prefixRange(withStorage(P.waitingUntil, storage));
    return untilMs === undefined
      ? all
      : { start: all.start, end: key.waitingUntil(storage, untilMs + 1, "") };
  },
  owed: (storage?: StorageId): KeyRange => prefixRange(withStorage(P.owed, storage)),
  owedHeads: (storage?: StorageId): KeyRange => prefixRange(withStorage(P.owedHead, storage)),
  /** All locks of a storage that are extended, or those that are due at `dueMs` or before. */
  locks: (storage: StorageId, dueMs?: number): KeyRange => {
    const all = prefixRange(withStorage(P.lock, storage));
    return dueMs === undefined ? all : { start: all.start, end: key.lock(storage, dueMs + 1, "") };
  },
  headsAt: (storage: StorageId): KeyRange => prefixRange(withStorage(P.headAt, storage)),
  stamps: (storage: StorageId): KeyRange => prefixRange(withStorage(P.stamp, storage)),
  storages: (): KeyRange => prefixRange(P.storage),
  verify: (storage: StorageId): KeyRange => prefixRange(withStorage(P.verify, storage)),
  rechecks: (): KeyRange => prefixRange(P.recheck),
  leaving: (storage?: StorageId): KeyRange => prefixRange(withStorage(P.leaving, storage)),
  renewals: (storage?: StorageId): KeyRange => prefixRange(withStorage(P.renewal, storage)),
  versions: (uidPrefix = ""): KeyRange => prefixRange(Buffer.concat([P.version, ascii(uidPrefix)])),
  volume: (volume: string): KeyRange => prefixRange(Buffer.concat([P.volume, ascii(volume), NUL])),
  volumes: (): KeyRange => prefixRange(P.volume),
  sessions: (): KeyRange => prefixRange(P.session),
  claims: (session: SessionId): KeyRange => prefixRange(idKey(P.claim, session)),
  holds: (session: SessionId): KeyRange => prefixRange(idKey(P.hold, session)),
  allHolds: (): KeyRange => prefixRange(P.hold),
  jobHooks: (): KeyRange => prefixRange(P.jobHook),
  schedules: (): KeyRange => prefixRange(P.schedule),
  accessKeys: (): KeyRange => prefixRange(P.accessKey),
  /** All jobs, in the order of their submission; or those that were submitted before `job`. */
  jobs: (job?: JobId): KeyRange =>
    job === undefined
      ? prefixRange(P.job)
      : { start: P.job, end: Buffer.concat([P.job, ascii(job)]) },
  openJobs: (): KeyRange => prefixRange(P.openJob),
} as const;

function withStorage(prefix: Buffer, storage: StorageId | undefined): Buffer {
  return storage === undefined ? prefix : Buffer.concat([prefix, hex(storage)]);
}

/** Readers of what the keys of a range say. */
export const parse = {
  block: (bytes: Buffer): BlockId => blockIdFrom(bytes, P.block.length),
  node: (bytes: Buffer): BlockId => blockIdFrom(bytes, P.node.length),
  unreferenced: (bytes: Buffer): BlockId => blockIdFrom(bytes, P.unreferenced.length),
  recheck: (bytes: Buffer): BlockId => blockIdFrom(bytes, P.recheck.length),
  reference: (bytes: Buffer): { child: BlockId; parent: Parent } => {
    const at = P.reference.length + BLOCK_ID_BYTES;
    return { child: blockIdFrom(bytes, P.reference.length), parent: parseParent(bytes, at) };
  },
  condemned: (bytes: Buffer): { epoch: number; id: BlockId } => ({
    epoch: Number(bytes.readBigUInt64BE(P.condemned.length)),
    id: blockIdFrom(bytes, P.condemned.length + 8),
  }),
  trash: (bytes: Buffer): { storage: StorageId; name: string } => storageAndText(bytes, P.trash),
  waiting: (bytes: Buffer): { storage: StorageId; name: string } =>
    storageAndText(bytes, P.waiting),
  waitingUntil: (bytes: Buffer): { storage: StorageId; untilMs: number; name: string } => {
    const { storage, atMs: untilMs, name } = storageTimeAndText(bytes, P.waitingUntil);
    return { storage, untilMs, name };
  },
  lock: (bytes: Buffer): { storage: StorageId; dueMs: number; name: string } => {
    const { storage, atMs: dueMs, name } = storageTimeAndText(bytes, P.lock);
    return { storage, dueMs, name };
  },
  headAt: (bytes: Buffer): { storage: StorageId; name: string } => storageAndText(bytes, P.headAt),
  stamp: (bytes: Buffer): { storage: StorageId; name: string } => storageAndText(bytes, P.stamp),
  owedHead: (bytes: Buffer): { storage: StorageId; uid: VersionUid } => {
    const { storage, name } = storageAndText(bytes, P.owedHead);
    return { storage, uid: name as VersionUid };
  },
  owed: (bytes: Buffer): { storage: StorageId; id: BlockId } => ({
    storage: shortIdFrom<StorageId>(bytes, P.owed.length),
    id: blockIdFrom(bytes, P.owed.length + SHORT_ID_BYTES),
  }),
  leaving: (bytes: Buffer): { storage: StorageId; id: BlockId } => ({
    storage: shortIdFrom<StorageId>(bytes, P.leaving.length),
    id: blockIdFrom(bytes, P.leaving.length + SHORT_ID_BYTES),
  }),
  renewal: (bytes: Buffer): { storage: StorageId; id: BlockId } => ({
    storage: shortIdFrom<StorageId>(bytes, P.renewal.length),
    id: blockIdFrom(bytes, P.renewal.length + SHORT_ID_BYTES),
  }),
  verify: (bytes: Buffer): { storage: StorageId; lastMs: number; id: BlockId } => ({
    storage: shortIdFrom<StorageId>(bytes, P.verify.length),
    lastMs: Number(bytes.readBigUInt64BE(P.verify.length + SHORT_ID_BYTES)),
    id: blockIdFrom(bytes, P.verify.length + SHORT_ID_BYTES + 8),
  }),
  storage: (bytes: Buffer): StorageId => shortIdFrom<StorageId>(bytes, P.storage.length),
  session: (bytes: Buffer): SessionId => shortIdFrom<SessionId>(bytes, P.session.length),
  claim: (bytes: Buffer): { session: SessionId; id: BlockId } => ({
    session: shortIdFrom<SessionId>(bytes, P.claim.length),
    id: blockIdFrom(bytes, P.claim.length + SHORT_ID_BYTES),
  }),
  hold: (bytes: Buffer): { session: SessionId; position: HoldPosition } => ({
    session: shortIdFrom<SessionId>(bytes, P.hold.length),
    position: parsePosition(bytes, P.hold.length + SHORT_ID_BYTES),
  }),
  job: (bytes: Buffer): JobId => bytes.toString("utf8", P.job.length) as JobId,
  jobHook: (bytes: Buffer): JobId => bytes.toString("utf8", P.jobHook.length) as JobId,
  schedule: (bytes: Buffer): string => bytes.toString("utf8", P.schedule.length),
  accessKey: (bytes: Buffer): string => bytes.toString("hex", P.accessKey.length),
  openJob: (bytes: Buffer): JobId => bytes.toString("utf8", P.openJob.length) as JobId,
  volume: (bytes: Buffer): { volume: string; createdMs: number; uid: VersionUid } => {
    const nul = bytes.indexOf(0, P.volume.length);
    return {
      volume: bytes.toString("utf8", P.volume.length, nul),
      createdMs: Number(bytes.readBigUInt64BE(nul + 1)),
      uid: bytes.toString("utf8", nul + 9) as VersionUid,
    };
  },
} as const;

function storageAndText(bytes: Buffer, prefix: Buffer): { storage: StorageId; name: string } {
  return {
    storage: shortIdFrom<StorageId>(bytes, prefix.length),
    name: bytes.toString("utf8", prefix.length + SHORT_ID_BYTES),
  };
}

function storageTimeAndText(
  bytes: Buffer,
  prefix: Buffer,
): { storage: StorageId; atMs: number; name: string } {
  const at = prefix.length + SHORT_ID_BYTES;
  return {
    storage: shortIdFrom<StorageId>(bytes, prefix.length),
    atMs: Number(bytes.readBigUInt64BE(at)),
    name: bytes.toString("utf8", at + 8),
  };
}

function parsePosition(bytes: Buffer, at: number): HoldPosition {
  return { level: bytes[at] as number, index: Number(bytes.readBigUInt64BE(at + 1)) };
}

function parseParent(bytes: Buffer, at: number): Parent {
  const rest = at + 1;
  switch (bytes[at]) {
    case 0x6e:
      return { kind: "node", id: blockIdFrom(bytes, rest) };
    case 0x76:
      return { kind: "version", uid: bytes.toString("utf8", rest) as VersionUid };
    case 0x73:
      return {
        kind: "hold",
        session: shortIdFrom<SessionId>(bytes, rest),
        position: parsePosition(bytes, rest + SHORT_ID_BYTES),
      };
    default:
      assert(false, `reference key of an unknown parent kind: ${bytes.toString("hex")}`);
  }
}

/** The name of a block's or node's object on a storage (docs/format.md). */
export function objectName(kind: "block" | "node", id: BlockId, generation: Generation): string {
  return `${kind === "block" ? "blocks" : "nodes"}/${id}.${generation}`;
}
