// One backup at the reader: plan, read, bring, build the tree. Knows nothing of storages or metadata but through messages.
import { assert } from "#lib/core/assert.ts";
import { AshlarError } from "#lib/core/errors.ts";
import { packBlockIds, type BlockId, type SessionId, type Token } from "#lib/core/ids.ts";
import type { Requester } from "#lib/actor/requester.ts";
import type { BlockSource } from "#lib/ports/block-device.ts";
import type { Compute, SlotPool } from "#lib/ports/compute.ts";
import type { Hasher } from "#lib/repository/hashing.ts";
import type { Ports } from "#lib/repository/repository.ts";
import { blockCountOf, blockLength, levelsFor, NODE_FAN_OUT } from "#lib/repository/tree.ts";
import type { ReadNodes } from "#lib/repository/tree-walk.ts";
import { decodeNode } from "#proto/node.ts";
import type { PolicyMessage, ProgressMessage } from "#proto/message-parts.ts";
import { queues, type Requests } from "#proto/messages.ts";
import { allocatedRanges, planBackup, type PlannedPart, type PlannedRange } from "./backup-plan.ts";
import { BlockPipeline, type BroughtBlock } from "./block-pipeline.ts";
import { Claimer } from "./claimer.ts";
import { Counts } from "./counts.ts";
import { hintedRanges } from "./hinted-ranges.ts";
import { EpochTracker } from "./epoch-tracker.ts";
import { checkSample, LeafAssembly, WRONG_HINT } from "./leaf-assembly.ts";
import { StageClock } from "./stage-clock.ts";
import { TreeBuilder, type PlacedNode } from "./tree-builder.ts";
import { TreeCommitter } from "./tree-committer.ts";

/** What a backup works with. */
export interface BackupContext {
  readonly ports: Ports;
  readonly requester: Requester;
  readonly compute: Compute;
  readonly pool: SlotPool;
  readonly hasher: Hasher;
  readonly source: BlockSource;
  /** The text of the hints file. */
  readonly hintsText: string | undefined;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ProgressMessage) => void;
  /** Nodes that an interrupted run has brought of what is read now, by level and index. */
  readonly placed: ReadonlyMap<string, BlockId>;
  /** Tells, durably before it resolves, that the nodes brought from now on are not of what was announced. */
  readonly readsOtherwise: () => Promise<void>;
}

/** Attributes of measurements; made once, because there are very many. */
const OUTCOMES = {
  zero: { outcome: "zero" },
  known: { outcome: "known" },
  new: { outcome: "new" },
} as const;

/** One reading of the device: what it starts is stopped together. */
interface Attempt {
  readonly signal: AbortSignal;
  readonly fail: (error: unknown) => void;
  readonly pipeline: BlockPipeline;
  readonly committer: TreeCommitter;
  readonly work: Set<Promise<void>>;
}

/** A backup under way; kept after its root is committed, until its version is valid. */
export class Backup {
  readonly #context: BackupContext;
  readonly #request: Requests["backup"]["request"];
  readonly #epochs = new EpochTracker();
  readonly #stages: StageClock;
  #counts = new Counts();
  #attempt: Attempt;
  #root: PlacedNode | undefined;
  #sizeBytes = 0;

  constructor(context: BackupContext, request: Requests["backup"]["request"]) {
    this.#context = context;
    this.#request = request;
    this.#stages = new StageClock(context.ports);
    this.#attempt = this.#newAttempt();
  }

