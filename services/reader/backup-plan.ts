// What a backup reads, what it takes over from its base, and what is zero without reading; as subtrees, top down, so that the
// work is in proportion to what is allocated or has changed.
import type { BlockId } from "#lib/core/ids.ts";
import type { BlockSource } from "#lib/ports/block-device.ts";
import { blockCountOf, blocksPerNode, levelsFor, NODE_FAN_OUT } from "#lib/repository/tree.ts";
import type { BlockRange, ReadNodes } from "#lib/repository/tree-walk.ts";
import { decodeNode } from "#proto/node.ts";

/** Consecutive blocks that need a decision; everything else is as in the base, or zero without a base. */
export interface PlannedRange extends BlockRange {
  /** *sample*: unchanged by the hints, but checked against the base. */
  readonly state: "read" | "zero" | "sample";
}

/** The base of an incremental backup. */
export interface BaseTree {
  readonly root: BlockId;
  readonly levels: number;
  readonly sizeBytes: number;
}

/** A part of the plan, in the order of the device. */
export type PlannedPart =
  /** The subtree at (level, index) is this node already, or (undefined) zero. */
  | {
      readonly kind: "node";
      readonly level: number;
      readonly index: number;
      readonly id: BlockId | undefined;
    }
  /** A leaf to build: `keep` has the base's ids of what is not read. */
  | {
      readonly kind: "leaf";
      readonly index: number;
      readonly keep: (BlockId | undefined)[];
      readonly reads: readonly PlannedRange[];
    };

/** What a plan is made from. */
export interface PlanInput {
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** Ascending, disjoint. */
  readonly ranges: AsyncIterable<PlannedRange>;
  readonly base: BaseTree | undefined;
  readonly readNodes: ReadNodes;
  /** Nodes that an interrupted run of a frozen source has brought already, by "level/index". */
  readonly placed: ReadonlyMap<string, BlockId>;
}

/** The block ranges of a source that may hold data; the rest of `within` reads as zero. */
export async function* allocatedRanges(
  source: BlockSource,
  sizeBytes: number,
  blockBytes: number,
  within: BlockRange,
): AsyncGenerator<BlockRange> {
  const offset = within.from * blockBytes;
  const length = Math.min(sizeBytes, within.to * blockBytes) - offset;
  if (length <= 0) return;
  let next = within.from;
  for await (const extent of source.extents({ offset, length })) {
    const from = Math.max(next, Math.floor(extent.offset / blockBytes));
    const to = Math.min(within.to, Math.ceil((extent.offset + extent.length) / blockBytes));
    if (to <= from) continue;
    yield { from, to };
    next = to;
  }
}

/** Splits the ranges to be read into what is allocated and what is zero. */
export async function* onlyAllocated(
  source: BlockSource,
  sizeBytes: number,
  blockBytes: number,
  ranges: Iterable<PlannedRange> | AsyncIterable<PlannedRange>,
): AsyncGenerator<PlannedRange> {
  for await (const range of ranges) {
    if (range.state !== "read") {
      yield range;
      continue;
    }
    let at = range.from;
    for await (const part of allocatedRanges(source, sizeBytes, blockBytes, range)) {
      if (part.from > at) yield { from: at, to: part.from, state: "zero" };
      yield { ...part, state: "read" };
      at = part.to;
    }
    if (at < range.to) yield { from: at, to: range.to, state: "zero" };
  }
}

/** One range of look-ahead over the planned ranges. */
class Ahead {
  readonly #iterator: AsyncIterator<PlannedRange>;
  #current: PlannedRange | undefined;
  #started = false;

  constructor(ranges: AsyncIterable<PlannedRange>) {
    this.#iterator = ranges[Symbol.asyncIterator]();
  }

  /** The first range that ends behind `block`, not consumed. */
  async peek(block: number): Promise<PlannedRange | undefined> {
    while (!this.#started || (this.#current !== undefined && this.#current.to <= block)) {
      this.#started = true;
      const next = await this.#iterator.next();
      this.#current = next.done === true ? undefined : next.value;
    }
    return this.#current;
  }

