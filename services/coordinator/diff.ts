// What differs between two versions: their trees are compared from the roots, and only subtrees that differ are read.
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId } from "#lib/core/ids.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { key } from "#lib/repository/keyspace.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import { blocksPerNode, NODE_FAN_OUT } from "#lib/repository/tree.ts";
import { decodeNode } from "#proto/node.ts";

/** An extent that differs, in bytes. */
export interface ChangedExtent {
  readonly offset: number;
  readonly length: number;
  /** Whether the second version has data there; false where it reads as zero or is not that long. */
  readonly exists: boolean;
}

interface Side {
  readonly root: BlockId;
  readonly levels: number;
}

type Children = readonly (BlockId | undefined)[];

/**
 * The extents in which `to` differs from `from`, ascending and merged. In bytes of `to`'s size, or of `from`'s where that
 * is larger. Both must be of one block size, for blocks are what is compared.
 */
export async function* diffVersions(
  kv: Kv,
  from: VersionRecord,
  to: VersionRecord,
  signal?: AbortSignal,
): AsyncGenerator<ChangedExtent> {
  if (from.blockBytes !== to.blockBytes) {
    throw new AshlarError(
      ErrorCode.Usage,
      `${from.uid} and ${to.uid} have different block sizes, so their blocks cannot be compared`,
    );
  }
  const walk = new DiffWalk(kv, sideOf(from), sideOf(to), signal);
  const end = Math.max(from.sizeBytes, to.sizeBytes);
  const { blockBytes } = to;
  let open: { -readonly [Field in keyof ChangedExtent]: ChangedExtent[Field] } | undefined;
  for await (const { index, exists } of walk.blocks()) {
    const offset = index * blockBytes;
    const length = Math.min(blockBytes, end - offset);
    if (open !== undefined && open.exists === exists && open.offset + open.length === offset) {
      open.length += length;
      continue;
    }
    if (open !== undefined) yield open;
    open = { offset, length, exists };
  }
  if (open !== undefined) yield open;
}

function sideOf(version: VersionRecord): Side {
  if (version.root === undefined) {
    throw new AshlarError(ErrorCode.TryAgain, `version ${version.uid} is not finished yet`, {
      remedy: "repeat its backup: it goes on where it stopped",
    });
  }
  return { root: version.root, levels: version.levels };
}

class DiffWalk {
  readonly #kv: Kv;
  readonly #from: Side;
  readonly #to: Side;
  readonly #signal: AbortSignal | undefined;
  readonly #standIns = new Map<BlockId, Children>();

  constructor(kv: Kv, from: Side, to: Side, signal: AbortSignal | undefined) {
    this.#kv = kv;
    this.#from = from;
    this.#to = to;
    this.#signal = signal;
  }

  /** The indices of blocks that differ, ascending. */
  async *blocks(): AsyncGenerator<{ readonly index: number; readonly exists: boolean }> {
    const level = Math.max(this.#from.levels, this.#to.levels) - 1;
    const from = await this.#rootAt(this.#from, level);
    const to = await this.#rootAt(this.#to, level);
    yield* this.#compare(level, 0, from, to);
  }

  async *#compare(
    level: number,
    index: number,
    from: Children,
    to: Children,
  ): AsyncGenerator<{ readonly index: number; readonly exists: boolean }> {
    for (let position = 0; position < NODE_FAN_OUT; position += 1) {
      const before = from[position];
      const after = to[position];
      if (before === after) continue;
      const child = index * NODE_FAN_OUT + position;
      if (level === 0) yield { index: child, exists: after !== undefined };
      else {
        yield* this.#compare(
          level - 1,
          child,
          await this.#children(before, level - 1, child),
          await this.#children(after, level - 1, child),
        );
      }
    }
  }

  /** A root's children as seen from a higher level: a taller tree has the lower one as its first child, at each level. */
  async #rootAt(side: Side, level: number): Promise<Children> {
    if (level === side.levels - 1) return this.#children(side.root, level, 0);
    assert(level > side.levels - 1, "the comparison starts at the higher root");
    if (level > side.levels) return this.#lift(side, level);
    return [side.root];
  }

  // A root two or more levels lower has no node to name in between; its subtree is compared through a stand-in.
  async #lift(side: Side, level: number): Promise<Children> {
    const standIn = `lift:${level - 1}:${side.root}` as BlockId;
    this.#standIns.set(standIn, await this.#rootAt(side, level - 1));
    return [standIn];
  }

  async #children(id: BlockId | undefined, level: number, index: number): Promise<Children> {
    this.#signal?.throwIfAborted();
    if (id === undefined) return [];
    const standIn = this.#standIns.get(id);
    if (standIn !== undefined) return standIn;
    const plain = await this.#kv.read((reader) => reader.get(key.node(id)));
    if (plain === undefined) {
      const first = index * blocksPerNode(level);
      throw new AshlarError(
        ErrorCode.Damaged,
        `tree node ${id} (blocks ${first} to ${first + blocksPerNode(level) - 1}) is missing in the metadata`,
        { remedy: "`ashlar fsck --repair` brings it back from a storage" },
      );
    }
    return decodeNode<BlockId>(plain).children;
  }
}
