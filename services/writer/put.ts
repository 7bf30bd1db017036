// Putting blocks and nodes (DESIGN §4.2): seal, put to all storages in parallel, record as placed. A slow or broken storage
// never holds the others up beyond the quorum: what it lacks is left owed. Puts that have begun go on, and are recorded when
// they end; those that still wait for their turn (put-turns.ts) are given up.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import type { Payload } from "#lib/ports/bus.ts";
import type { Piece, Slot, SlotPool } from "#lib/ports/compute.ts";
import type { Span } from "#lib/ports/telemetry.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { requireCompression } from "#lib/repository/compression-choice.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import type { NamedCopy } from "#lib/repository/transactions/claim.ts";
import { placeFilled } from "#lib/repository/transactions/fill.ts";
import {
  storeBlocks,
  type StoredBlock,
  type StoreOutcome,
} from "#lib/repository/transactions/store.ts";
import type { PutBlockMessage, PutOutcomeMessage } from "#proto/message-parts.ts";
import type { Requests } from "#proto/messages.ts";
import type { LateNodes } from "./late-nodes.ts";
import type { LatePuts } from "./late-puts.ts";
import { PutHolder, type PutTurns } from "./put-turns.ts";

/** How long a put waits for the slower storages once the quorum has it, in ms: one transaction instead of two. */
const GRACE_MS = 200;

/** What puts share. */
export interface PutContext {
  readonly repo: Repository;
  /** Slots for sealed objects: the writer's budget in bytes. */
  readonly sealed: SlotPool;
  readonly turns: PutTurns;
  readonly lateNodes: LateNodes;
  readonly latePuts: LatePuts;
}

type Kind = "block" | "node";

/** One object on its way to one storage. */
interface Put {
  readonly storage: StorageId;
  readonly generation: Generation;
  state: "waiting" | "running" | "done" | "failed";
  error: unknown;
  endedMs: number | undefined;
  /** Resolves when it is done or has failed. */
  ended: Promise<void>;
}

/** One block with its puts. */
interface Block {
  readonly id: BlockId;
  readonly need: number;
  readonly storedBytes: number;
  readonly puts: Put[];
}

/** What the puts of a request have in common. */
interface Batch {
  readonly kind: Kind;
  readonly slot: Slot;
  readonly holder: PutHolder;
  readonly span: Span;
}

/** Handles a `put` request; Unavailable or Io when a quorum cannot be had. */
export async function putBlocks(
  context: PutContext,
  request: Requests["put"]["request"],
  payload: Payload,
): Promise<Requests["put"]["reply"]> {
  const { repo, sealed, turns } = context;
  const span = repo.telemetry.span("writer.put", { blocks: request.blocks.length });
  const { clock } = repo;
  const startMs = clock.monotonic();
  const slot = await sealed.acquire();
  const slotMs = clock.monotonic();
  const spare = Math.max(...request.blocks.map(({ copies, need }) => copies.length - need));
  const batch: Batch = { kind: request.kind, slot, holder: new PutHolder(turns, spare), span };
  try {
    const pieces = await sealAll(repo, request, payload, slot);
    const sealedMs = clock.monotonic();
    const blocks = startPuts(context, batch, request.blocks, pieces);
    await enough(context, blocks);
    const enoughMs = clock.monotonic();
    const done = blocks.map((block) => namesOf(block, (put) => put.state === "done"));
    const outcomes = await record(context, request.kind, blocks, done);
    const times = {
      queue: slotMs - startMs,
      seal: sealedMs - slotMs,
      store: clock.monotonic() - enoughMs,
      storages: { [slowest(context.repo, blocks)]: enoughMs - sealedMs },
    };
    finishLater(context, batch, blocks, done);
    span.end();
    return { outcomes, times };
  } catch (error) {
    span.end(error);
    throw error;
  } finally {
    turns.leave(batch.holder);
    slot.release();
  }
}

