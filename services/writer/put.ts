// Putting blocks and nodes (DESIGN §4.2): seal, put to all storages in parallel, record as placed. A slow or broken storage
// never holds the others up beyond the quorum: what it lacks is left owed.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import type { Payload } from "#lib/ports/bus.ts";
import type { Piece, Slot, SlotPool } from "#lib/ports/compute.ts";
import type { Span } from "#lib/ports/telemetry.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { placeFilled } from "#lib/repository/transactions/fill.ts";
import {
  storeBlocks,
  type StoredBlock,
  type StoreOutcome,
} from "#lib/repository/transactions/store.ts";
import type { PutBlockMessage, PutOutcomeMessage, Requests } from "#proto/messages.ts";
import type { LateNodes } from "./late-nodes.ts";

/** How long a put waits for the slower storages once the quorum has it, in ms: one transaction instead of two. */
const GRACE_MS = 200;

/** What puts share. */
export interface PutContext {
  readonly repo: Repository;
  /** Slots for sealed objects: the writer's budget in bytes. */
  readonly sealed: SlotPool;
  readonly late: LateNodes;
  /** Puts that go on after their answer; bounded by the slots that they hold. */
  readonly background: Set<Promise<void>>;
}

type Kind = "block" | "node";

/** One object on its way to one storage. */
interface Put {
  readonly storage: StorageId;
  readonly generation: Generation;
  state: "running" | "done" | "failed";
  error: unknown;
}

/** One block with its puts. */
interface Block {
  readonly id: BlockId;
  readonly need: number;
  readonly storedBytes: number;
  readonly puts: Put[];
}

/** Handles a `put` request; Unavailable or Io when a quorum cannot be had. */
export async function putBlocks(
  context: PutContext,
  request: Requests["put"]["request"],
  payload: Payload,
): Promise<Requests["put"]["reply"]> {
  const { repo, sealed } = context;
  const span = repo.telemetry.span("writer.put", { blocks: request.blocks.length });
  const slot = await sealed.acquire();
  try {
    const pieces = await sealAll(repo, request.kind, request.blocks, payload, slot);
    const { blocks, all } = startPuts(repo, request.kind, request.blocks, pieces, slot, span);
    await enough(repo, blocks, all);
    const outcomes = await record(context, request.kind, blocks);
    finishLater(context, request.kind, blocks, all, slot);
    span.end();
    return { outcomes };
  } catch (error) {
    span.end(error);
    throw error;
  } finally {
    slot.release();
  }
}

function sealAll(
  repo: Repository,
  kind: Kind,
  blocks: readonly PutBlockMessage[],
  payload: Payload,
  slot: Slot,
): Promise<Piece[]> {
  const requests = blocks.map(({ id, offset, length }) => ({
    kind,
    id,
    plain: payload.bytes.subarray(offset, offset + length),
  }));
  return repo.compute.seal(requests, slot.bytes);
}

function startPuts(
  repo: Repository,
  kind: Kind,
  requests: readonly PutBlockMessage[],
  pieces: readonly Piece[],
  slot: Slot,
  span: Span,
): { blocks: Block[]; all: Promise<void> } {
  const running: Promise<void>[] = [];
  const blocks = requests.map((request, index): Block => {
    const piece = pieces[index] as Piece;
    const bytes = slot.bytes.subarray(piece.offset, piece.offset + piece.length);
    const id = request.id as BlockId;
    const puts = request.copies.map((copy): Put => {
      const put: Put = {
        storage: copy.storage as StorageId,
        generation: copy.generation as Generation,
        state: "running",
        error: undefined,
      };
      running.push(runPut(repo, put, objectName(kind, id, put.generation), bytes, slot, span));
      return put;
    });
    return { id, need: request.need, storedBytes: piece.length, puts };
  });
  return { blocks, all: Promise.all(running).then(() => undefined) };
}

async function runPut(
  repo: Repository,
  put: Put,
  name: string,
  bytes: Uint8Array,
  slot: Slot,
  parent: Span,
): Promise<void> {
  const storage = repo.storages.nameOf(put.storage);
  const span = repo.telemetry.span("storage.put", { storage, bytes: bytes.length }, parent);
  slot.retain();
  try {
    await repo.storages.put(put.storage, name, bytes);
    put.state = "done";
    repo.telemetry.count("ashlar.put.bytes", bytes.length, { storage });
    span.end();
  } catch (error) {
    put.state = "failed";
    put.error = error;
    span.end(error);
  } finally {
    slot.release();
  }
}

/** Resolves when all puts have ended, or every block has its quorum and the grace is over. */
async function enough(
  repo: Repository,
  blocks: readonly Block[],
  all: Promise<void>,
): Promise<void> {
  const settled = new AbortController();
  const end = all.then(() => settled.abort());
  const hasQuorum = (block: Block): boolean =>
    block.puts.filter((put) => put.state === "done").length >= block.need;
  while (!settled.signal.aborted) {
    await Promise.race([end, repo.clock.sleep(GRACE_MS, settled.signal).catch(() => undefined)]);
    if (blocks.every(hasQuorum)) break;
  }
  for (const block of blocks) {
    if (hasQuorum(block) || block.puts.some((put) => put.state === "running")) continue;
    throw quorumError(repo, block);
  }
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

function namesOf(
  block: Block,
  which: (put: Put) => boolean,
): { storage: StorageId; generation: Generation }[] {
  return block.puts.filter(which).map(({ storage, generation }) => ({ storage, generation }));
}

/** One transaction for the blocks of a request; nodes are recorded at their commit (DESIGN §4.3). */
async function record(
  context: PutContext,
  kind: Kind,
  blocks: readonly Block[],
): Promise<PutOutcomeMessage[]> {
  const done = blocks.map((block) => namesOf(block, (put) => put.state === "done"));
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

function isIn(done: readonly { readonly storage: StorageId }[] | undefined, put: Put): boolean {
  return done?.some((copy) => copy.storage === put.storage) === true;
}

/** The puts that are still under way go on; each that succeeds is placed by a transaction of its own. */
function finishLater(
  context: PutContext,
  kind: Kind,
  blocks: readonly Block[],
  all: Promise<void>,
  slot: Slot,
): void {
  const waiting = blocks
    .map((block) => ({ block, names: namesOf(block, (put) => put.state === "running") }))
    .filter(({ names }) => names.length > 0);
  if (waiting.length === 0) return;
  slot.retain();
  const work = (async (): Promise<void> => {
    await all;
    for (const { block, names } of waiting) {
      const done = names.filter((name) =>
        block.puts.some((put) => put.storage === name.storage && put.state === "done"),
      );
      if (done.length > 0) await recordLate(context, kind, block, done);
    }
  })()
    .catch((error: unknown) => context.repo.log.debug("a late put was not recorded", { error }))
    .finally(() => slot.release());
  context.background.add(work);
  void work.finally(() => context.background.delete(work));
}

async function recordLate(
  context: PutContext,
  kind: Kind,
  block: Block,
  done: readonly { storage: StorageId; generation: Generation }[],
): Promise<void> {
  const { repo, late } = context;
  const { id, storedBytes } = block;
  if (kind === "block") {
    await storeBlocks(repo.kv, repo.clock.now(), [{ id, storedBytes, done, pending: [] }]);
    return;
  }
  for (const { storage, generation } of done) {
    const copy = { id, kind, storage, generation, storedBytes };
    const outcome = await placeFilled(repo.kv, repo.clock.now(), copy);
    if (outcome === "children") late.add(copy);
  }
}
