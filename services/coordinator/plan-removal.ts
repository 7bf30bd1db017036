// What collection would free: for `--dry-run`. The same rules as the transactions that collect (unreferenced, then gone, then
// its children), applied in memory to what is touched, from the roots down. A node's parents are all exactly one level above
// it, so a level is decided as a whole before the next one; of the blocks, which are the many, nothing is kept in memory.
import type { BlockId, SessionId, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Kv, KvEntry, KvReader } from "#lib/ports/kv.ts";
import type { BlockRecord } from "#lib/repository/block-record.ts";
import {
  key,
  keyAfter,
  parse,
  range,
  type KeyRange,
  type Parent,
} from "#lib/repository/keyspace.ts";
import { readBlock, readBlocks, readSession } from "#lib/repository/ledger.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { decodeNode, NODE_LEVEL_MAX, type TreeNode } from "#proto/node.ts";

/** What goes at one storage. */
export interface StorageFigures {
  readonly storage: StorageId;
  /** Objects of blocks and of nodes. */
  readonly blocks: number;
  readonly nodes: number;
  /** Sealed bytes, as the records say. */
  readonly storedBytes: number;
}

/** What goes. */
export interface RemovalFigures {
  /** Distinct blocks and nodes. */
  readonly blocks: number;
  readonly nodes: number;
  /** Their objects, at all storages. */
  readonly objects: number;
  /** Plaintext bytes of the blocks. */
  readonly blockBytes: number;
  /** Sealed bytes of the objects. */
  readonly storedBytes: number;
  readonly storages: readonly StorageFigures[];
}

/** What collection would free if the versions were removed, once no running backup relies on it any more. */
export interface RemovalPlan {
  /** On account of the versions. */
  readonly removal: RemovalFigures;
  /** Nothing refers to it already. */
  readonly garbage: RemovalFigures;
  /** Both: what `gc` then frees. */
  readonly total: RemovalFigures;
}

/** What else would happen before collection. */
export interface PlanOptions {
  /** Sessions that would be ended and settled. */
  readonly endedSessions?: readonly SessionId[];
  readonly signal?: AbortSignal;
}

const STEP = 256;

/** Plans the removal of versions; nothing is changed. Versions that are not there count for nothing. */
export async function planRemoval(
  repo: { readonly kv: Kv },
  uids: readonly VersionUid[],
  options: PlanOptions = {},
): Promise<RemovalPlan> {
  const garbage = await new Plan(repo.kv, [], options).run();
  const total = uids.length === 0 ? garbage : await new Plan(repo.kv, uids, options).run();
  return { garbage, total, removal: difference(total, garbage) };
}

class Plan {
  readonly #kv: Kv;
  readonly #uids: ReadonlySet<VersionUid>;
  readonly #ended: readonly SessionId[];
  readonly #signal: AbortSignal | undefined;
  /** Nodes to decide about, by level. */
  readonly #candidates = Array.from({ length: NODE_LEVEL_MAX + 1 }, () => new Set<BlockId>());
  /** Nodes that go. */
  readonly #going = new Set<BlockId>();
  readonly #live = new Map<SessionId, boolean>();
  readonly #sum = new Sum();

  constructor(kv: Kv, uids: readonly VersionUid[], options: PlanOptions) {
    this.#kv = kv;
    this.#uids = new Set(uids);
    this.#ended = options.endedSessions ?? [];
    this.#signal = options.signal;
  }

  async run(): Promise<RemovalFigures> {
    for (const uid of this.#uids) await this.#addRoot(uid);
    await this.#addGarbage();
    const leaves: BlockId[] = [];
    for (let level = NODE_LEVEL_MAX; level >= 0; level -= 1) {
      for (const id of this.#candidates[level] as Set<BlockId>) {
        this.#signal?.throwIfAborted();
        if ((await this.#decideNode(id, level)) && level === 0) leaves.push(id);
      }
    }
    for (const leaf of leaves) {
      this.#signal?.throwIfAborted();
      await this.#kv.read((reader) => this.#decideBlocks(reader, leaf));
    }
    return this.#sum.figures();
  }

  #addRoot(uid: VersionUid): Promise<void> {
    return this.#kv.read(async (reader) => {
      const version = await readVersion(reader, uid);
      if (version?.root === undefined || version.state === "removed") return;
      const node = await readNode(reader, version.root);
      if (node !== undefined) this.#candidates[node.level]?.add(version.root);
    });
  }

