// Sessions (DESIGN §4.6): start, resume, keep alive, die, end, settle.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, SessionId, Token, VersionUid } from "#lib/core/ids.ts";
import type { Kv, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import type { BlockRecord } from "../block-record.ts";
import { key, parse, range, READ_HOLD_LEVEL } from "../keyspace.ts";
import {
  BATCH_MAX,
  hasReference,
  newGeneration,
  queueUnreferenced,
  readBlock,
  readCounter,
  readEpoch,
  readPolicyStorages,
  readSession,
  requireSession,
  saveBlock,
  withCopy,
  writeCounter,
} from "../ledger.ts";
import {
  type Policy,
  decodeRecord,
  encodeRecord,
  type HeartbeatRecord,
  type JobRun,
  type SessionRecord,
  type VersionRecord,
} from "../records.ts";
import { MIXED_READING } from "#proto/messages.ts";
import { setHold } from "./commit-node.ts";

/** A session to start. */
export interface StartSession {
  readonly session: SessionId;
  readonly record: SessionRecord;
  readonly nowMs: number;
  /** The incomplete version that a backup makes. */
  readonly version?: VersionRecord;
  /** The version whose root is held for reading: an incremental's base, or what a restore reads. */
  readonly reads?: VersionUid;
}

/** Starts a session; a backup gets its horizon here, in the same transaction. Lands twice without harm. */
export function startSession(kv: Kv, start: StartSession): Promise<void> {
  const { session, record, version, reads } = start;
  return kv.transact(
    async (tx) => {
      const present = await readSession(tx, session);
      if (present !== undefined) {
        if (present.token === record.token) return;
        throw new AshlarError(ErrorCode.Fenced, `session ${session} belongs to somebody else`);
      }
      tx.set(key.session(session), encodeRecord(record));
      beat(tx, session, start.nowMs);
      if (reads !== undefined) await holdRoot(tx, session, reads);
      if (record.kind !== "backup") return;
      writeCounter(tx, key.horizon(session), await readEpoch(tx));
      if (version === undefined) return;
      if ((await tx.get(key.version(version.uid))) !== undefined) {
        throw new AshlarError(ErrorCode.AlreadyExists, `version ${version.uid} exists already`);
      }
      tx.set(key.version(version.uid), encodeRecord(version));
    },
    { label: record.kind === "backup" ? "start" : "free:start" },
  );
}

/** A hold is taken in a transaction that reads the version as not removed. */
async function holdRoot(tx: KvTransaction, session: SessionId, uid: VersionUid): Promise<void> {
  const value = await tx.get(key.version(uid));
  const version = value === undefined ? undefined : decodeRecord<VersionRecord>(value);
  if (
    version?.root === undefined ||
    version.state === "removed" ||
    version.state === "incomplete"
  ) {
    throw new AshlarError(ErrorCode.NotFound, `version ${uid} is not there any more`);
  }
  await setHold(tx, session, { level: READ_HOLD_LEVEL, index: 0 }, version.root);
}

function beat(tx: KvTransaction, session: SessionId, nowMs: number): void {
  tx.set(key.heartbeat(session), encodeRecord({ atMs: nowMs } satisfies HeartbeatRecord));
}

/**
 * Keeps a session alive and moves its horizon forward, never back.
 * @param reading what is being read from now on; a second one makes the session's reading mixed, for ever
 */
export function keepAlive(
  kv: Kv,
  session: SessionId,
  token: Token,
  nowMs: number,
  horizon: number | undefined,
  reading?: string,
): Promise<void> {
  return kv.transact(
    async (tx) => {
      const record = await requireSession(tx, session, token);
      beat(tx, session, nowMs);
      if (reading !== undefined && reading !== record.reading) {
        const mixed = record.reading === undefined ? reading : MIXED_READING;
        tx.set(key.session(session), encodeRecord({ ...record, reading: mixed }));
      }
      if (horizon === undefined || record.kind !== "backup") return;
      const current = await readCounter(tx, key.horizon(session), 0);
      if (horizon > current) writeCounter(tx, key.horizon(session), horizon);
    },
    { durable: false, label: "free:keep-alive" },
  );
}

/**
 * Takes over a dead session under a new token, with a new horizon; of several resumers one wins, the others get TryAgain.
 * @param owner.labels are added to the version's, and the version is dated anew where `dateAnew` is set
 * @param owner.wishes take the place of those of the version
 */
export function resumeSession(
  kv: Kv,
  session: SessionId,
  owner: {
    readonly host: string;
    readonly lock: string;
    readonly run?: JobRun;
    readonly token: Token;
    readonly nowMs: number;
    readonly labels?: Readonly<Record<string, string>>;
    readonly dateAnew?: boolean;
    readonly wishes?: PolicyWishes;
  },
): Promise<SessionRecord> {
  return kv.transact(async (tx) => {
    const record = await readSession(tx, session);
    if (record?.token === owner.token && record.state === "live") return record;
    if (record === undefined || record.state !== "dead") {
      throw new AshlarError(ErrorCode.TryAgain, `session ${session} cannot be resumed`);
    }
    const { run: _, ...rest } = record;
    const resumed: SessionRecord = {
      ...rest,
      ...(owner.run === undefined ? {} : { run: owner.run }),
      state: "live",
      token: owner.token,
      host: owner.host,
      lock: owner.lock,
      endedMs: undefined,
    };
    tx.set(key.session(session), encodeRecord(resumed));
    beat(tx, session, owner.nowMs);
    writeCounter(tx, key.horizon(session), await readEpoch(tx));
    await renewVersion(tx, session, resumed.uid, owner);
    return resumed;
  });
}

/** What a policy says beside where a version goes: it may change while the version is being made. */
type PolicyWishes = Pick<Policy, "prefer" | "compression">;

function withWishes({ storages, quorum }: Policy, { prefer, compression }: PolicyWishes): Policy {
  return {
    storages,
    quorum,
    ...(prefer === undefined ? {} : { prefer }),
    ...(compression === undefined ? {} : { compression }),
  };
}

async function renewVersion(
  tx: KvTransaction,
  session: SessionId,
  uid: VersionUid,
  renewal: {
    readonly nowMs: number;
    readonly labels?: Readonly<Record<string, string>>;
    readonly dateAnew?: boolean;
    readonly run?: JobRun;
    readonly wishes?: PolicyWishes;
  },
): Promise<void> {
  const { nowMs, labels = {}, dateAnew = false, run, wishes } = renewal;
  const changesNothing = Object.keys(labels).length === 0 && run === undefined;
  if (!dateAnew && changesNothing && wishes === undefined) return;
  const value = await tx.get(key.version(uid));
  const version = value === undefined ? undefined : decodeRecord<VersionRecord>(value);
  if (version?.state !== "incomplete" || version.session !== session) return;
  const { job: _, ...rest } = version;
  const renewed: VersionRecord = {
    ...rest,
    ...(run === undefined ? {} : { job: run.job }),
    labels: { ...version.labels, ...labels },
    policy: wishes === undefined ? version.policy : withWishes(version.policy, wishes),
    createdMs: dateAnew ? nowMs : version.createdMs,
  };
  tx.set(key.version(uid), encodeRecord(renewed));
}

/** Records that a session has lost its lease or failed; nothing when it is not live under `token` any more. */
export function markDead(
  kv: Kv,
  session: SessionId,
  token: Token,
  nowMs: number,
): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const record = await readSession(tx, session);
      if (record === undefined || record.state !== "live" || record.token !== token) return false;
      tx.set(key.session(session), encodeRecord({ ...record, state: "dead", endedMs: nowMs }));
      return true;
    },
    { label: "free:dead" },
  );
}

