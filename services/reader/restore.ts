// One restore at the reader: walks the version's tree, asks writers for blocks, writes them onto a local target.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { packBlockIds, type BlockId } from "#lib/core/ids.ts";
import type { Requester } from "#lib/actor/requester.ts";
import type { BlockTarget } from "#lib/ports/block-device.ts";
import type { SlotPool } from "#lib/ports/compute.ts";
import { blockCountOf, blockLength } from "#lib/repository/tree.ts";
import { walkLeaves, type ReadNodes } from "#lib/repository/tree-walk.ts";
import {
  queues,
  type DamagedBlockMessage,
  type ProgressMessage,
  type Requests,
} from "#proto/messages.ts";

/** What a restore works with. */
export interface RestoreContext {
  readonly requester: Requester;
  readonly target: BlockTarget;
  /** Slots for what a differential restore reads from the target. */
  readonly pool: SlotPool;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ProgressMessage) => void;
}

/** A run of blocks that is asked for at once. */
interface Batch {
  readonly blocks: { readonly id: BlockId; readonly index: number; readonly length: number }[];
}

type Request = Requests["restore"]["request"];
type Reply = Requests["restore"]["reply"];

/** Restores; Damaged (naming block and offset) at the first damaged block unless `keepGoing`. */
export function restore(context: RestoreContext, request: Request): Promise<Reply> {
  return new Restore(context, request).run();
}

class Restore {
  readonly #context: RestoreContext;
  readonly #request: Request;
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;
  readonly #damaged: DamagedBlockMessage[] = [];
  #bytesWritten = 0;
  #bytesZero = 0;
  #bytesEqual = 0;
  /** Writes in order, for a target that is a stream. */
  #order: Promise<void> = Promise.resolve();

  constructor(context: RestoreContext, request: Request) {
    this.#context = context;
    this.#request = request;
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
      for await (const batch of this.#batches()) {
        this.#signal.throwIfAborted();
        const first = this.#startOf(batch.blocks[0]?.index as number);
        // Its own variable: the task may run when `at` has long moved on.
        const from = at;
        if (first > from) await this.#enqueue(work, inFlightMax, () => this.#zero(from, first));
        const last = batch.blocks.at(-1);
        at = this.#startOf(last?.index as number) + (last?.length as number);
        await this.#enqueue(work, inFlightMax, this.#fetch(batch));
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
      damaged: this.#damaged,
      warnings: [],
    };
  }

  #startOf(block: number): number {
    return block * this.#request.blockBytes;
  }

  /** The blocks of the range in order, cut into batches of consecutive blocks of at most a slot. */
  async *#batches(): AsyncGenerator<Batch> {
    const { root, levels, sizeBytes, blockBytes, offset, length } = this.#request;
    if (length === 0) return;
    const range = {
      from: Math.floor(offset / blockBytes),
      to: blockCountOf(offset + length, blockBytes),
    };
    const most = Math.max(1, Math.floor(this.#context.pool.slotBytes / blockBytes));
    let batch: Batch["blocks"] = [];
    const leaves = walkLeaves(this.#readNodes, { root: root as BlockId, levels }, range);
    for await (const leaf of leaves) {
      for (const [position, id] of leaf.blocks.entries()) {
        const index = leaf.first + position;
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
    const body = { ids: packBlockIds(ids) };
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
  #fetch(batch: Batch): () => Promise<void> {
    const { requester } = this.#context;
    const blocks = batch.blocks.map(({ id, length }) => ({ kind: "block" as const, id, length }));
    const asked = requester.request(
      queues.writer,
      "read",
      { blocks, storage: this.#request.storage },
      { signal: this.#signal },
    );
    asked.catch(() => undefined);
    return async () => {
      const { body, payload } = await asked;
      try {
        for (const [index, block] of batch.blocks.entries()) {
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
      await target.write(wanted, at);
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
    const { target } = this.#context;
    const { from, to, at } = this.#clip(start, end);
    if (to <= from) return;
    await target.zero({ offset: at, length: to - from }, { discard: this.#request.sparse });
    this.#bytesZero += to - from;
    this.#report();
  }

  async #lose(
    block: { readonly id: BlockId; readonly index: number; readonly length: number },
    code: string,
    reason: string,
  ): Promise<void> {
    const offset = this.#startOf(block.index);
    const damaged = { id: block.id, offset, length: block.length, reason };
    if (!this.#request.keepGoing) {
      const isAway = code === ErrorCode.Unavailable;
      throw new AshlarError(
        isAway ? ErrorCode.Unavailable : ErrorCode.Damaged,
        `block ${block.id} at offset ${offset} cannot be read: ${reason}`,
        {
          remedy: isAway
            ? "make the storage reachable, or restore from another one with --storage"
            : "--keep-going restores everything else, and lists what is damaged",
          details: { ...damaged },
        },
      );
    }
    this.#damaged.push(damaged);
    await this.#zero(offset, offset + block.length);
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
