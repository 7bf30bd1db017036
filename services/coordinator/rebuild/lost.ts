// Copies that the metadata call placed and the storage does not have: it was put back from an older copy, or lost objects.
// They turn bad, with a new one owed, before anything new rests on them. All records are looked at, not only those of
// versions: a block that nothing refers to yet would be answered as known.
import type { BlockId, StorageId } from "#lib/core/ids.ts";
import { placedAt, type BlockRecord, type Copy } from "#lib/repository/block-record.ts";
import { objectName, parse, range } from "#lib/repository/keyspace.ts";
import { BATCH_MAX, newGeneration, saveBlock } from "#lib/repository/ledger.ts";
import { SEAL_OVERHEAD_BYTES_MIN } from "#proto/sealed-object.ts";
import { decodeOrUnreadable, readUsable } from "../readable-records.ts";
import { decodeSize, rebuildKey } from "./keyspace.ts";
import { isAtStorage } from "./listing.ts";
import type { RebuildRun } from "./run.ts";
import { clearTrashOf } from "#lib/repository/transactions/locked-trash.ts";

interface Lost {
  readonly id: BlockId;
  readonly copy: Copy;
}

/** How many names are looked up at once. */
const PARALLEL = 16;

/** Looks at every record. */
export async function markLostCopies(run: RebuildRun): Promise<void> {
  await run.eachPage("comparing records", range.blocks(), BATCH_MAX, async (entries) => {
    const records = entries.flatMap(({ key: at, value }) => {
      const record = decodeOrUnreadable(value);
      return typeof record === "object" ? [{ id: parse.block(at), record }] : [];
    });
    const unlisted = await findUnlisted(run, records);
    const lost: Lost[] = [];
    for (let from = 0; from < unlisted.length; from += PARALLEL) {
      const step = unlisted.slice(from, from + PARALLEL);
      // A listing may lag: what it lacks is looked up by name.
      const found = await Promise.all(
        step.map(({ copy, name }) =>
          isAtStorage(run.store(copy.storage), name, SEAL_OVERHEAD_BYTES_MIN),
        ),
      );
      lost.push(...step.filter((_, index) => found[index] === false));
    }
    if (lost.length > 0) await markAll(run, lost);
  });
}

async function findUnlisted(
  run: RebuildRun,
  records: readonly { readonly id: BlockId; readonly record: BlockRecord }[],
): Promise<(Lost & { readonly name: string })[]> {
  const placed = records.flatMap(({ id, record }) =>
    record.copies
      .filter((copy) => copy.state === "placed" && run.given.includes(copy.storage))
      .map((copy) => ({
        id,
        copy,
        name: objectName(record.kind, id, copy.generation),
        at: rebuildKey.object(record.kind, id, copy.storage, copy.generation),
      })),
  );
  const listed = await run.kv.read((reader) => reader.getMany(placed.map(({ at }) => at)));
  // What is too short to be an object is none.
  return placed.filter((_, index) => decodeSize(listed[index]) <= SEAL_OVERHEAD_BYTES_MIN);
}

async function markAll(run: RebuildRun, lost: readonly Lost[]): Promise<void> {
  const marked = await run.transact(async (tx) => {
    const done: StorageId[] = [];
    for (const { id, copy } of lost) {
      const { storage, generation } = copy;
      const record = await readUsable(tx, id);
      // The record is read again: it may name another object there by now.
      if (record === undefined || placedAt(record, storage)?.generation !== generation) continue;
      const others = record.copies.filter((each) => each.storage !== storage);
      const copies: Copy[] = [
        ...others,
        { state: "bad", storage, generation },
        { state: "owed", storage, generation: newGeneration(run.request.random) },
      ];
      await saveBlock(tx, id, record, { ...record, copies });
      // The name stays in the record: what is found under it later is verified, not deleted.
      await clearTrashOf(tx, storage, objectName(record.kind, id, generation));
      done.push(storage);
    }
    return done;
  });
  for (const storage of marked) run.tally(storage, "lost");
}
