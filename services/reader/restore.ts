// One restore at the reader: walks the version's tree, asks writers for blocks, writes them onto a local target.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { packBlockIds, type BlockId } from "#lib/core/ids.ts";
import type { Requester } from "#lib/actor/requester.ts";
import type { BlockTarget, Extent } from "#lib/ports/block-device.ts";
import type { SlotPool } from "#lib/ports/compute.ts";
import type { Ports } from "#lib/repository/repository.ts";
import { blockCountOf, blockLength } from "#lib/repository/tree.ts";
import { walkParts, type Gap, type ReadNodes } from "#lib/repository/tree-walk.ts";
import type { DamagedBlockMessage, ProgressMessage } from "#proto/message-parts.ts";
import { queues, type Requests } from "#proto/messages.ts";
import { askWriters } from "./ask-writers.ts";
import { nonZeroExtents } from "./non-zero-extents.ts";
import { StageClock } from "./stage-clock.ts";

/** What a restore works with. */
export interface RestoreContext {
  readonly ports: Pick<Ports, "clock" | "telemetry">;
  readonly requester: Requester;
  readonly target: BlockTarget;
  /** Slots for what a differential restore reads from the target. */
  readonly pool: SlotPool;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ProgressMessage) => void;
  /** The queue of writers that give blocks back; default: those that take them. */
  readonly readsQueue?: string;
}

/** A block of the version. */
interface Block {
  readonly id: BlockId;
  readonly index: number;
  readonly length: number;
}

/** A run of blocks that is asked for at once; or a part of the tree that cannot be read, within the range. */
type Part = { readonly blocks: readonly Block[] } | { readonly gap: Gap };

type Request = Requests["restore"]["request"];
type Reply = Requests["restore"]["reply"];

/**
 * Restores; Damaged (naming block and offset) at the first damaged block unless `keepGoing`. What is away is not damaged:
 * Unavailable, always.
 */
export function restore(context: RestoreContext, request: Request): Promise<Reply> {
  return new Restore(context, request).run();
}

/** So many damaged parts are listed: a reply has to fit a message. */
const DAMAGED_LISTED = 1000;

class Restore {
  readonly #context: RestoreContext;
  readonly #request: Request;
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;
  readonly #damaged: DamagedBlockMessage[] = [];
  readonly #stages: StageClock;
  #bytesWritten = 0;
  #bytesZero = 0;
  #bytesEqual = 0;
  /** Writes in order, for a target that is a stream. */
  #order: Promise<void> = Promise.resolve();

  constructor(context: RestoreContext, request: Request) {
    this.#context = context;
    this.#request = request;
    this.#stages = new StageClock(context.ports);
    this.#signal = AbortSignal.any([context.signal, this.#failed.signal]);
  }

  async run(): Promise<Reply> {
    const { offset, length } = this.#request;
    const { target, pool } = this.#context;
    const work = new Set<Promise<void>>();
    // In flight: as many batches as the pool has slots; the writers bound their own memory.
    const inFlightMax = Math.max(2, Math.floor(pool.slotCount / 2));
    let at = offset;
    try {
      for await (const part of this.#parts()) {
        this.#signal.throwIfAborted();
        if ("gap" in part) {
          // It becomes zero with what is zero around it.
          this.#loseGap(part.gap);
          continue;
        }
        const { blocks } = part;
        const first = this.#startOf(blocks[0]?.index as number);
        // Its own variable: the task may run when `at` has long moved on.
        const from = at;
        if (first > from) await this.#enqueue(work, inFlightMax, () => this.#zero(from, first));
        const last = blocks.at(-1);
        at = this.#startOf(last?.index as number) + (last?.length as number);
        await this.#enqueue(work, inFlightMax, this.#fetch(blocks));
      }
      if (at < offset + length) {
        const from = at;
        await this.#enqueue(work, inFlightMax, () => this.#zero(from, offset + length));
      }
    } catch (error) {
      this.#failed.abort(error);
    }
    await Promise.all(work);
    this.#signal.throwIfAborted();
    await target.finish();
    return {
      bytesWritten: this.#bytesWritten,
      bytesZero: this.#bytesZero,
      bytesEqual: this.#bytesEqual,
      damaged: this.#damaged
        .toSorted((one, other) => one.offset - other.offset)
        .slice(0, DAMAGED_LISTED),
      damagedCount: this.#damaged.length,
      warnings: [],
      stages: this.#stages.totals(),
    };
  }

