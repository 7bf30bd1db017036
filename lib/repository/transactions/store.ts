// Store (DESIGN §4.2): objects of blocks have become durable at storages; their copies turn *placed*.
import { assert } from "#lib/core/assert.ts";
import type { BlockId, StorageId } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import { currentAt, type BlockRecord } from "../block-record.ts";
import { objectName } from "../keyspace.ts";
import {
  BATCH_MAX,
  queueTrash,
  readBlocks,
  readPolicyStorages,
  saveBlock,
  withCopy,
  withPlaced,
} from "../ledger.ts";
import type { NamedCopy } from "./claim.ts";

/** One block that was put. */
export interface StoredBlock {
  readonly id: BlockId;
  /** Sealed bytes of the object. */
  readonly storedBytes: number;
  /** Durable under these names. */
  readonly done: readonly NamedCopy[];
  /** Failed, or not done yet: left owed. */
  readonly pending: readonly NamedCopy[];
}

/** What became of one block. */
export interface StoreOutcome {
  /** False when a copy was no longer named: the reader claims again. */
  readonly named: boolean;
  /** The storages at which the block is placed now. */
  readonly placed: readonly StorageId[];
}

/** Records a batch of puts; an object that is no longer named goes to trash. Lands twice without harm. */
export function storeBlocks(
  kv: Kv,
  nowMs: number,
  blocks: readonly StoredBlock[],
): Promise<StoreOutcome[]> {
  assert(blocks.length <= BATCH_MAX, "a batch of stores is bounded");
  return kv.transact(
    async (tx) => {
      const records = await readBlocks(
        tx,
        blocks.map((block) => block.id),
      );
      const taking = await storagesInUse(tx, blocks);
      const out: StoreOutcome[] = [];
      for (const [index, block] of blocks.entries()) {
        out.push(await storeOne(tx, nowMs, block, records[index], taking));
      }
      return out;
    },
    { durable: false, label: "store" },
  );
}

async function storagesInUse(
  tx: KvTransaction,
  blocks: readonly StoredBlock[],
): Promise<ReadonlySet<StorageId>> {
  const all = new Set(blocks.flatMap((block) => block.done.map((copy) => copy.storage)));
  const { counting } = await readPolicyStorages(tx, { storages: [...all], quorum: 1 });
  return new Set(counting);
}

async function storeOne(
  tx: KvTransaction,
  nowMs: number,
  block: StoredBlock,
  before: BlockRecord | undefined,
  taking: ReadonlySet<StorageId>,
): Promise<StoreOutcome> {
  let after = before;
  let named = true;
  for (const { storage, generation } of block.done) {
    const copy =
      after === undefined
        ? undefined
        : after.copies.find(
            (other) => other.storage === storage && other.generation === generation,
          );
    if (after === undefined || copy === undefined) {
      named = false;
      await queueTrash(tx, storage, objectName("block", block.id, generation));
    } else if ((copy.state === "coming" || copy.state === "owed") && taking.has(storage)) {
      after = withPlaced(after, storage, generation, nowMs);
    } else if (copy.state !== "placed") {
      named = false;
    }
  }
  for (const { storage, generation } of block.pending) {
    const copy = after === undefined ? undefined : currentAt(after, storage);
    if (after !== undefined && copy?.state === "coming" && copy.generation === generation) {
      after = withCopy(after, { state: "owed", storage, generation });
    }
  }
  if (after !== undefined && after !== before) {
    after = { ...after, storedBytes: block.storedBytes };
    await saveBlock(tx, block.id, before, after);
  }
  const placed = (after?.copies ?? []).filter((copy) => copy.state === "placed");
  return { named, placed: placed.map((copy) => copy.storage) };
}
