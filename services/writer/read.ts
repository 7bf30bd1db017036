// Reading blocks and nodes back: from the storages that have them, verified, failing over to another one when a copy is bad
// or a storage is away. A wrong or missing copy is judged only after its record was read again (DESIGN §4.8).
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import {
  asShortId,
  type BlockId,
  type Generation,
  type SessionId,
  type StorageId,
  type Token,
} from "#lib/core/ids.ts";
import type { GetOptions } from "#lib/ports/blob-store.ts";
import type { Slot, SlotPool } from "#lib/ports/compute.ts";
import { type BlockRecord, type Copy } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { readBlock, requireSession } from "#lib/repository/ledger.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { markBad } from "#lib/repository/transactions/verify.ts";
import type { ReadBlockMessage, ReadOutcomeMessage, Requests } from "#proto/messages.ts";
import { asAway } from "./away.ts";

/** What reads share. */
export interface ReadContext {
  readonly repo: Repository;
  /** Slots for sealed objects as they are read. */
  readonly sealed: SlotPool;
  /** Slots for plaintexts, given to the asker. */
  readonly plain: SlotPool;
}

/** Handles a `read` request: the payload holds the plaintexts one behind the other. */
export async function readBlocksBack(
  context: ReadContext,
  request: Requests["read"]["request"],
): Promise<{ body: Requests["read"]["reply"]; payload: Slot }> {
  await requireRestore(context.repo, request);
  const plain = await context.plain.acquire();
  try {
    const sealed = await context.sealed.acquire();
    try {
      const outcomes = await readAll(context, request, sealed, plain);
      return { body: { outcomes }, payload: plain };
    } finally {
      sealed.release();
    }
  } catch (error) {
    plain.release();
    throw error;
  }
}

/** What is stored is given back to whoever restores it, and to nobody who merely knows its id. */
async function requireRestore(
  { kv }: Repository,
  { session, token }: Requests["read"]["request"],
): Promise<void> {
  const { kind } = await kv.read((reader) =>
    requireSession(reader, asShortId<SessionId>(session), asShortId<Token>(token)),
  );
  if (kind === "restore") return;
  throw new AshlarError(ErrorCode.Refused, `session ${session} is of no restore`);
}

async function readAll(
  context: ReadContext,
  request: Requests["read"]["request"],
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
      outcomes[index] = await readOne(context.repo, block, only, into, out, offset);
    }),
  );
  return outcomes;
}

interface Failure {
  readonly storage: StorageId;
  /** A bad copy may be replaced by a good one, at the same storage, while others are tried. */
  readonly generation: Generation;
  readonly state: Copy["state"];
  readonly reason: string;
  /** It says nothing about the copy. */
  readonly away: boolean;
}

async function readOne(
  repo: Repository,
  block: ReadBlockMessage,
  only: StorageId | undefined,
  into: Uint8Array,
  out: Uint8Array,
  offset: number,
): Promise<ReadOutcomeMessage> {
  const failures: Failure[] = [];
  const id = block.id as BlockId;
  // A copy may be replaced while it is read: the record is read again after each failure.
  for (let tries = 0; tries < 8; tries += 1) {
    const record = await repo.kv.read((reader) => readBlock(reader, id));
    const copy = candidate(repo, record, only, failures);
    if (copy === undefined) break;
    // A cache would prove nothing about the one storage that is asked for.
    const cached = only === undefined ? "use" : undefined;
    const failure = await tryCopy(repo, block, copy, { into, out, cached });
    if (failure === undefined) return { ok: true, offset, length: block.length };
    failures.push(failure);
    if (!failure.away) await judge(repo, id, copy, failure.reason);
  }
  const told = failures.map(
    (failure) => `${repo.storages.nameOf(failure.storage)}: ${failure.reason}`,
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
  if (away.some(({ state }) => state === "placed")) return true;
  return failures.length > 0 && away.length === failures.length;
}

/** The copy to try next: placed, not tried yet, at a storage that is there, if any. */
function candidate(
  repo: Repository,
  record: BlockRecord | undefined,
  only: StorageId | undefined,
  failures: readonly Failure[],
): Copy | undefined {
  const copies = (record?.copies ?? []).filter(
    (copy) =>
      (copy.state === "placed" || copy.state === "bad") &&
      (only === undefined || copy.storage === only) &&
      !failures.some(
        ({ storage, generation }) => storage === copy.storage && generation === copy.generation,
      ),
  );
  const rank = (copy: Copy): number =>
    (copy.state === "bad" ? 2 : 0) + (repo.storages.isAvailable(copy.storage) ? 0 : 1);
  return copies.toSorted((a, b) => rank(a) - rank(b))[0];
}

/** What is wrong with a copy, or undefined: then its plaintext is in `out`. */
async function tryCopy(
  repo: Repository,
  block: ReadBlockMessage,
  copy: Copy,
  how: { readonly into: Uint8Array; readonly out: Uint8Array; readonly cached: "use" | undefined },
): Promise<Failure | undefined> {
  const { into, out } = how;
  const failure = (reason: string, away: boolean): Failure => ({ ...copy, reason, away });
  const name = objectName(block.kind, block.id as BlockId, copy.generation);
  let cached: GetOptions["cached"] = how.cached;
  for (let tries = 1; ; tries += 1) {
    try {
      const sealed = await repo.storages.get(copy.storage, name, {
        into,
        ...(cached === undefined ? {} : { cached }),
      });
      const [opened] = await repo.compute.open([{ kind: block.kind, id: block.id, sealed }], out);
      if (opened?.ok === true && opened.length === block.length) return undefined;
      // What a cache may have kept says nothing about the copy: only what came from the storage just now is judged.
      if (cached === "use") {
        cached = "renew";
        continue;
      }
      return failure(opened?.ok === false ? opened.reason : "it is of another size", false);
    } catch (error) {
      if (!(error instanceof AshlarError)) throw error;
      const { code, details, message } = error;
      if (code === ErrorCode.NotFound || code === ErrorCode.Damaged) return failure(message, false);
      // A sector that cannot be read is damage; but a failing cable looks the same, so it is asked twice.
      if (details["errno"] !== "EIO") return failure(message, true);
      if (tries > 1) return failure(message, !(await isThere(repo, copy.storage)));
    }
  }
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