  #newAttempt(): Attempt {
    const { requester, ports, source, compute, pool, hasher } = this.#context;
    const { policy, compression, blockBytes, patienceMs, frozen } = this.#request;
    const failed = new AbortController();
    const signal = AbortSignal.any([this.#context.signal, failed.signal]);
    const session = this.#request.session as SessionId;
    const token = this.#request.token as Token;
    const { clock } = ports;
    const claimer = new Claimer({
      requester,
      clock,
      epochs: this.#epochs,
      session,
      token,
      signal,
      patienceMs,
    });
    const pipeline = new BlockPipeline({
      source,
      compute,
      pool,
      requester,
      clock,
      claimer,
      policy,
      compression,
      blockBytes,
      signal,
      stages: this.#stages,
    });
    const committer = new TreeCommitter({
      requester,
      claimer,
      hasher,
      session: { session, token },
      policy,
      compression,
      signal,
      holdKnown: frozen,
      patienceMs,
      bringBlock: (block, storages) => this.#bringAgain(block, storages),
    });
    return { signal, fail: (error) => failed.abort(error), pipeline, committer, work: new Set() };
  }

  /** The lowest epoch that this backup still rests on. */
  horizon(): number {
    return this.#epochs.announce();
  }

  /** Reads the device and commits its tree. */
  async run(): Promise<Requests["backup"]["reply"]> {
    const { source } = this.#context;
    const warnings = [...source.warnings];
    const root = await this.#readAll(warnings);
    this.#root = root;
    const changed = await source.changed();
    if (changed !== undefined) warnings.push(changed);
    const inconsistent = [
      ...(source.warnings.length > 0 ? ["mounted-read-write"] : []),
      ...(changed === undefined ? [] : ["changed-while-read"]),
    ];
    return {
      root: root.id as string,
      sizeBytes: this.#sizeBytes,
      levels: levelsFor(blockCountOf(this.#sizeBytes, this.#request.blockBytes)),
      counts: this.#counts.snapshot(),
      warnings,
      stages: this.#stages.totals(),
      labels: inconsistent.length === 0 ? {} : { "ashlar/inconsistent": inconsistent.join("+") },
    };
  }

  async #readAll(warnings: string[]): Promise<PlacedNode> {
    const { source, hintsText } = this.#context;
    try {
      if (!source.seekable) return await this.#readStream();
      return await this.#readDevice(hintsText !== undefined, this.#context.placed);
    } catch (error) {
      const wrongHint = error instanceof AshlarError && error.details[WRONG_HINT] === true;
      if (!wrongHint || this.#request.strictHints) throw error;
      warnings.push(`${error.message}: the hints were ignored, and everything was read`);
      this.#context.ports.log.warn("a hint was wrong: reading everything", {
        error: error.message,
      });
      await Promise.all(this.#attempt.work);
      await this.#context.readsOtherwise();
      this.#counts = new Counts();
      this.#attempt = this.#newAttempt();
      return await this.#readDevice(false, new Map());
    }
  }

  /** Claims the root for these storages, all of them, and commits it again: its finish was refused. */
  async ensureRoot(policy: PolicyMessage): Promise<Requests["ensureRoot"]["reply"]> {
    assert(this.#root !== undefined, "a root is ensured when everything was read");
    const sizeBytes = this.#sizeBytes;
    const levels = levelsFor(blockCountOf(sizeBytes, this.#request.blockBytes));
    const plain = await this.#attempt.committer.readNode(this.#root.id as BlockId);
    const { children } = decodeNode<BlockId>(plain);
    this.#root = await this.#attempt.committer.commit(levels - 1, 0, [...children], policy);
    return { root: this.#root.id as BlockId, sizeBytes, levels };
  }

  async #readDevice(useHints: boolean, placed: ReadonlyMap<string, BlockId>): Promise<PlacedNode> {
    const { source } = this.#context;
    const request = this.#request;
    const sizeBytes = source.sizeBytes as number;
    const blockBytes = request.blockBytes;
    const blockCount = blockCountOf(sizeBytes, blockBytes);
    this.#sizeBytes = sizeBytes;
    const base = useHints && request.base !== null ? request.base : undefined;
    const plan = planBackup({
      sizeBytes,
      blockBytes,
      ranges: useHints
        ? hintedRanges(source, this.#context.hintsText as string, request, sizeBytes)
        : this.#allRanges(sizeBytes),
      base: base === undefined ? undefined : { ...base, root: base.root as BlockId },
      readNodes: this.#readNodes,
      placed,
    });
    const { signal, fail, work } = this.#attempt;
    const tree = new TreeBuilder(this.#commit, blockCount);
    tree.root.catch(fail);
    for await (const part of plan) {
      signal.throwIfAborted();
      if (part.kind === "node") this.#placePart(tree, part, blockCount);
      else await this.#readLeaf(tree, part, blockCount);
    }
    await this.#settle(work);
    return tree.root;
  }

  readonly #commit: TreeCommitter["commit"] = (...node) =>
    this.#stages.run("commit", () => this.#attempt.committer.commit(...node));

  async #settle(work: ReadonlySet<Promise<void>>): Promise<void> {
    await Promise.all(work);
    this.#attempt.signal.throwIfAborted();
  }

  readonly #readNodes: ReadNodes = async (ids) => {
    const { requester } = this.#context;
    const { session, token } = this.#request;
    const { body } = await requester.request(
      queues.dedup,
      "nodes",
      { session, token, ids: packBlockIds(ids) },
      { signal: this.#attempt.signal },
    );
    return body.plains.map((plain) => plain ?? undefined);
  };

  async *#allRanges(sizeBytes: number): AsyncGenerator<PlannedRange> {
    const { blockBytes } = this.#request;
    const all = { from: 0, to: blockCountOf(sizeBytes, blockBytes) };
    for await (const range of allocatedRanges(this.#context.source, sizeBytes, blockBytes, all)) {
      yield { ...range, state: "read" };
    }
  }

  #placePart(
    tree: TreeBuilder,
    part: Extract<PlannedPart, { kind: "node" }>,
    blockCount: number,
  ): void {
    const { blockBytes } = this.#request;
    const span = NODE_FAN_OUT ** (part.level + 1);
    const first = part.index * span;
    const blocks = Math.max(0, Math.min(span, blockCount - first));
    const bytes = Math.max(0, Math.min(blocks * blockBytes, this.#sizeBytes - first * blockBytes));
    if (part.id === undefined) this.#counts.sparse(bytes, blocks);
    else this.#counts.unchanged(bytes, blocks);
    this.#report();
    tree.place(part.level, part.index, { id: part.id });
  }

  async #readLeaf(
    tree: TreeBuilder,
    part: Extract<PlannedPart, { kind: "leaf" }>,
    blockCount: number,
  ): Promise<void> {
    const { pipeline } = this.#attempt;
    const leaf = new LeafAssembly(part.keep);
    const first = part.index * NODE_FAN_OUT;
    this.#countKept(part, Math.min(NODE_FAN_OUT, blockCount - first));
    for (const range of part.reads) {
      for (let at = range.from; at < range.to; at += pipeline.spanBlocks) {
        const to = Math.min(range.to, at + pipeline.spanBlocks);
        const isSample = range.state === "sample";
        const lengthBytes =
          (to - at - 1) * this.#request.blockBytes +
          blockLength(this.#sizeBytes, this.#request.blockBytes, to - 1);
        const slot = await pipeline.acquire();
        leaf.begin();
        this.#spawn(async () => {
          await pipeline.read(slot, at, lengthBytes);
          const brought = await pipeline.bring(slot, at, lengthBytes);
          leaf.set(
            at - first,
            brought,
            isSample ? checkSample(at, part.keep[at - first]) : undefined,
          );
          this.#count(brought);
          if (leaf.done()) await this.#placeLeaf(tree, part.index, leaf);
        });
      }
    }
    if (leaf.sealAndDone()) await this.#placeLeaf(tree, part.index, leaf);
  }

  #spawn(task: () => Promise<void>): void {
    const { work, fail } = this.#attempt;
    const running = task().catch(fail);
    const tracked = running.finally(() => work.delete(tracked));
    work.add(tracked);
  }

  async #placeLeaf(tree: TreeBuilder, index: number, leaf: LeafAssembly): Promise<void> {
    const isZero = leaf.blocks.every((id) => id === undefined);
    const isRoot = levelsFor(blockCountOf(this.#sizeBytes, this.#request.blockBytes)) === 1;
    const placed =
      isZero && !isRoot ? { id: undefined } : await this.#commit(0, index, leaf.blocks);
    leaf.release();
    tree.place(0, index, placed);
  }

  async #readStream(): Promise<PlacedNode> {
    const { blockBytes } = this.#request;
    const { pipeline, fail, work } = this.#attempt;
    const tree = new TreeBuilder(this.#commit, undefined);
    tree.root.catch(fail);
    const spanBytes = pipeline.spanBlocks * blockBytes;
    // While the size is not known no leaf is taken for the root.
    this.#sizeBytes = Number.MAX_SAFE_INTEGER;
    let offset = 0;
    let ended = false;
    for (let index = 0; !ended; index += 1) {
      const leaf = new LeafAssembly(Array.from({ length: NODE_FAN_OUT }));
      for (let at = 0; at < NODE_FAN_OUT && !ended; at += pipeline.spanBlocks) {
        const slot = await pipeline.acquire();
        const firstBlock = offset / blockBytes;
        const length = await pipeline.read(slot, firstBlock, spanBytes);
        ended = length < spanBytes;
        offset += length;
        if (length === 0) {
          slot.release();
          break;
        }
        leaf.begin();
        this.#spawn(async () => {
          const brought = await pipeline.bring(slot, firstBlock, length);
          leaf.set(firstBlock - index * NODE_FAN_OUT, brought, undefined);
          this.#count(brought);
          if (leaf.done()) await this.#placeLeaf(tree, index, leaf);
        });
      }
      if (ended && leaf.isEmpty() && index > 0) break;
      if (leaf.sealAndDone()) await this.#placeLeaf(tree, index, leaf);
    }
    await this.#settle(work);
    this.#sizeBytes = offset;
    tree.end(blockCountOf(offset, blockBytes));
    return tree.root;
  }

  /** A block that is in the way of a commit is read again; what it is now counts. */
  async #bringAgain(block: number, policy: PolicyMessage): Promise<BlockId | undefined> {
    const length = blockLength(this.#sizeBytes, this.#request.blockBytes, block);
    const brought = await this.#attempt.pipeline.bringAgain(block, length, policy);
    brought.release?.();
    return brought.id;
  }

  #countKept(part: Extract<PlannedPart, { kind: "leaf" }>, blocks: number): void {
    const { blockBytes } = this.#request;
    const first = part.index * NODE_FAN_OUT;
    const isRead = new Uint8Array(NODE_FAN_OUT);
    for (const range of part.reads) isRead.fill(1, range.from - first, range.to - first);
    for (let at = 0; at < blocks; at += 1) {
      if (isRead[at] === 1) continue;
      const length = blockLength(this.#sizeBytes, blockBytes, first + at);
      if (part.keep[at] === undefined) this.#counts.sparse(length, 1);
      else this.#counts.unchanged(length, 1);
    }
  }

  #count(brought: readonly BroughtBlock[]): void {
    const { telemetry } = this.#context.ports;
    for (const block of brought) {
      this.#counts.brought(block);
      telemetry.count("ashlar.blocks", 1, OUTCOMES[block.outcome]);
      telemetry.count("ashlar.bytes", block.length, OUTCOMES[block.outcome]);
    }
    this.#report();
  }

  #report(): void {
    const { sizeBytes } = this.#context.source;
    this.#context.onProgress({
      phase: "reading",
      bytesTotal: sizeBytes ?? null,
      ...this.#counts.progress(),
    });
  }
}
