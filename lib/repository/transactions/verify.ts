// Scrub's judgements (DESIGN §4.8): a copy was verified, is bad, or was a false alarm.
import { assert } from "#lib/core/assert.ts";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { currentAt, type BlockRecord, type Copy } from "../block-record.ts";
import { parse, range } from "../keyspace.ts";
import { BATCH_MAX, newGeneration, readBlock, saveBlock, withCopy } from "../ledger.ts";

/** One copy as it was judged. */
export interface JudgedCopy {
  readonly id: BlockId;
  readonly storage: StorageId;
  readonly generation: Generation;
}

const same =
  (judged: JudgedCopy) =>
  (copy: Copy): boolean =>
    copy.storage === judged.storage && copy.generation === judged.generation;

/**
 * A copy's bytes were read and are right: moves it to the end of its verify queue. One that was bad is *placed* again, and
 * what was to replace it goes to trash.
 */
export function markVerified(kv: Kv, nowMs: number, judged: JudgedCopy): Promise<void> {
  return markAllVerified(kv, nowMs, [judged]);
}

/** {@link markVerified} for a batch of copies, in one transaction. */
export function markAllVerified(
  kv: Kv,
  nowMs: number,
  judged: readonly JudgedCopy[],
): Promise<void> {
  assert(judged.length <= BATCH_MAX / 4, "a batch of verified copies is bounded");
  return kv.transact(
    async (tx) => {
      for (const copy of judged) await verifiedOne(tx, nowMs, copy);
    },
    { durable: false, label: "verified" },
  );
}

async function verifiedOne(tx: KvTransaction, nowMs: number, judged: JudgedCopy): Promise<void> {
  const before = await readBlock(tx, judged.id);
  const copy = before?.copies.find(same(judged));
  if (before === undefined || copy === undefined) return;
  if (copy.state !== "placed" && copy.state !== "bad") return;
  if (copy.state === "bad" && currentAt(before, judged.storage)?.state === "placed") return;
  const others = before.copies.filter((other) => other.storage !== judged.storage);
  const after: BlockRecord = {
    ...before,
    copies: [...others, { ...judgedNames(judged), state: "placed", verifiedMs: nowMs }],
  };
  await saveBlock(tx, judged.id, before, after);
}

const judgedNames = ({ storage, generation }: JudgedCopy) => ({ storage, generation });

/**
 * A copy is wrong or missing: it turns *bad* and its storage is owed a new one. Does nothing when the record does not name
 * it as placed any more (the caller's view was old).
 * @returns whether it was marked.
 */
export function markBad(kv: Kv, random: Random, judged: JudgedCopy): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const before = await readBlock(tx, judged.id);
      const copy = before?.copies.find(same(judged));
      if (before === undefined || copy?.state !== "placed") return false;
      const others = before.copies.filter((other) => other.storage !== judged.storage);
      const bad: BlockRecord = {
        ...before,
        copies: [...others, { ...judgedNames(judged), state: "bad" }],
      };
      const generation = newGeneration(random);
      const after = withCopy(bad, { state: "owed", storage: judged.storage, generation });
      await saveBlock(tx, judged.id, before, after);
      return true;
    },
    { label: "free:bad" },
  );
}

/** The copies at a storage that were verified longest ago. */
export async function listVerify(
  kv: Kv,
  storage: StorageId,
  from: Buffer | undefined,
  limit: number,
): Promise<{
  readonly copies: { readonly id: BlockId; readonly lastMs: number }[];
  readonly next: Buffer | undefined;
}> {
  const { start, end } = range.verify(storage);
  const entries = await kv.read((reader) => reader.range({ start: from ?? start, end, limit }));
  const last = entries.at(-1);
  return {
    copies: entries.map((entry) => parse.verify(entry.key)),
    next:
      last === undefined || entries.length < limit
        ? undefined
        : Buffer.concat([last.key, Buffer.of(0)]),
  };
}