  /** What lies in the collector's queues, and what settling the ended sessions would put there; nothing counts twice. */
  async #addGarbage(): Promise<void> {
    await this.#scan(range.unreferenced(), async (reader, entry) => {
      await this.#addLoose(reader, parse.unreferenced(entry.key));
    });
    await this.#scan(range.condemned(), async (reader, entry) => {
      const { id } = parse.condemned(entry.key);
      if (!(await isUnreferenced(reader, id))) await this.#addLoose(reader, id);
    });
    for (const [index, session] of this.#ended.entries()) {
      await this.#scan(range.holds(session), async (reader, entry) => {
        await this.#addLoose(reader, entry.value.toString("hex") as BlockId);
      });
      await this.#scan(range.claims(session), async (reader, entry) => {
        const { id } = parse.claim(entry.key);
        const record = await readBlock(reader, id);
        if (record?.condemnedEpoch !== undefined || (await isUnreferenced(reader, id))) return;
        if (await isClaimed(reader, id, this.#ended.slice(0, index))) return;
        await this.#addLoose(reader, id);
      });
    }
  }

  async #scan(
    { start, end }: KeyRange,
    look: (reader: KvReader, entry: KvEntry) => Promise<void>,
  ): Promise<void> {
    for (let from = start; ;) {
      this.#signal?.throwIfAborted();
      const at = from;
      const last = await this.#kv.read(async (reader) => {
        const entries = await reader.range({ start: at, end, limit: STEP });
        for (const entry of entries) await look(reader, entry);
        return entries.length < STEP ? undefined : entries.at(-1);
      });
      if (last === undefined) return;
      from = keyAfter(last.key);
    }
  }

  /** A node is decided with its level. A block without a reference goes; one that has some goes with its leaves, or stays. */
  async #addLoose(reader: KvReader, id: BlockId): Promise<void> {
    const node = await readNode(reader, id);
    if (node !== undefined) {
      this.#candidates[node.level]?.add(id);
      return;
    }
    const [reference] = await reader.range({ ...range.references(id), limit: 1 });
    const record = await readBlock(reader, id);
    if (record === undefined || reference !== undefined) return;
    if (!(await this.#isComing(reader, record))) this.#sum.add(record);
  }

  #decideNode(id: BlockId, level: number): Promise<boolean> {
    return this.#kv.read(async (reader) => {
      const record = await readBlock(reader, id);
      if (record === undefined || !(await this.#goes(reader, id, record))) return false;
      this.#going.add(id);
      this.#sum.add(record);
      const node = level > 0 ? await readNode(reader, id) : undefined;
      for (const child of node?.children ?? []) {
        if (child !== undefined) this.#candidates[level - 1]?.add(child);
      }
      return true;
    });
  }

  /** A block that several leaves name is decided at the first of its references only. */
  async #decideBlocks(reader: KvReader, leaf: BlockId): Promise<void> {
    const node = await readNode(reader, leaf);
    const ids = [...new Set(node?.children.filter((child) => child !== undefined) ?? [])];
    const records = await readBlocks(reader, ids);
    for (const [index, id] of ids.entries()) {
      const record = records[index];
      if (record === undefined) continue;
      const [first] = await reader.range({ ...range.references(id), limit: 1 });
      const parent = first === undefined ? undefined : parse.reference(first.key).parent;
      if (parent?.kind !== "node" || parent.id !== leaf) continue;
      if (await this.#goes(reader, id, record)) this.#sum.add(record);
    }
  }

  /** Every reference goes, and nothing of it is coming from a live session. */
  async #goes(reader: KvReader, id: BlockId, record: BlockRecord): Promise<boolean> {
    let { start } = range.references(id);
    const { end } = range.references(id);
    for (;;) {
      const entries = await reader.range({ start, end, limit: STEP });
      if (!entries.every((entry) => this.#isGone(parse.reference(entry.key).parent))) return false;
      const last = entries.at(-1);
      if (last === undefined || entries.length < STEP) break;
      start = keyAfter(last.key);
    }
    return !(await this.#isComing(reader, record));
  }

  #isGone(parent: Parent): boolean {
    switch (parent.kind) {
      case "node":
        return this.#going.has(parent.id);
      case "version":
        return this.#uids.has(parent.uid);
      case "hold":
        return this.#ended.includes(parent.session);
    }
  }

  async #isComing(reader: KvReader, record: BlockRecord): Promise<boolean> {
    for (const copy of record.copies) {
      if (copy.state !== "coming" || this.#ended.includes(copy.session)) continue;
      const known = this.#live.get(copy.session);
      const live = known ?? (await readSession(reader, copy.session))?.state === "live";
      this.#live.set(copy.session, live);
      if (live) return true;
    }
    return false;
  }
}