function sealAll(
  repo: Repository,
  { kind, blocks, compression }: Requests["put"]["request"],
  payload: Payload,
  slot: Slot,
): Promise<Piece[]> {
  const verify = payload.isForeign === true;
  if (compression !== undefined) requireCompression(compression);
  const requests = blocks.map(({ id, offset, length }) => ({
    kind,
    id,
    plain: payload.bytes.subarray(offset, offset + length),
    verify,
    ...(compression === undefined ? {} : { compression }),
  }));
  return repo.compute.seal(requests, slot.bytes);
}

function startPuts(
  context: PutContext,
  batch: Batch,
  requests: readonly PutBlockMessage[],
  pieces: readonly Piece[],
): Block[] {
  return requests.map((request, index): Block => {
    const piece = pieces[index] as Piece;
    const bytes = batch.slot.bytes.subarray(piece.offset, piece.offset + piece.length);
    const id = request.id as BlockId;
    const puts = request.copies.map((copy): Put => {
      const put: Put = {
        storage: copy.storage as StorageId,
        generation: copy.generation as Generation,
        state: "waiting",
        error: undefined,
        endedMs: undefined,
        ended: Promise.resolve(),
      };
      put.ended = runPut(context, batch, put, objectName(batch.kind, id, put.generation), bytes);
      return put;
    });
    return { id, need: request.need, storedBytes: piece.length, puts };
  });
}

async function runPut(
  { repo, turns }: PutContext,
  { slot, holder, span: parent }: Batch,
  put: Put,
  name: string,
  bytes: Uint8Array,
): Promise<void> {
  const storage = repo.storages.nameOf(put.storage);
  const span = repo.telemetry.span("storage.put", { storage, bytes: bytes.length }, parent);
  slot.retain();
  try {
    await turns.run(put.storage, holder, () => {
      put.state = "running";
      return repo.storages.put(put.storage, name, bytes);
    });
    put.state = "done";
    span.end();
  } catch (error) {
    put.state = "failed";
    put.error = error;
    span.end(error);
  } finally {
    put.endedMs = repo.clock.monotonic();
    slot.release();
  }
}

const hasQuorum = (block: Block): boolean =>
  block.puts.filter((put) => put.state === "done").length >= block.need;

/**
 * Resolves when nothing is worth waiting for any more, or every block has its quorum and the grace is over; throws when a
 * quorum cannot be had.
 */
async function enough(context: PutContext, blocks: readonly Block[]): Promise<void> {
  const settled = new AbortController();
  for (const put of blocks.flatMap((block) => block.puts)) {
    void put.ended.then(() => {
      if (isSettled(context.turns, blocks)) settled.abort();
    });
  }
  while (!settled.signal.aborted) {
    await context.repo.clock.sleep(GRACE_MS, settled.signal).catch(() => undefined);
    if (blocks.every(hasQuorum)) break;
  }
  for (const block of blocks) {
    if (hasQuorum(block) || block.puts.some(isUnderWay)) continue;
    throw quorumError(context.repo, block);
  }
}

const isUnderWay = ({ state }: Put): boolean => state === "waiting" || state === "running";

/** All puts have ended; but for those that wait for a storage that cannot keep up, where the quorum does not need them. */
function isSettled(turns: PutTurns, blocks: readonly Block[]): boolean {
  if (blocks.some(({ puts }) => puts.some(({ state }) => state === "running"))) return false;
  const waiting = blocks.filter(({ puts }) => puts.some(({ state }) => state === "waiting"));
  return (
    waiting.length === 0 ||
    (blocks.every(hasQuorum) &&
      waiting.every(({ puts }) =>
        puts.every(({ state, storage }) => state !== "waiting" || turns.isBehind(storage)),
      ))
  );
}

function quorumError(repo: Repository, block: Block): AshlarError {
  const failed = block.puts.filter((put) => put.state === "failed");
  const reasons = failed.map((put) => {
    const reason = put.error instanceof Error ? put.error.message : String(put.error);
    return `${repo.storages.nameOf(put.storage)}: ${reason}`;
  });
  const first = failed[0]?.error;
  const code = first instanceof AshlarError ? first.code : ErrorCode.Io;
  const remedy = first instanceof AshlarError ? first.remedy : undefined;
  return new AshlarError(code, `too few storages took the block: ${reasons.join("; ")}`, {
    cause: first,
    ...(remedy === undefined ? {} : { remedy }),
    details: first instanceof AshlarError ? first.details : {},
  });
}

