// Reading blocks and nodes back: from the storages that have them, verified, failing over to another one when a copy is bad
// or a storage is away. A wrong or missing copy is judged only after its record was read again (DESIGN §4.8).
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlockId, StorageId } from "#lib/core/ids.ts";
import type { Slot, SlotPool } from "#lib/ports/compute.ts";
import { type BlockRecord, type Copy } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { readBlock } from "#lib/repository/ledger.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { markBad } from "#lib/repository/transactions/verify.ts";
import type { ReadBlockMessage, ReadOutcomeMessage, Requests } from "#proto/messages.ts";

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
  readonly reason: string;
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
    const failure = await tryCopy(repo, block, copy, into, out);
    if (failure === undefined) return { ok: true, offset, length: block.length };
    failures.push(failure);
    if (!failure.away) await judge(repo, id, copy, failure.reason);
  }
  const away = failures.length > 0 && failures.every((failure) => failure.away);
  const told = failures.map(
    (failure) => `${repo.storages.nameOf(failure.storage)}: ${failure.reason}`,
  );
  return {
    ok: false,
    code: away ? ErrorCode.Unavailable : ErrorCode.Damaged,
    reason: told.length > 0 ? told.join("; ") : "no storage has a good copy",
  };
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
      !failures.some((failure) => failure.storage === copy.storage),
  );
  const rank = (copy: Copy): number =>
    (copy.state === "bad" ? 2 : 0) + (repo.storages.isAvailable(copy.storage) ? 0 : 1);
  return copies.toSorted((a, b) => rank(a) - rank(b))[0];
}

async function tryCopy(
  repo: Repository,
  block: ReadBlockMessage,
  copy: Copy,
  into: Uint8Array,
  out: Uint8Array,
): Promise<Failure | undefined> {
  const { storage } = copy;
  try {
    const name = objectName(block.kind, block.id as BlockId, copy.generation);
    const sealed = await repo.storages.get(storage, name, into);
    const [opened] = await repo.compute.open([{ kind: block.kind, id: block.id, sealed }], out);
    if (opened?.ok === true && opened.length === block.length) return undefined;
    const reason = opened?.ok === false ? opened.reason : "it is of another size";
    return { storage, reason, away: false };
  } catch (error) {
    if (!(error instanceof AshlarError)) throw error;
    const wrong = isErrorCode(error, ErrorCode.NotFound) || isErrorCode(error, ErrorCode.Damaged);
    return { storage, reason: error.message, away: !wrong };
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
