// Versions: finishing a backup (DESIGN §4.3), changing labels and protection, removing (§4.4).
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, SessionId, StorageId, Token, VersionUid } from "#lib/core/ids.ts";
import type { Kv, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { currentAt, placedAt, type BlockRecord } from "../block-record.ts";
import { key, range } from "../keyspace.ts";
import {
  newGeneration,
  queueUnreferenced,
  readBlock,
  readPolicyStorages,
  rely,
  requireSession,
  revive,
  saveBlock,
  withCopy,
  writeCounter,
} from "../ledger.ts";
import {
  decodeRecord,
  encodeRecord,
  type BackupStatistics,
  type Policy,
  type SessionRecord,
  type VersionRecord,
} from "../records.ts";

const EMPTY = Buffer.alloc(0);

/** What a backup knows at its end. */
export interface FinishRequest {
  readonly session: SessionId;
  readonly token: Token;
  readonly nowMs: number;
  readonly root: BlockId;
  readonly sizeBytes: number;
  readonly levels: number;
  readonly statistics: BackupStatistics;
  readonly labels: Readonly<Record<string, string>>;
  readonly warnings: readonly string[];
  /** The root must be placed at every storage of the policy, not only at a quorum. */
  readonly requireComplete: boolean;
}

/** How finishing ended. */
export type FinishResult =
  | { readonly kind: "valid"; readonly version: VersionRecord }
  /** The root is in the way: claim it for these storages, all of them, and commit it again. */
  | { readonly kind: "returned"; readonly storages: readonly StorageId[] };

/**
 * Turns a version valid and ends its session, in one transaction: the root is placed at a quorum and unmarked, is
 * referenced, and is owed to the other storages of the policy; so are the heads. Lands twice without harm.
 */
export function finishVersion(
  kv: Kv,
  random: Random,
  request: FinishRequest,
): Promise<FinishResult> {
  return kv.transact(
    async (tx) => {
      const done = await finishedAlready(tx, request);
      if (done !== undefined) return { kind: "valid", version: done };
      const session = await requireSession(tx, request.session, request.token);
      const version = await requireVersion(tx, session.uid);
      if (version.state !== "incomplete" || version.session !== request.session) {
        throw new AshlarError(
          ErrorCode.Fenced,
          `version ${version.uid} is not unfinished any more`,
        );
      }
      const before = await readBlock(tx, request.root);
      const storages = await readPolicyStorages(tx, version.policy);
      const placed = storages.counting.filter(
        (storage) => before !== undefined && placedAt(before, storage) !== undefined,
      );
      const all = version.policy.storages.length - storages.retired.length;
      const needed = request.requireComplete ? Math.max(all, storages.quorum) : storages.quorum;
      if (before === undefined || before.damaged || placed.length < needed) {
        const rest = storages.taking.filter((storage) => !placed.includes(storage));
        return { kind: "returned", storages: [...placed, ...rest].slice(0, needed) };
      }
      const policy = policyLeft(version.policy, storages.retired);
      await referenceRoot(tx, random, { ...version, policy }, request.root, before);
      const valid = { ...finished(version, request), policy };
      tx.set(key.version(valid.uid), encodeRecord(valid));
      tx.set(key.volume(valid.volume, valid.createdMs, valid.uid), EMPTY);
      oweHeads(tx, valid);
      endInSameTransaction(tx, request, session);
      return { kind: "valid", version: valid };
    },
    { label: "finish" },
  );
}

/** The policy without some storages, as far as something is left of it. */
export function policyLeft(policy: Policy, without: readonly StorageId[]): Policy {
  const isLeft = (storage: StorageId): boolean => !without.includes(storage);
  const storages = policy.storages.filter(isLeft);
  if (storages.length === 0 || storages.length === policy.storages.length) return policy;
  const prefer = policy.prefer?.filter(isLeft) ?? [];
  const quorum = Math.min(policy.quorum, storages.length);
  const { compression } = policy;
  return {
    storages,
    quorum,
    ...(prefer.length === 0 ? {} : { prefer }),
    ...(compression === undefined ? {} : { compression }),
  };
}

async function finishedAlready(
  tx: KvTransaction,
  request: FinishRequest,
): Promise<VersionRecord | undefined> {
  const value = await tx.get(key.session(request.session));
  if (value === undefined) return undefined;
  const session = decodeRecord<SessionRecord>(value);
  if (session.state !== "ended" || session.token !== request.token) return undefined;
  const version = await readVersion(tx, session.uid);
  return version?.state === "valid" && version.root === request.root ? version : undefined;
}

async function referenceRoot(
  tx: KvTransaction,
  random: Random,
  version: VersionRecord,
  root: BlockId,
  before: BlockRecord,
): Promise<void> {
  tx.set(key.reference(root, { kind: "version", uid: version.uid }), EMPTY);
  let after = rely(revive(tx, root, before), version.policy.storages);
  for (const storage of version.policy.storages) {
    if (currentAt(after, storage) === undefined) {
      after = withCopy(after, { state: "owed", storage, generation: newGeneration(random) });
    }
  }
  if (after !== before) await saveBlock(tx, root, before, after);
}

function finished(version: VersionRecord, request: FinishRequest): VersionRecord {
  return {
    ...version,
    state: "valid",
    root: request.root,
    sizeBytes: request.sizeBytes,
    levels: request.levels,
    statistics: request.statistics,
    labels: { ...version.labels, ...request.labels },
    warnings: request.warnings,
    revision: 1,
    session: undefined,
  };
}

function endInSameTransaction(
  tx: KvTransaction,
  request: FinishRequest,
  session: SessionRecord,
): void {
  const ended: SessionRecord = { ...session, state: "ended", endedMs: request.nowMs };
  tx.set(key.session(request.session), encodeRecord(ended));
}

/** Owes the current revision of a version's head to every storage of its policy. */
export function oweHeads(tx: KvTransaction, version: VersionRecord): void {
  for (const storage of version.policy.storages) {
    writeCounter(tx, key.owedHead(storage, version.uid), version.revision);
  }
}

/** A version's record, or undefined. */
export async function readVersion(
  reader: KvReader,
  uid: VersionUid,
): Promise<VersionRecord | undefined> {
  const value = await reader.get(key.version(uid));
  return value === undefined ? undefined : decodeRecord<VersionRecord>(value);
}

/** A version's record; NotFound when there is none or it was removed. */
export async function requireVersion(reader: KvReader, uid: VersionUid): Promise<VersionRecord> {
  const version = await readVersion(reader, uid);
  if (version === undefined || version.state === "removed") {
    throw new AshlarError(ErrorCode.NotFound, `there is no version ${uid}`, {
      remedy: "`ashlar ls` lists the versions",
    });
  }
  return version;
}

/** What of a version can be changed; labels with an undefined value are removed. */
export interface VersionChange {
  readonly labels?: Readonly<Record<string, string | undefined>>;
  readonly protected?: boolean;
}

/** Changes labels or protection: a new revision, raised here before any head is put. */
export function changeVersion(
  kv: Kv,
  uid: VersionUid,
  change: VersionChange,
): Promise<VersionRecord> {
  return kv.transact(
    async (tx) => {
      const version = await requireVersion(tx, uid);
      const labels = Object.fromEntries(
        Object.entries({ ...version.labels, ...change.labels }).filter(
          (entry): entry is [string, string] => entry[1] !== undefined,
        ),
      );
      const changed: VersionRecord = {
        ...version,
        labels,
        protected: change.protected ?? version.protected,
        revision: version.revision + 1,
      };
      tx.set(key.version(uid), encodeRecord(changed));
      if (version.state !== "incomplete") oweHeads(tx, changed);
      return changed;
    },
    { label: "free:change" },
  );
}

/**
 * Removes a version: clears its reference on the root and owes the last revision of its head; the record stays as a
 * tombstone. Refused while it is protected. Lands twice without harm.
 */
export function removeVersion(kv: Kv, uid: VersionUid): Promise<VersionRecord> {
  return kv.transact(
    async (tx) => {
      const version = await readVersion(tx, uid);
      if (version?.state === "removed") return version;
      const present = await requireVersion(tx, uid);
      if (present.protected) {
        throw new AshlarError(ErrorCode.Refused, `version ${uid} is protected`, {
          remedy: `\`ashlar unprotect ${uid}\` first`,
        });
      }
      if (present.state === "incomplete") {
        throw new AshlarError(ErrorCode.TryAgain, `version ${uid} is being made`, {
          remedy: "`ashlar gc --abandon` drops unfinished versions that nobody works on",
        });
      }
      if (present.root !== undefined) {
        tx.clear(key.reference(present.root, { kind: "version", uid }));
        queueUnreferenced(tx, present.root);
      }
      const removed: VersionRecord = {
        ...present,
        state: "removed",
        revision: present.revision + 1,
      };
      tx.set(key.version(uid), encodeRecord(removed));
      tx.clear(key.volume(present.volume, present.createdMs, uid));
      oweHeads(tx, removed);
      return removed;
    },
    { label: "free:remove" },
  );
}

/** All versions, also incomplete ones; tombstones only when asked for. Read in bounded steps. */
export async function* listVersions(
  kv: Kv,
  options: { readonly removed?: boolean } = {},
): AsyncGenerator<VersionRecord> {
  let { start } = range.versions();
  const { end } = range.versions();
  for (;;) {
    const entries = await kv.read((reader) => reader.range({ start, end, limit: 500 }));
    for (const entry of entries) {
      const version = decodeRecord<VersionRecord>(entry.value);
      if (version.state !== "removed" || options.removed === true) yield version;
    }
    const last = entries.at(-1);
    if (last === undefined || entries.length < 500) return;
    start = Buffer.concat([last.key, Buffer.of(0)]);
  }
}