  #startOf(block: number): number {
    return block * this.#request.blockBytes;
  }

  /** The blocks of the range in order, cut into batches of consecutive blocks of at most a slot. */
  async *#parts(): AsyncGenerator<Part> {
    const { root, levels, sizeBytes, blockBytes, offset, length } = this.#request;
    if (length === 0) return;
    const range = {
      from: Math.floor(offset / blockBytes),
      to: blockCountOf(offset + length, blockBytes),
    };
    const most = Math.max(1, Math.floor(this.#context.pool.slotBytes / blockBytes));
    let batch: Block[] = [];
    const parts = walkParts(this.#readNodes, { root: root as BlockId, levels }, range);
    for await (const part of parts) {
      if (!("blocks" in part)) {
        const first = Math.max(part.first, range.from);
        const count = Math.min(part.first + part.count, range.to) - first;
        yield { gap: { ...part, first, count } };
        continue;
      }
      for (const [position, id] of part.blocks.entries()) {
        const index = part.first + position;
        if (id === undefined || index < range.from || index >= range.to) continue;
        const isNext = batch.length > 0 && batch.at(-1)?.index === index - 1;
        if (batch.length > 0 && (!isNext || batch.length >= most)) {
          yield { blocks: batch };
          batch = [];
        }
        batch.push({ id, index, length: blockLength(sizeBytes, blockBytes, index) });
      }
    }
    if (batch.length > 0) yield { blocks: batch };
  }

  readonly #readNodes: ReadNodes = async (ids) => {
    const { requester } = this.#context;
    const { session, token } = this.#request;
    const body = { session, token, ids: packBlockIds(ids) };
    const reply = await requester.request(queues.dedup, "nodes", body, { signal: this.#signal });
    return reply.body.plains.map((plain) => plain ?? undefined);
  };

  /** Starts a task when fewer than `most` are under way; a stream target takes their writes in order. */
  async #enqueue(work: Set<Promise<void>>, most: number, task: () => Promise<void>): Promise<void> {
    while (work.size >= most) await Promise.race(work);
    this.#signal.throwIfAborted();
    const running = this.#context.target.seekable ? task() : this.#order.then(task);
    if (!this.#context.target.seekable) this.#order = running.catch(() => undefined);
    const tracked = running
      .catch((error: unknown) => this.#failed.abort(error))
      .finally(() => work.delete(tracked));
    work.add(tracked);
  }

  /** Asks for a batch at once; the returned task writes it. */
  #fetch(batch: readonly Block[]): () => Promise<void> {
    const { requester, ports, readsQueue = queues.writer } = this.#context;
    const { session, token, storage } = this.#request;
    const blocks = batch.map(({ id, length }) => ({ kind: "block" as const, id, length }));
    const wanted = { session, token, blocks, storage };
    const asked = this.#stages.run("fetch", () =>
      askWriters({ requester, clock: ports.clock }, readsQueue, wanted, this.#signal),
    );
    asked.catch(() => undefined);
    return async () => {
      const { body, payload } = await asked;
      try {
        for (const [index, block] of batch.entries()) {
          const outcome = body.outcomes[index];
          if (outcome?.ok === true && payload !== undefined) {
            const bytes = payload.bytes.subarray(outcome.offset, outcome.offset + outcome.length);
            await this.#write(block.index, bytes);
          } else if (outcome?.ok === false) {
            await this.#lose(block, outcome.code, outcome.reason);
          }
        }
      } finally {
        payload?.release();
      }
    };
  }

  /** The part of the device's bytes [start, end) that the range asks for, relative to the target. */
  #clip(start: number, end: number): { from: number; to: number; at: number } {
    const { offset, length } = this.#request;
    const from = Math.max(start, offset);
    const to = Math.min(end, offset + length);
    return { from, to, at: from - offset };
  }

  async #write(block: number, bytes: Uint8Array): Promise<void> {
    const { target } = this.#context;
    const start = this.#startOf(block);
    const { from, to, at } = this.#clip(start, start + bytes.length);
    const wanted = bytes.subarray(from - start, to - start);
    if (this.#request.differential && (await this.#isEqual(wanted, at))) {
      this.#bytesEqual += wanted.length;
    } else {
      await this.#stages.run("write", () => target.write(wanted, at));
      this.#bytesWritten += wanted.length;
    }
    this.#report();
  }

  async #isEqual(wanted: Uint8Array, at: number): Promise<boolean> {
    const slot = await this.#context.pool.acquire(this.#signal);
    try {
      const found = slot.bytes.subarray(0, wanted.length);
      await this.#context.target.read(found, at);
      return Buffer.compare(found, wanted) === 0;
    } finally {
      slot.release();
    }
  }

  async #zero(start: number, end: number): Promise<void> {
    const { from, to, at } = this.#clip(start, end);
    if (to <= from) return;
    const extent = { offset: at, length: to - from };
    if (!this.#request.differential) {
      await this.#makeZero(extent);
      return;
    }
    const { target, pool } = this.#context;
    const how = { pool, pieceBytes: this.#request.blockBytes, signal: this.#signal };
    let done = at;
    for await (const { end: checked, nonZero } of nonZeroExtents(target, extent, how)) {
      this.#bytesEqual += checked - done;
      done = checked;
      for (const differing of nonZero) {
        this.#bytesEqual -= differing.length;
        await this.#makeZero(differing);
      }
      this.#report();
    }
  }

  async #makeZero(extent: Extent): Promise<void> {
    const { target } = this.#context;
    await this.#stages.run("write", () => target.zero(extent, { discard: this.#request.sparse }));
    this.#bytesZero += extent.length;
    this.#report();
  }

  async #lose(block: Block, code: string, reason: string): Promise<void> {
    const { id, length } = block;
    const offset = this.#startOf(block.index);
    const what = `block ${id} at offset ${offset} cannot be read: ${reason}`;
    const damaged = { kind: "block", id, offset, length, reason } as const;
    if (code === ErrorCode.Unavailable) {
      throw new AshlarError(ErrorCode.Unavailable, what, {
        remedy: "make the storage reachable, or restore from another one with --storage",
        details: { ...damaged },
      });
    }
    if (!this.#request.keepGoing) throw damagedError(what, damaged);
    this.#damaged.push(damaged);
    await this.#zero(offset, offset + length);
  }

  #loseGap({ id, first, count, reason }: Gap): void {
    const offset = this.#startOf(first);
    const length = Math.min(this.#startOf(first + count), this.#request.sizeBytes) - offset;
    const what = `tree node ${id}, for the ${length} bytes at offset ${offset}, ${reason}`;
    const damaged = {
      kind: "node",
      id,
      offset,
      length,
      reason: `the tree node ${reason}`,
    } as const;
    if (id === this.#request.root) {
      // Nothing is intact: zeros alone are no reason to give up what the target holds.
      throw new AshlarError(ErrorCode.Damaged, what, {
        remedy: "`ashlar rebuild` looks for it at the storages; else restore another version",
        details: { ...damaged },
      });
    }
    if (!this.#request.keepGoing) throw damagedError(what, damaged);
    this.#damaged.push(damaged);
  }

  #report(): void {
    this.#context.onProgress({
      phase: "restoring",
      bytesDone: this.#bytesWritten + this.#bytesZero + this.#bytesEqual,
      bytesTotal: this.#request.length,
      bytesNew: this.#bytesWritten,
      bytesKnown: this.#bytesEqual,
      bytesSparse: this.#bytesZero,
    });
  }
}

function damagedError(what: string, damaged: DamagedBlockMessage): AshlarError {
  return new AshlarError(ErrorCode.Damaged, what, {
    remedy: "--keep-going restores everything else, and lists what is damaged",
    details: { ...damaged },
  });
}
