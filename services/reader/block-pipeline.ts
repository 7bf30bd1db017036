// The data path of a backup: spans of blocks are read into slots, hashed, claimed and, where nobody has them, handed to a
// writer. The slots are the back-pressure: at most that much is in flight, whatever the size of the device.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { blockIdFrom, BLOCK_ID_BYTES, type BlockId } from "#lib/core/ids.ts";
import type { Requester } from "#lib/actor/requester.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { BlockSource } from "#lib/ports/block-device.ts";
import type { Compute, HashedBlocks, Slot, SlotPool } from "#lib/ports/compute.ts";
import { NODE_FAN_OUT } from "#lib/repository/tree.ts";
import type { CompressionMessage, PolicyMessage, PutBlockMessage } from "#proto/message-parts.ts";
import { queues } from "#proto/messages.ts";
import type { Claimed, Claimer } from "./claimer.ts";
import type { ReleaseEpoch } from "./epoch-tracker.ts";
import type { StageClock } from "./stage-clock.ts";

/** What became of one block: its id, undefined where it is zero; `release` lets the epoch of its claim go. */
export interface BroughtBlock {
  readonly id: BlockId | undefined;
  readonly length: number;
  readonly outcome: "zero" | "known" | "new";
  readonly storedBytes: number;
  readonly release: ReleaseEpoch | undefined;
}

/** What the pipeline works with. */
export interface PipelineOptions {
  readonly source: BlockSource;
  readonly compute: Compute;
  readonly pool: SlotPool;
  readonly requester: Requester;
  readonly clock: Clock;
  readonly claimer: Claimer;
  readonly policy: PolicyMessage;
  readonly compression: CompressionMessage | undefined;
  readonly blockBytes: number;
  readonly signal: AbortSignal;
  readonly stages: StageClock;
}

/** A span of blocks in a slot, hashed. */
interface HashedSpan {
  readonly slot: Slot;
  readonly bytes: Uint8Array;
  readonly firstBlock: number;
  readonly hashed: HashedBlocks;
}

/** One block on its way, shared by all places of the tree where it occurs meanwhile. */
class InFlight {
  readonly #settled = Promise.withResolvers<Outcome>();
  #places = 0;
  #held = 0;

  constructor() {
    this.#settled.promise.catch(() => undefined);
  }

  /** One more place; its share of the claim's epoch is counted at once, so that none is let go too early. */
  place(): Promise<Outcome> {
    this.#places += 1;
    return this.#settled.promise;
  }

  /** No place may be added from here on. */
  resolve(outcome: "known" | "new", storedBytes: number, release: ReleaseEpoch): void {
    this.#held = this.#places;
    const releaseOne = (): void => {
      this.#held -= 1;
      if (this.#held === 0) release();
    };
    this.#settled.resolve({ outcome, storedBytes, release: releaseOne });
  }

  reject(error: unknown): void {
    this.#settled.reject(error);
  }
}

interface Outcome {
  readonly outcome: "known" | "new";
  readonly storedBytes: number;
  readonly release: ReleaseEpoch;
}

/** A block of a span that this span brings. */
interface Fresh {
  readonly id: BlockId;
  /** Its position in the span. */
  readonly at: number;
  readonly length: number;
  readonly entry: InFlight;
}

type Sendable = Extract<Claimed, { kind: "send" }>;

/** Rounds of claim and put after which a block is given up. */
const ROUNDS_MAX = 10;

/** Reads and brings blocks. */
export class BlockPipeline {
  readonly #options: PipelineOptions;
  readonly #inFlight = new Map<BlockId, InFlight>();

  constructor(options: PipelineOptions) {
    this.#options = options;
  }