/** Ends a session: with its token (done), or without one when it is dead (abandoned). What is left is settled afterwards. */
export function endSession(
  kv: Kv,
  session: SessionId,
  token: Token | undefined,
  nowMs: number,
): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const record = await readSession(tx, session);
      if (record === undefined || record.state === "ended") return false;
      const mine = token !== undefined && record.token === token;
      if (!mine && record.state === "live") return false;
      tx.set(key.session(session), encodeRecord({ ...record, state: "ended", endedMs: nowMs }));
      return true;
    },
    { label: "free:end" },
  );
}

/** One session with its heartbeat and horizon. */
export interface SessionEntry {
  readonly session: SessionId;
  readonly record: SessionRecord;
  readonly heartbeatMs: number;
  readonly horizon: number | undefined;
}

/** All sessions that still have a record. */
export function listSessions(kv: Kv): Promise<SessionEntry[]> {
  return kv.read(async (reader) => {
    const entries = await reader.range({ ...range.sessions(), limit: 10_000 });
    const out: SessionEntry[] = [];
    for (const entry of entries) {
      const session = parse.session(entry.key);
      out.push({
        session,
        record: decodeRecord<SessionRecord>(entry.value),
        ...(await readBeat(reader, session)),
      });
    }
    return out;
  });
}

