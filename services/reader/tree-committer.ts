// Brings a node of the tree to its place: claim, put, commit; and again, for named storages, while children or the node
// itself are in the way (DESIGN §4.3).
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { packBlockIds, type BlockId } from "#lib/core/ids.ts";
import type { Requester } from "#lib/actor/requester.ts";
import type { Payload } from "#lib/ports/bus.ts";
import type { Hasher } from "#lib/repository/hashing.ts";
import { NODE_FAN_OUT } from "#lib/repository/tree.ts";
import { decodeNode, encodeNode } from "#proto/node.ts";
import type {
  CompressionMessage,
  CopyMessage,
  PolicyMessage,
  SessionMessage,
} from "#proto/message-parts.ts";
import { queues } from "#proto/messages.ts";
import type { Claimer } from "./claimer.ts";
import type { PlacedNode } from "./tree-builder.ts";

/** Reads, hashes and brings a block again, for exactly these storages; resolves with its id (it may have changed). */
export type BringBlock = (
  blockIndex: number,
  policy: PolicyMessage,
) => Promise<BlockId | undefined>;

/** What committing needs. */
export interface CommitterOptions {
  readonly requester: Requester;
  readonly claimer: Claimer;
  readonly hasher: Hasher;
  readonly session: SessionMessage;
  readonly policy: PolicyMessage;
  readonly compression: CompressionMessage | undefined;
  readonly signal: AbortSignal;
  /** Known nodes are held, too, so that a resumed backup need not read their blocks again. */
  readonly holdKnown: boolean;
  /** How long late copies of blocks are waited for before the blocks are brought again, in ms. */
  readonly patienceMs: number;
  readonly bringBlock: BringBlock;
}

/** Rounds of "in the way" after which something is wrong that more rounds do not mend. */
const ROUNDS_MAX = 20;

/** Commits nodes for one backup. */
export class TreeCommitter {
  readonly #options: CommitterOptions;

  constructor(options: CommitterOptions) {
    this.#options = options;
  }

  /** Commits the node with these children, or finds that it is known. */
  async commit(
    level: number,
    index: number,
    children: (BlockId | undefined)[],
    policy: PolicyMessage = this.#options.policy,
  ): Promise<PlacedNode> {
    let wanted = policy;
    let settled = false;
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      const plain = encodeNode({ level, children });
      const id = this.#options.hasher.hashNode(plain).toString("hex") as BlockId;
      const done = await this.#tryCommit(level, index, id, plain, wanted);
      if (done.kind === "placed") return done.node;
      // Exactly the storages that the answer names, all of them.
      wanted = { storages: done.storages, quorum: policy.quorum };
      // Blocks that are placed where they are wanted are still in the way when they are marked: they are brought again.
      settled = !settled && level === 0 && (await this.#settle(children, done));
      if (settled) continue;
      for (const at of done.children) {
        children[at] = await this.#bringChild(
          level,
          index * NODE_FAN_OUT + at,
          children[at],
          wanted,
        );
      }
    }
    throw new AshlarError(
      ErrorCode.TryAgain,
      `the tree node at level ${level}, index ${index} could not be placed at its storages`,
    );
  }

  async #tryCommit(
    level: number,
    index: number,
    id: BlockId,
    plain: Buffer,
    policy: PolicyMessage,
  ): Promise<
    | { readonly kind: "placed"; readonly node: PlacedNode }
    | {
        readonly kind: "returned";
        readonly children: readonly number[];
        readonly storages: readonly string[];
      }
  > {
    const { claimer, requester, session, signal } = this.#options;
    const claimed = await claimer.claimPatiently("node", id, plain.length, policy);
    if (claimed.kind === "known") {
      if (this.#options.holdKnown && (await this.#hold(level, index, id))) {
        claimed.release();
        return { kind: "placed", node: { id } };
      }
      return { kind: "placed", node: { id, release: claimed.release } };
    }
    try {
      const { durable, storedBytes } = await this.#put(id, plain, claimed.copies, claimed.need);
      const { body } = await requester.request(
        queues.dedup,
        "commit",
        { ...session, id, plain, durable, storedBytes, policy, level, index },
        { signal },
      );
      return body.kind === "committed" ? { kind: "placed", node: { id } } : body;
    } finally {
      // Committed: the session holds the node. Returned: it is claimed again.
      claimed.release();
    }
  }

  /**
   * Waits for late copies of blocks (DESIGN §4.3) for as long as some of them come within the patience; false when blocks have
   * to be brought again.
   */
  async #settle(
    children: readonly (BlockId | undefined)[],
    returned: { readonly children: readonly number[]; readonly storages: readonly string[] },
  ): Promise<boolean> {
    const { requester, patienceMs, signal } = this.#options;
    const { storages } = returned;
    const ids = returned.children.map((at) => children[at]).filter((child) => child !== undefined);
    const body = { ids: packBlockIds(ids), storages, patienceMs };
    for (let missing = ids.length; missing > 0;) {
      const before = missing;
      try {
        const reply = await requester.request(queues.upkeep, "settle", body, { signal });
        ({ missing } = reply.body);
      } catch {
        // It only saves work (and a writer of an older version cannot): the commit decides.
        signal.throwIfAborted();
        return false;
      }
      if (missing >= before) return false;
    }
    return ids.length > 0;
  }

  async #hold(level: number, index: number, id: BlockId): Promise<boolean> {
    const { requester, session, signal } = this.#options;
    const { body } = await requester.request(
      queues.dedup,
      "hold",
      { ...session, id, level, index },
      { signal },
    );
    return body.held;
  }

  async #put(
    id: BlockId,
    plain: Buffer,
    copies: readonly CopyMessage[],
    need: number,
  ): Promise<{ readonly durable: readonly CopyMessage[]; readonly storedBytes: number }> {
    if (copies.length === 0) return { durable: [], storedBytes: 0 };
    const { requester, signal, compression } = this.#options;
    const block = { id, offset: 0, length: plain.length, copies, need };
    const { body } = await requester.request(
      queues.writer,
      "put",
      { kind: "node", blocks: [block], ...(compression === undefined ? {} : { compression }) },
      { payload: heapPayload(plain), signal },
    );
    const [outcome] = body.outcomes;
    return { durable: outcome?.durable ?? [], storedBytes: outcome?.storedBytes ?? 0 };
  }

  /** A child that is in the way: a block is brought again, a node is committed again with its own children. */
  async #bringChild(
    level: number,
    childIndex: number,
    child: BlockId | undefined,
    policy: PolicyMessage,
  ): Promise<BlockId | undefined> {
    if (child === undefined) return undefined;
    if (level === 0) return this.#options.bringBlock(childIndex, policy);
    const plain = await this.readNode(child);
    const node = decodeNode<BlockId>(plain);
    const placed = await this.commit(level - 1, childIndex, [...node.children], policy);
    placed.release?.();
    return placed.id;
  }

  /** The plaintext of a node that this session or its base holds. */
  async readNode(id: BlockId): Promise<Buffer> {
    const { requester, session, signal } = this.#options;
    const { body } = await requester.request(
      queues.dedup,
      "nodes",
      { ...session, ids: packBlockIds([id]) },
      { signal },
    );
    const plain = body.plains[0];
    if (plain === undefined || plain === null) {
      throw new AshlarError(ErrorCode.TryAgain, `tree node ${id} is not there any more`);
    }
    return plain;
  }
}

/** Bytes on the heap as a payload: there is nothing to count. */
export function heapPayload(bytes: Uint8Array): Payload {
  return { bytes, retain: () => undefined, release: () => undefined };
}