async function readNode(reader: KvReader, id: BlockId): Promise<TreeNode<BlockId> | undefined> {
  const plain = await reader.get(key.node(id));
  return plain === undefined ? undefined : decodeNode<BlockId>(plain);
}

async function isUnreferenced(reader: KvReader, id: BlockId): Promise<boolean> {
  return (await reader.get(key.unreferenced(id))) !== undefined;
}

async function isClaimed(
  reader: KvReader,
  id: BlockId,
  sessions: readonly SessionId[],
): Promise<boolean> {
  const values = await reader.getMany(sessions.map((session) => key.claim(session, id)));
  return values.some((value) => value !== undefined);
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Adds up records as their removal does: every object that is placed or bad goes to trash. */
class Sum {
  readonly #totals = { blocks: 0, nodes: 0, objects: 0, blockBytes: 0, storedBytes: 0 };
  readonly #storages = new Map<StorageId, Mutable<StorageFigures>>();

  add(record: BlockRecord): void {
    const totals = this.#totals;
    if (record.kind === "node") totals.nodes += 1;
    else {
      totals.blocks += 1;
      totals.blockBytes += record.plainBytes;
    }
    for (const { storage, state } of record.copies) {
      if (state !== "placed" && state !== "bad") continue;
      const at = this.#storages.get(storage) ?? { storage, blocks: 0, nodes: 0, storedBytes: 0 };
      this.#storages.set(storage, at);
      if (record.kind === "node") at.nodes += 1;
      else at.blocks += 1;
      at.storedBytes += record.storedBytes;
      totals.objects += 1;
      totals.storedBytes += record.storedBytes;
    }
  }

  figures(): RemovalFigures {
    return { ...this.#totals, storages: [...this.#storages.values()] };
  }
}

function difference(total: RemovalFigures, less: RemovalFigures): RemovalFigures {
  const storages: StorageFigures[] = [];
  for (const at of total.storages) {
    const other = less.storages.find(({ storage }) => storage === at.storage);
    storages.push({
      storage: at.storage,
      blocks: at.blocks - (other?.blocks ?? 0),
      nodes: at.nodes - (other?.nodes ?? 0),
      storedBytes: at.storedBytes - (other?.storedBytes ?? 0),
    });
  }
  return {
    blocks: total.blocks - less.blocks,
    nodes: total.nodes - less.nodes,
    objects: total.objects - less.objects,
    blockBytes: total.blockBytes - less.blockBytes,
    storedBytes: total.storedBytes - less.storedBytes,
    storages: storages.filter(({ blocks, nodes }) => blocks + nodes > 0),
  };
}
