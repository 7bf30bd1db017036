// What storages hold and what versions cost, from the metadata alone: storages are not asked.
import type { BlockId, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Kv, KvReader } from "#lib/ports/kv.ts";
import { decodeBlockRecord, type BlockRecord } from "#lib/repository/block-record.ts";
import { key, range } from "#lib/repository/keyspace.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import { measureWaiting, type WaitingTrash } from "#lib/repository/transactions/locked-trash.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";
import { decodeNode } from "#proto/node.ts";

/** What the metadata say lies at a storage. */
export interface StorageUsage {
  readonly storage: StorageId;
  readonly blocks: number;
  readonly nodes: number;
  /** Sealed bytes of what is placed. */
  readonly bytes: number;
  /** Copies that are to come there. */
  readonly owed: number;
  readonly bad: number;
  /** What no version needs any more, and the storage keeps locked; not part of the above. */
  readonly waiting: WaitingTrash;
}

/** What a version is and costs. Bytes of plaintext, but for `uniqueStoredBytes`. */
export interface VersionUsage {
  readonly uid: VersionUid;
  readonly volume: string;
  /** Size of the device. */
  readonly virtualBytes: number;
  /** Not zero. A block that occurs twice counts twice. */
  readonly dataBytes: number;
  /** Of blocks that nothing else refers to: what goes when this version goes. */
  readonly uniqueBytes: number;
  /** Sealed bytes of those, with the tree nodes, over all storages. */
  readonly uniqueStoredBytes: number;
  /** The rest of the data: also in other versions, or repeated in this one. */
  readonly sharedBytes: number;
}

/** What removing some versions would free: plaintext bytes of blocks, and sealed bytes over all storages. */
export interface Freed {
  readonly blockBytes: number;
  readonly storedBytes: number;
}

const STEP = 1000;

type Totals = Map<
  StorageId,
  { -readonly [K in keyof Omit<StorageUsage, "waiting">]: StorageUsage[K] }
>;

/** Adds up the records of all blocks and nodes, by storage, and what waits for its lock. */
export async function measureStorages(kv: Kv, signal?: AbortSignal): Promise<StorageUsage[]> {
  const totals: Totals = new Map();
  const waiting = new Map<StorageId, WaitingTrash>();
  for (const { storage } of await listStorages(kv)) {
    const found = await measureWaiting(kv, storage);
    waiting.set(storage, found);
    if (found.objects > 0) totalOf(totals, storage);
  }
  await addRecords(kv, totals, signal);
  const usages: StorageUsage[] = [];
  for (const [storage, total] of totals) {
    usages.push({ ...total, waiting: waiting.get(storage) ?? NOTHING_WAITS });
  }
  return usages;
}

const NOTHING_WAITS: WaitingTrash = {
  objects: 0,
  bytes: 0,
  more: false,
  firstMs: undefined,
  lastMs: undefined,
};

async function addRecords(kv: Kv, totals: Totals, signal: AbortSignal | undefined): Promise<void> {
  const { start, end } = range.blocks();
  for (let from = start; ;) {
    signal?.throwIfAborted();
    const entries = await kv.read((reader) => reader.range({ start: from, end, limit: STEP }));
    for (const entry of entries) addRecord(totals, decodeBlockRecord(entry.value));
    const last = entries.at(-1);
    if (last === undefined || entries.length < STEP) return;
    from = Buffer.concat([last.key, Buffer.of(0)]);
  }
}

function totalOf(totals: Totals, storage: StorageId) {
  const none = { storage, blocks: 0, nodes: 0, bytes: 0, owed: 0, bad: 0 };
  const total = totals.get(storage) ?? none;
  totals.set(storage, total);
  return total;
}

function addRecord(totals: Totals, record: BlockRecord): void {
  for (const { storage, state } of record.copies) {
    const total = totalOf(totals, storage);
    if (state === "owed") total.owed += 1;
    if (state === "bad") total.bad += 1;
    if (state !== "placed") continue;
    if (record.kind === "node") total.nodes += 1;
    else total.blocks += 1;
    total.bytes += record.storedBytes;
  }
}

/** Measures versions; trees that versions share are walked once for all of them. */
export class VersionMeter {
  readonly #kv: Kv;
  /** Blocks below a node, by node. */
  readonly #blockCounts = new Map<BlockId, number>();

  constructor(kv: Kv) {
    this.#kv = kv;
  }

  /** Bytes of the version that are not zero. The last block counts as a whole one where the tree cannot tell. */
  async dataBytes(version: VersionRecord, signal?: AbortSignal): Promise<number> {
    if (version.root === undefined) return 0;
    const count = await this.#count(version.root, signal);
    return Math.min(count * version.blockBytes, version.sizeBytes);
  }

  /** What a version is and costs. */
  async measure(version: VersionRecord, freed: Freed, signal?: AbortSignal): Promise<VersionUsage> {
    const dataBytes = await this.dataBytes(version, signal);
    const uniqueBytes = Math.min(freed.blockBytes, dataBytes);
    return {
      uid: version.uid,
      volume: version.volume,
      virtualBytes: version.sizeBytes,
      dataBytes,
      uniqueBytes,
      uniqueStoredBytes: freed.storedBytes,
      sharedBytes: dataBytes - uniqueBytes,
    };
  }

  async #count(id: BlockId, signal: AbortSignal | undefined): Promise<number> {
    const known = this.#blockCounts.get(id);
    if (known !== undefined) return known;
    signal?.throwIfAborted();
    const plain = await this.#kv.read((reader: KvReader) => reader.get(key.node(id)));
    let count = 0;
    if (plain !== undefined) {
      const node = decodeNode<BlockId>(plain);
      for (const child of node.children) {
        if (child === undefined) continue;
        count += node.level === 0 ? 1 : await this.#count(child, signal);
      }
    }
    this.#blockCounts.set(id, count);
    return count;
  }
}