  /** The parts of the ranges within [from, to), in order. */
  async take(from: number, to: number): Promise<PlannedRange[]> {
    const out: PlannedRange[] = [];
    for (let at = from; at < to;) {
      const range = await this.peek(at);
      if (range === undefined || range.from >= to) break;
      const part = {
        from: Math.max(at, range.from),
        to: Math.min(to, range.to),
        state: range.state,
      };
      out.push(part);
      at = part.to;
    }
    return out;
  }
}

/** The parts of a backup, in order. */
export async function* planBackup(input: PlanInput): AsyncGenerator<PlannedPart> {
  const blockCount = blockCountOf(input.sizeBytes, input.blockBytes);
  const planner = new Planner(input, blockCount);
  yield* planner.visit(levelsFor(blockCount) - 1, 0, await planner.baseTop());
}

/** The base's node at a place: an id, nothing there (zero), or "above": the place is higher than the base's root. */
type BaseAt = BlockId | undefined | "above";

class Planner {
  readonly #input: PlanInput;
  readonly #blockCount: number;
  readonly #ahead: Ahead;

  constructor(input: PlanInput, blockCount: number) {
    this.#input = input;
    this.#blockCount = blockCount;
    this.#ahead = new Ahead(input.ranges);
  }

  /** The base at the place of the new tree's root. */
  async baseTop(): Promise<BaseAt> {
    const { base } = this.#input;
    if (base === undefined) return undefined;
    const top = levelsFor(this.#blockCount) - 1;
    if (top > base.levels - 1) return "above";
    let id: BlockId | undefined = base.root;
    for (let level = base.levels - 1; level > top && id !== undefined; level -= 1) {
      id = (await this.#children(id))[0];
    }
    return id;
  }

  async #children(id: BlockId): Promise<readonly (BlockId | undefined)[]> {
    const [plain] = await this.#input.readNodes([id]);
    if (plain === undefined) throw new Error(`the base's node ${id} is missing`);
    return decodeNode<BlockId>(plain).children;
  }

  async *visit(level: number, index: number, base: BaseAt): AsyncGenerator<PlannedPart> {
    const done = this.#input.placed.get(`${level}/${index}`);
    if (done !== undefined) {
      yield { kind: "node", level, index, id: done };
      return;
    }
    const from = index * blocksPerNode(level);
    const to = from + blocksPerNode(level);
    const next = await this.#ahead.peek(from);
    const untouched = next === undefined || next.from >= to;
    const cut = base !== undefined && to > this.#blockCount && this.#baseIsLonger();
    if (untouched && base !== "above" && !cut) {
      yield { kind: "node", level, index, id: base };
      return;
    }
    if (level === 0) {
      yield await this.#leaf(index, from, base);
      return;
    }
    const children = await this.#baseChildren(level, index, base);
    const span = blocksPerNode(level - 1);
    for (let position = 0; position < NODE_FAN_OUT; position += 1) {
      if (from + position * span >= Math.max(1, this.#blockCount)) break;
      yield* this.visit(level - 1, index * NODE_FAN_OUT + position, children(position));
    }
  }

  #baseIsLonger(): boolean {
    const { base, sizeBytes } = this.#input;
    return base !== undefined && base.sizeBytes > sizeBytes;
  }

  async #baseChildren(
    level: number,
    index: number,
    base: BaseAt,
  ): Promise<(position: number) => BaseAt> {
    if (base === undefined) return () => undefined;
    if (base !== "above") {
      const children = await this.#children(base);
      return (position) => children[position];
    }
    const tree = this.#input.base as BaseTree;
    const first: BaseAt = level - 1 > tree.levels - 1 ? "above" : tree.root;
    return (position) => (index === 0 && position === 0 ? first : undefined);
  }

  async #leaf(index: number, from: number, base: BaseAt): Promise<PlannedPart> {
    const end = Math.min(from + NODE_FAN_OUT, this.#blockCount);
    const keep: (BlockId | undefined)[] = Array.from({ length: NODE_FAN_OUT });
    if (base !== undefined && base !== "above") {
      const children = await this.#children(base);
      for (let position = 0; position < end - from; position += 1)
        keep[position] = children[position];
    }
    const reads: PlannedRange[] = [];
    for (const range of await this.#ahead.take(from, end)) {
      if (range.state !== "sample") keep.fill(undefined, range.from - from, range.to - from);
      if (range.state !== "zero") reads.push(range);
    }
    return { kind: "leaf", index, keep, reads };
  }
}
