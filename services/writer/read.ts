// Reading blocks and nodes back: from the storages that have them, verified, failing over to another one when a copy is bad
// or a storage is away. A wrong or missing copy is judged only after its record was read again (DESIGN §4.8).
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import {
  asShortId,
  type BlockId,
  type SessionId,
  type StorageId,
  type Token,
} from "#lib/core/ids.ts";
import type { GetOptions } from "#lib/ports/blob-store.ts";
import type { Slot, SlotPool } from "#lib/ports/compute.ts";
import { type BlockRecord, type Copy } from "#lib/repository/block-record.ts";
import { readBlock, requireSession } from "#lib/repository/ledger.ts";
import { passedOn } from "#lib/repository/key-wrap.ts";
import { canOpen } from "#lib/repository/keys.ts";
import type { SessionRecord } from "#lib/repository/records.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { markBad } from "#lib/repository/transactions/verify.ts";
import type { ReadBlockMessage, ReadOutcomeMessage } from "#proto/message-parts.ts";
import type { Requests } from "#proto/messages.ts";
import { asAway } from "./away.ts";
import { fetchCopy } from "./fetch-copy.ts";
import type { ReadSteering } from "./read-steering.ts";

/** What reads share. */
export interface ReadContext {
  readonly repo: Repository;
  /** Slots for sealed objects as they are read. */
  readonly sealed: SlotPool;
  /** Slots for plaintexts, given to the asker. */
  readonly plain: SlotPool;
  readonly steering: ReadSteering;
}

/** Handles a `read` request: the payload holds the plaintexts one behind the other. */
export async function readBlocksBack(
  context: ReadContext,
  request: Requests["read"]["request"],
): Promise<{ body: Requests["read"]["reply"]; payload: Slot }> {
  if (!canOpen(context.repo.keys)) throw passedOn();
  const { policy } = await requireRestore(context.repo, request);
  const plain = await context.plain.acquire();
  try {
    const sealed = await context.sealed.acquire();
    try {
      const outcomes = await readAll(context, request, policy?.prefer ?? [], sealed, plain);
      return { body: { outcomes }, payload: plain };
    } finally {
      sealed.release();
    }
  } catch (error) {
    plain.release();
    throw error;
  }
}

/** What is stored is given back to whoever restores it, and to nobody who merely knows its id. The restore's session. */
async function requireRestore(
  { kv }: Repository,
  { session, token }: Requests["read"]["request"],
): Promise<SessionRecord> {
  const record = await kv.read((reader) =>
    requireSession(reader, asShortId<SessionId>(session), asShortId<Token>(token)),
  );
  if (record.kind === "restore") return record;
  throw new AshlarError(ErrorCode.Refused, `session ${session} is of no restore`);
}

async function readAll(
  context: ReadContext,
  request: Requests["read"]["request"],
  preferred: readonly StorageId[],
  sealed: Slot,
  plain: Slot,
): Promise<ReadOutcomeMessage[]> {
  const only = request.storage === null ? undefined : (request.storage as StorageId);
  const outcomes: ReadOutcomeMessage[] = [];
  const share = Math.floor(sealed.bytes.length / request.blocks.length);
  let at = 0;
  const places = request.blocks.map((block) => {
    const offset = at;
    at += block.length;
    return offset;
  });
  await Promise.all(
    request.blocks.map(async (block, index) => {
      const into = sealed.bytes.subarray(index * share, (index + 1) * share);
      const offset = places[index] as number;
      const out = plain.bytes.subarray(offset, offset + block.length);
      const outcome = await readOne(context, { block, only, preferred, into, slot: sealed, out });
      outcomes[index] = outcome.ok ? { ok: true, offset, length: block.length } : outcome;
    }),
  );
  return outcomes;
}

interface Failure {
  /** A bad copy may be replaced by a good one, at the same storage, while others are tried. */
  readonly copy: Copy;
  readonly reason: string;
  /** It says nothing about the copy. */
  readonly away: boolean;
}

/** One block to read, and where it goes. */
interface Reading {
  readonly block: ReadBlockMessage;
  readonly only: StorageId | undefined;
  /** Of the version's policy. */
  readonly preferred: readonly StorageId[];
  /** For the sealed object; a part of `slot`, or memory of its own where somebody may still write into that. */
  into: Uint8Array;
  readonly slot: Slot;
  /** For its plaintext. */
  readonly out: Uint8Array;
}

async function readOne(
  context: ReadContext,
  reading: Reading,
): Promise<{ readonly ok: true } | Extract<ReadOutcomeMessage, { ok: false }>> {
  const { repo } = context;
  const failures: Failure[] = [];
  const id = reading.block.id as BlockId;
  // A copy may be replaced while it is read: the record is read again after each failure.
  for (let tries = 0; tries < 8; tries += 1) {
    const record = await repo.kv.read((reader) => readBlock(reader, id));
    const [first, second] = candidates(context, record, reading, failures);
    if (first === undefined) break;
    const failure = await tryCopies(context, reading, first, second);
    if (failure === undefined) return { ok: true };
    failures.push(failure);
    if (!failure.away) await judge(repo, id, failure.copy, failure.reason);
  }
  const told = failures.map(
    ({ copy, reason }) => `${repo.storages.nameOf(copy.storage)}: ${reason}`,
  );
  return {
    ok: false,
    code: isAway(failures) ? ErrorCode.Unavailable : ErrorCode.Damaged,
    reason: told.length > 0 ? told.join("; ") : "no storage has a good copy",
  };
}

