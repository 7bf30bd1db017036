// Which versions a damaged block or node hits, and where: up the reference records, level by level, with offsets computed
// from the positions in the tree. Bounded: a block that is in everything is told with the first places only.
import type { BlockId, VersionUid } from "#lib/core/ids.ts";
import type { Kv, KvReader } from "#lib/ports/kv.ts";
import { key, keyAfter, parse, range } from "#lib/repository/keyspace.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import type { AffectedVersion, BlastRadius } from "#lib/repository/upkeep.ts";
import { blocksPerNode } from "#lib/repository/tree.ts";
import { decodeNode } from "#proto/node.ts";

/** Bounds of one look-up. */
const NODES_PER_LEVEL_MAX = 4096;
const OFFSETS_MAX = 16;
const VERSIONS_MAX = 1000;
const REFERENCES_STEP = 256;

/** Places of the object within the subtree of one node, in blocks from the subtree's start. */
interface Places {
  readonly offsets: Set<number>;
  more: boolean;
}

/** Finds the versions that need a block or node. */
export async function findBlastRadius(
  kv: Kv,
  id: BlockId,
  kind: "block" | "node",
): Promise<BlastRadius> {
  const search = new Search(kv, kind === "block" ? 1 : await blocksBelow(kv, id));
  return search.run(id);
}

async function blocksBelow(kv: Kv, id: BlockId): Promise<number> {
  const plain = await kv.read((reader) => reader.get(key.node(id)));
  return plain === undefined ? 1 : blocksPerNode(decodeNode(plain).level);
}

class Search {
  readonly #kv: Kv;
  readonly #blockCount: number;
  readonly #versions: AffectedVersion[] = [];
  #more = false;

  constructor(kv: Kv, blockCount: number) {
    this.#kv = kv;
    this.#blockCount = blockCount;
  }

  async run(id: BlockId): Promise<BlastRadius> {
    let level = new Map<BlockId, Places>([[id, { offsets: new Set([0]), more: false }]]);
    // Parents are always exactly one level above, so a level is complete before the next one is looked at.
    while (level.size > 0) {
      const above = new Map<BlockId, Places>();
      for (const [child, places] of level) await this.#climb(child, places, above);
      level = above;
    }
    const versions = this.#versions.toSorted((a, b) => (a.uid < b.uid ? -1 : 1));
    return { versions, more: this.#more };
  }

  async #climb(child: BlockId, places: Places, above: Map<BlockId, Places>): Promise<void> {
    let { start } = range.references(child);
    const { end } = range.references(child);
    for (;;) {
      const from = start;
      const last = await this.#kv.read(async (reader) => {
        const entries = await reader.range({ start: from, end, limit: REFERENCES_STEP });
        for (const entry of entries) {
          const { parent } = parse.reference(entry.key);
          if (parent.kind === "node")
            await this.#addParent(reader, parent.id, child, places, above);
          if (parent.kind === "version") await this.#addVersion(reader, parent.uid, places);
        }
        return entries.length < REFERENCES_STEP ? undefined : entries.at(-1);
      });
      if (last === undefined) return;
      if (this.#more) return;
      start = keyAfter(last.key);
    }
  }

  async #addParent(
    reader: KvReader,
    parent: BlockId,
    child: BlockId,
    places: Places,
    above: Map<BlockId, Places>,
  ): Promise<void> {
    if (!above.has(parent) && above.size >= NODES_PER_LEVEL_MAX) {
      this.#more = true;
      return;
    }
    const plain = await reader.get(key.node(parent));
    if (plain === undefined) return;
    const node = decodeNode<BlockId>(plain);
    // A leaf's children are single blocks.
    const span = node.level === 0 ? 1 : blocksPerNode(node.level - 1);
    const target = above.get(parent) ?? { offsets: new Set<number>(), more: false };
    above.set(parent, target);
    if (places.more) target.more = true;
    for (const [position, other] of node.children.entries()) {
      if (other !== child) continue;
      for (const offset of places.offsets) add(target, position * span + offset);
    }
  }

  async #addVersion(reader: KvReader, uid: VersionUid, places: Places): Promise<void> {
    if (this.#versions.length >= VERSIONS_MAX) {
      this.#more = true;
      return;
    }
    const version = await readVersion(reader, uid);
    if (version === undefined || version.state === "removed") return;
    const { blockBytes } = version;
    this.#versions.push({
      uid,
      offsets: [...places.offsets].map((offset) => offset * blockBytes).toSorted((a, b) => a - b),
      length: this.#blockCount * blockBytes,
      more: places.more,
    });
  }
}

function add(places: Places, offset: number): void {
  if (places.offsets.size < OFFSETS_MAX) places.offsets.add(offset);
  else if (!places.offsets.has(offset)) places.more = true;
}