async function readBeat(
  reader: KvReader,
  session: SessionId,
): Promise<{ heartbeatMs: number; horizon: number | undefined }> {
  const heartbeat = await reader.get(key.heartbeat(session));
  const horizon = await readCounter(reader, key.horizon(session), 0);
  return {
    heartbeatMs: heartbeat === undefined ? 0 : decodeRecord<HeartbeatRecord>(heartbeat).atMs,
    horizon: horizon === 0 ? undefined : horizon,
  };
}

/**
 * One bounded step of settling an ended session: its claims, then its holds, then its version if it never turned valid;
 * the session's record goes last. True while there is more to do.
 */
export function settleStep(kv: Kv, random: Random, session: SessionId): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const record = await readSession(tx, session);
      if (record === undefined || record.state !== "ended") return false;
      const claims = await tx.range({ ...range.claims(session), limit: BATCH_MAX / 4 });
      for (const entry of claims) {
        await settleClaim(tx, random, session, parse.claim(entry.key).id);
        tx.clear(entry.key);
      }
      if (claims.length > 0) return true;
      const holds = await tx.range({ ...range.holds(session), limit: BATCH_MAX });
      for (const entry of holds) {
        const { position } = parse.hold(entry.key);
        const id = entry.value.toString("hex") as BlockId;
        tx.clear(entry.key);
        tx.clear(key.reference(id, { kind: "hold", session, position }));
        queueUnreferenced(tx, id);
      }
      if (holds.length > 0) return true;
      await dropIncomplete(tx, record, session);
      tx.clear(key.heartbeat(session));
      tx.clear(key.horizon(session));
      tx.clear(key.session(session));
      return false;
    },
    { durable: false, label: "free:settle" },
  );
}

/** What is still coming goes to trash, owed under a new generation where the block is referenced and the storage is there. */
async function settleClaim(
  tx: KvTransaction,
  random: Random,
  session: SessionId,
  id: BlockId,
): Promise<void> {
  const before = await readBlock(tx, id);
  if (before === undefined) return;
  const referenced = await hasReference(tx, id);
  const storages = before.copies.map((copy) => copy.storage);
  const { retired } = await readPolicyStorages(tx, { storages, quorum: 1 });
  let after: BlockRecord = before;
  for (const copy of before.copies) {
    if (copy.state !== "coming" || copy.session !== session) continue;
    after =
      referenced && !retired.includes(copy.storage)
        ? withCopy(after, {
            state: "owed",
            storage: copy.storage,
            generation: newGeneration(random),
          })
        : { ...after, copies: after.copies.filter((other) => other !== copy) };
  }
  if (after !== before) await saveBlock(tx, id, before, after);
  if (!referenced) queueUnreferenced(tx, id);
}

async function dropIncomplete(
  tx: KvTransaction,
  record: SessionRecord,
  session: SessionId,
): Promise<void> {
  if (record.kind !== "backup") return;
  const value = await tx.get(key.version(record.uid));
  if (value === undefined) return;
  const version = decodeRecord<VersionRecord>(value);
  if (version.state === "incomplete" && version.session === session) {
    tx.clear(key.version(record.uid));
  }
}

/** Whether a session has claimed or committed anything that resuming it would save. */
export function hasBrought(kv: Kv, session: SessionId): Promise<boolean> {
  return kv.read(async (reader) => {
    const claims = await reader.range({ ...range.claims(session), limit: 1 });
    const holds = await reader.range({ ...range.holds(session), limit: 2 });
    return (
      claims.length +
        holds.filter((entry) => parse.hold(entry.key).position.level !== READ_HOLD_LEVEL).length >
      0
    );
  });
}

/** The nodes that a session holds, by position: what a resumed backup of a frozen source need not read again. */
export async function listHolds(
  kv: Kv,
  session: SessionId,
): Promise<{ readonly level: number; readonly index: number; readonly id: BlockId }[]> {
  const out: { level: number; index: number; id: BlockId }[] = [];
  let { start } = range.holds(session);
  const { end } = range.holds(session);
  for (;;) {
    const entries = await kv.read((reader) => reader.range({ start, end, limit: 1000 }));
    for (const entry of entries) {
      const { position } = parse.hold(entry.key);
      if (position.level === READ_HOLD_LEVEL) continue;
      out.push({ ...position, id: entry.value.toString("hex") as BlockId });
    }
    const last = entries.at(-1);
    if (last === undefined || entries.length < 1000) return out;
    start = Buffer.concat([last.key, Buffer.of(0)]);
  }
}