/** Not lost, as far as is known: a copy that is not bad could not be read, or none could. */
function isAway(failures: readonly Failure[]): boolean {
  const away = failures.filter((failure) => failure.away);
  if (away.some(({ copy }) => copy.state === "placed")) return true;
  return failures.length > 0 && away.length === failures.length;
}

/**
 * The copies to try, the best first: placed, not tried yet, at a storage that is there; of those the ones that are to be read
 * first, by the version or by the storages, unless they hang, and of several such the one that is likely to answer first.
 */
function candidates(
  { repo, steering }: ReadContext,
  record: BlockRecord | undefined,
  { only, preferred }: Reading,
  failures: readonly Failure[],
): Copy[] {
  const copies = (record?.copies ?? []).filter(
    ({ state, storage, generation }) =>
      (state === "placed" || state === "bad") &&
      (only === undefined || storage === only) &&
      !failures.some(({ copy }) => copy.storage === storage && copy.generation === generation),
  );
  const worth = ({ state, storage }: Copy): number =>
    (state === "bad" ? 2 : 0) + (repo.storages.isAvailable(storage) ? 0 : 1);
  const avoided = new Map(copies.map(({ storage }) => [storage, steering.isToAvoid(storage)]));
  const preference = ({ storage }: Copy): number => {
    const at = preferred.indexOf(storage);
    return at < 0 ? preferred.length : at;
  };
  const lateness = ({ storage }: Copy): number => Number(avoided.get(storage));
  return copies.toSorted(
    (a, b) =>
      worth(a) - worth(b) ||
      lateness(a) - lateness(b) ||
      preference(a) - preference(b) ||
      repo.storages.readOrder(a.storage) - repo.storages.readOrder(b.storage) ||
      steering.expectedMs(a.storage) - steering.expectedMs(b.storage),
  );
}

/** What is wrong with the copy that was read, or undefined: then its plaintext is in `out`. */
async function tryCopies(
  { repo, steering }: ReadContext,
  reading: Reading,
  first: Copy,
  other: Copy | undefined,
): Promise<Failure | undefined> {
  const { block, only, slot, out } = reading;
  const isGood = other?.state === "placed" && repo.storages.isAvailable(other.storage);
  const second = isGood && other.storage !== first.storage ? other : undefined;
  const id = block.id as BlockId;
  const { kind } = block;
  // A cache would prove nothing about the one storage that is asked for.
  let cached: GetOptions["cached"] = only === undefined ? "use" : undefined;
  for (let tries = 1; ; tries += 1) {
    try {
      const { into } = reading;
      const request = { kind, id, first, second, cached, into, slot };
      const { copy, sealed, isBusy, firstError } = await fetchCopy(repo, steering, request);
      if (isBusy === true) reading.into = new Uint8Array(new SharedArrayBuffer(into.length));
      if (isDamage(firstError)) await judge(repo, id, first, firstError.message);
      const [opened] = await repo.compute.open([{ kind, id, sealed }], out);
      if (opened?.ok === true && opened.length === block.length) return undefined;
      // What a cache may have kept says nothing about the copy: only what came from the storage just now is judged.
      if (cached === "use") {
        cached = "renew";
        continue;
      }
      const reason = opened?.ok === false ? opened.reason : "it is of another size";
      return { copy, reason, away: false };
    } catch (error) {
      if (!(error instanceof AshlarError)) throw error;
      const { details, message: reason } = error;
      if (isDamage(error)) return { copy: first, reason, away: false };
      // A sector that cannot be read is damage; but a failing cable looks the same, so it is asked twice.
      if (details["errno"] !== "EIO") return { copy: first, reason, away: true };
      if (tries > 1) return { copy: first, reason, away: !(await isThere(repo, first.storage)) };
    }
  }
}

/** It says that the copy is wrong or missing. */
function isDamage(error: unknown): error is AshlarError {
  return isErrorCode(error, ErrorCode.NotFound) || isErrorCode(error, ErrorCode.Damaged);
}

/** Whether a storage that failed to read an object can be read at all. */
async function isThere(repo: Repository, storage: StorageId): Promise<boolean> {
  try {
    await repo.storages.store(storage).check();
    return true;
  } catch (error) {
    asAway(error);
    return false;
  }
}

/** Marks a copy bad if its record still names it as placed. */
async function judge(repo: Repository, id: BlockId, copy: Copy, reason: string): Promise<void> {
  if (copy.state !== "placed") return;
  const { storage, generation } = copy;
  const marked = await markBad(repo.kv, repo.random, { id, storage, generation });
  if (!marked) return;
  repo.telemetry.count("ashlar.copies.bad", 1, { storage: repo.storages.nameOf(storage) });
  repo.log.warn("a damaged object was found", {
    storage: repo.storages.nameOf(storage),
    object: id,
    reason,
  });
}