  /** Blocks of a full span: as many as a slot holds, and never more than a leaf names. */
  get spanBlocks(): number {
    const fitting = Math.floor(this.#options.pool.slotBytes / this.#options.blockBytes);
    return Math.max(1, Math.min(fitting, NODE_FAN_OUT));
  }

  /** Waits for a free slot. */
  acquire(): Promise<Slot> {
    return this.#options.pool.acquire(this.#options.signal);
  }

  /**
   * Fills a slot from the source; returns the bytes read (fewer than `length` only at the end of a stream). A slot that
   * cannot be filled is released.
   */
  async read(slot: Slot, firstBlock: number, length: number): Promise<number> {
    const { source, blockBytes, stages } = this.#options;
    const into = slot.bytes.subarray(0, length);
    try {
      return await stages.run("read", () => source.read(into, firstBlock * blockBytes));
    } catch (error) {
      slot.release();
      throw error;
    }
  }

  /**
   * Brings the blocks of a slot that holds `length` bytes from `firstBlock` on; takes over the slot's reference.
   * Resolves once every block is zero, known or placed.
   */
  async bring(
    slot: Slot,
    firstBlock: number,
    length: number,
    policy: PolicyMessage = this.#options.policy,
  ): Promise<BroughtBlock[]> {
    try {
      const bytes = slot.bytes.subarray(0, length);
      const { compute, blockBytes, stages } = this.#options;
      const hashed = await stages.run("hash", () => compute.hash(bytes, blockBytes));
      return await this.#bringSpan({ slot, bytes, firstBlock, hashed }, policy);
    } finally {
      slot.release();
    }
  }

  /** Reads one block again and brings it for the storages of `policy`. */
  async bringAgain(block: number, length: number, policy: PolicyMessage): Promise<BroughtBlock> {
    const { source } = this.#options;
    if (!source.seekable) {
      throw new AshlarError(
        ErrorCode.TryAgain,
        `block ${block} has to be sent again, but a stream cannot be read twice`,
        { remedy: "run the backup again when all its storages are reachable" },
      );
    }
    const slot = await this.acquire();
    await this.read(slot, block, length);
    const [brought] = await this.bring(slot, block, length, policy);
    if (brought === undefined) throw new AshlarError(ErrorCode.Internal, "no block was brought");
    return brought;
  }

  async #bringSpan(span: HashedSpan, policy: PolicyMessage): Promise<BroughtBlock[]> {
    const { blockBytes } = this.#options;
    const count = Math.ceil(span.bytes.length / blockBytes);
    const results: Promise<BroughtBlock>[] = [];
    const fresh = new Map<BlockId, Fresh>();
    // Blocks that are brought again, for named storages, are nobody else's business.
    const shared = policy === this.#options.policy ? this.#inFlight : new Map<BlockId, InFlight>();
    for (let at = 0; at < count; at += 1) {
      const length = Math.min(blockBytes, span.bytes.length - at * blockBytes);
      if (span.hashed.zero[at] === 1) {
        results.push(Promise.resolve(zeroBlock(length)));
        continue;
      }
      const id = blockIdFrom(span.hashed.ids, at * BLOCK_ID_BYTES);
      let entry = shared.get(id);
      const isFirst = entry === undefined;
      if (entry === undefined) {
        entry = new InFlight();
        shared.set(id, entry);
        fresh.set(id, { id, at, length, entry });
      }
      results.push(placeBlock(entry, id, length, isFirst));
    }
    const brought = Promise.all(results);
    brought.catch(() => undefined);
    try {
      await this.#bringFresh(span, policy, fresh, shared);
    } catch (error) {
      for (const { id, entry } of fresh.values()) {
        shared.delete(id);
        entry.reject(error);
      }
      throw error;
    }
    return brought;
  }

  /** Claims the blocks of a span, sends what is to be sent, and only then waits for what others bring. */
  async #bringFresh(
    span: HashedSpan,
    policy: PolicyMessage,
    fresh: Map<BlockId, Fresh>,
    shared: Map<BlockId, InFlight>,
  ): Promise<void> {
    const { claimer, stages } = this.#options;
    let patient = false;
    for (let round = 0; fresh.size > 0; round += 1) {
      const blocks = [...fresh.values()];
      if (round === ROUNDS_MAX) {
        throw new AshlarError(
          ErrorCode.TryAgain,
          `block ${blocks[0]?.id ?? ""} could not be placed`,
        );
      }
      const wait = patient;
      const claims = await stages.run("claim", () =>
        Promise.all(
          blocks.map(({ id, length }) =>
            wait
              ? claimer.claimPatiently("block", id, length, policy)
              : claimer.claim("block", id, length, policy),
          ),
        ),
      );
      const settle = (
        block: Fresh,
        outcome: "known" | "new",
        stored: number,
        release: ReleaseEpoch,
      ): void => {
        fresh.delete(block.id);
        shared.delete(block.id);
        block.entry.resolve(outcome, stored, release);
      };
      const sends: { block: Fresh; claimed: Sendable }[] = [];
      for (const [index, block] of blocks.entries()) {
        const claimed = claims[index] as Claimed;
        if (claimed.kind === "send") sends.push({ block, claimed });
        if (claimed.kind === "known") settle(block, "known", 0, claimed.release);
      }
      const outcomes = sends.length === 0 ? [] : await this.#put(span, sends);
      for (const [index, { block, claimed }] of sends.entries()) {
        const outcome = outcomes[index];
        if (outcome?.named === true) settle(block, "new", outcome.storedBytes, claimed.release);
        else claimed.release();
      }
      patient = true;
    }
  }

  async #put(
    span: HashedSpan,
    sends: readonly {
      readonly block: { readonly id: BlockId; readonly at: number; readonly length: number };
      readonly claimed: Sendable;
    }[],
  ): Promise<readonly { readonly named: boolean; readonly storedBytes: number }[]> {
    const { requester, blockBytes, signal, stages, clock, compression } = this.#options;
    const blocks = sends.map(({ block, claimed }): PutBlockMessage => ({
      id: block.id,
      offset: block.at * blockBytes,
      length: block.length,
      copies: claimed.copies,
      need: claimed.need,
    }));
    const startMs = clock.monotonic();
    const { body } = await stages.run("put", () =>
      requester.request(
        queues.writer,
        "put",
        { kind: "block", blocks, ...(compression === undefined ? {} : { compression }) },
        { payload: span.slot, signal },
      ),
    );
    if (body.times !== undefined) stages.tellPut(clock.monotonic() - startMs, body.times);
    return body.outcomes;
  }
}

function zeroBlock(length: number): BroughtBlock {
  return { id: undefined, length, outcome: "zero", storedBytes: 0, release: undefined };
}

/** One place of a block. Where it occurs again while it is on its way, it counts as known. */
async function placeBlock(
  entry: InFlight,
  id: BlockId,
  length: number,
  isFirst: boolean,
): Promise<BroughtBlock> {
  const { outcome, storedBytes, release } = await entry.place();
  return {
    id,
    length,
    outcome: isFirst ? outcome : "known",
    storedBytes: isFirst ? storedBytes : 0,
    release,
  };
}