/** The storage that was waited for: whose put was the last to end; of none that ended, the first. */
function slowest(repo: Repository, blocks: readonly Block[]): string {
  const puts = blocks.flatMap((block) => block.puts);
  let last = puts[0];
  for (const put of puts) if ((put.endedMs ?? 0) > (last?.endedMs ?? 0)) last = put;
  return last === undefined ? "none" : repo.storages.nameOf(last.storage);
}

function namesOf(block: Block, which: (put: Put) => boolean): NamedCopy[] {
  return block.puts.filter(which).map(({ storage, generation }) => ({ storage, generation }));
}

/** One transaction for the blocks of a request; nodes are recorded at their commit (DESIGN §4.3). */
async function record(
  context: PutContext,
  kind: Kind,
  blocks: readonly Block[],
  done: readonly (readonly NamedCopy[])[],
): Promise<PutOutcomeMessage[]> {
  if (kind === "node") {
    return blocks.map((block, index) => ({
      named: true,
      durable: done[index] ?? [],
      storedBytes: block.storedBytes,
    }));
  }
  const stored = blocks.map((block, index): StoredBlock => ({
    id: block.id,
    storedBytes: block.storedBytes,
    done: done[index] ?? [],
    pending: namesOf(block, (put) => !isIn(done[index], put)),
  }));
  const outcomes = await storeBlocks(context.repo.kv, context.repo.clock.now(), stored);
  return outcomes.map((outcome: StoreOutcome, index) => ({
    named: outcome.named,
    durable: done[index] ?? [],
    storedBytes: (blocks[index] as Block).storedBytes,
  }));
}

function isIn(done: readonly NamedCopy[] | undefined, put: Put): boolean {
  return done?.some((copy) => copy.storage === put.storage) === true;
}

/** A put that was not recorded as done. */
interface Unrecorded {
  readonly block: Block;
  readonly put: Put;
}

/** What was not done yet when it was recorded is recorded storage by storage, for one may be much slower than another. */
function finishLater(
  context: PutContext,
  { kind, slot }: Batch,
  blocks: readonly Block[],
  done: readonly (readonly NamedCopy[])[],
): void {
  const unrecorded = new Map<StorageId, Unrecorded[]>();
  for (const [index, block] of blocks.entries()) {
    for (const put of block.puts) {
      if (put.state === "failed" || isIn(done[index], put)) continue;
      const some = unrecorded.get(put.storage) ?? [];
      some.push({ block, put });
      unrecorded.set(put.storage, some);
    }
  }
  for (const [storage, puts] of unrecorded) {
    slot.retain();
    const work = recordLate(context, kind, storage, puts)
      .catch((error: unknown) => context.repo.log.debug("late puts were not recorded", { error }))
      .finally(() => slot.release());
    const ids = puts.map(({ block }) => block.id);
    context.latePuts.add(storage, ids, work);
  }
}

async function recordLate(
  context: PutContext,
  kind: Kind,
  storage: StorageId,
  puts: readonly Unrecorded[],
): Promise<void> {
  const { repo, lateNodes } = context;
  await Promise.all(puts.map(({ put }) => put.ended));
  const done = puts.filter(({ put }) => put.state === "done");
  if (kind === "block") {
    const stored = done.map(({ block: { id, storedBytes }, put: { generation } }): StoredBlock => ({
      id,
      storedBytes,
      done: [{ storage, generation }],
      pending: [],
    }));
    if (stored.length > 0) await storeBlocks(repo.kv, repo.clock.now(), stored);
    return;
  }
  for (const { block, put } of done) {
    const { id, storedBytes } = block;
    const copy = { id, kind, storage, generation: put.generation, storedBytes };
    const outcome = await placeFilled(repo.kv, repo.clock.now(), copy);
    if (outcome === "children") lateNodes.add(copy);
  }
}
