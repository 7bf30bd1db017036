// Checks of queues from their side: every entry follows from a record, and trash names nothing that a record names. That no
// entry is missing, the records' own checks tell.
import type { BlockId, StorageId } from "#lib/core/ids.ts";
import type { KvReader, KvTransaction } from "#lib/ports/kv.ts";
import type { BlockRecord } from "#lib/repository/block-record.ts";
import { key, parse, range } from "#lib/repository/keyspace.ts";
import { writeCounter } from "#lib/repository/ledger.ts";
import { clearWaiting, decodeWaiting } from "#lib/repository/transactions/locked-trash.ts";
import type { HeadAtRecord, StampRecord } from "#lib/repository/records.ts";
import { parseObjectName } from "#proto/object-names.ts";
import { dropEntry } from "./repair.ts";
import { wholeRange, type Check, type FsckRun, type Problem } from "./run.ts";
import { readRecord, tryDecode } from "../readable-records.ts";

const STEP = 256;

/** Checks all queues. */
export async function checkQueues(run: FsckRun): Promise<void> {
  const count = (check: Check): Check => {
    run.counts.queued += 1;
    return check;
  };
  await run.checkAll("queues", wholeRange<StorageId>(range.owed), STEP, ({ key: at }) => {
    const { storage, id } = parse.owed(at);
    const what = `the queue says that it is owed to storage ${storage}`;
    return count(
      entryCheck(at, id, what, ({ copies }) =>
        copies.some((copy) => copy.state === "owed" && copy.storage === storage),
      ),
    );
  });
  await run.checkAll("queues", wholeRange<StorageId>(range.verify), STEP, ({ key: at }) => {
    const { storage, lastMs, id } = parse.verify(at);
    const what = `the queue says that it was verified at storage ${storage} at ${lastMs}`;
    return entryCheck(at, id, what, ({ copies }) =>
      copies.some(
        (copy) => copy.state === "placed" && copy.storage === storage && copy.verifiedMs === lastMs,
      ),
    );
  });
  await run.checkAll("queues", range.condemned(), STEP, ({ key: at }) => {
    const { epoch, id } = parse.condemned(at);
    const what = `the queue says that it was condemned in epoch ${epoch}`;
    return count(entryCheck(at, id, what, (record) => record.condemnedEpoch === epoch));
  });
  await run.checkAll("trash", range.trash(), STEP, ({ key: at }) =>
    count(trashCheck(at, parse.trash(at), (tx) => dropEntry(tx, at))),
  );
  await run.checkAll("trash", range.waiting(), STEP, ({ key: at }) => {
    const { storage, name } = parse.waiting(at);
    const drop = (tx: KvTransaction): Promise<void> => clearWaiting(tx, storage, name);
    return count(bothChecks(trashCheck(at, { storage, name }, drop), waitingCheck(at)));
  });
}

function bothChecks(first: Check, second: Check): Check {
  return async (reader) => [...(await first(reader)), ...(await second(reader))];
}

/** What waits for its lock is due at some time, or it would wait for ever. */
function waitingCheck(at: Buffer): Check {
  const { storage, name } = parse.waiting(at);
  return async (reader) => {
    const value = await reader.get(at);
    if (value === undefined) return [];
    const { untilMs, sizeBytes } = decodeWaiting(value);
    const due = key.waitingUntil(storage, untilMs, name);
    if ((await reader.get(due)) !== undefined) return [];
    return [
      {
        invariant: "trash",
        what: "it waits for its lock, but is in no queue of those that do",
        where: `${name} at storage ${storage}`,
        repair: (tx) => {
          writeCounter(tx, due, sizeBytes);
          return Promise.resolve();
        },
      },
    ];
  };
}

/** An entry for a record that does not say so is in vain. */
function entryCheck(
  at: Buffer,
  id: BlockId,
  what: string,
  says: (record: BlockRecord) => boolean,
): Check {
  return async (reader) => {
    if ((await reader.get(at)) === undefined) return [];
    const record = await readRecord(reader, id);
    if (record === "unreadable" || (record !== undefined && says(record))) return [];
    return [
      {
        invariant: "queues",
        what: `${what}, but its record does not`,
        where: `${record?.kind ?? "block"} ${id}`,
        repair: (tx) => dropEntry(tx, at),
      },
    ];
  };
}

/** What is in trash will be deleted: no record may name it (I3). */
function trashCheck(
  at: Buffer,
  { storage, name }: { readonly storage: StorageId; readonly name: string },
  drop: (tx: KvTransaction) => Promise<void>,
): Check {
  return async (reader): Promise<Problem[]> => {
    if ((await reader.get(at)) === undefined) return [];
    const owner = await namedBy(reader, storage, name);
    if (owner === undefined) return [];
    return [
      {
        invariant: "trash",
        what: `it is to be deleted, but ${owner}`,
        where: `${name} at storage ${storage}`,
        repair: drop,
      },
    ];
  };
}

/** Who names an object at a storage, as a clause; undefined when nobody does. */
async function namedBy(
  reader: KvReader,
  storage: StorageId,
  name: string,
): Promise<string | undefined> {
  const parsed = parseObjectName(name);
  switch (parsed?.type) {
    case "block":
    case "node": {
      const record = await readRecord(reader, parsed.id as BlockId);
      if (typeof record !== "object" || record.kind !== parsed.type) return undefined;
      const copy = record.copies.find(
        (each) => each.storage === storage && each.generation === parsed.generation,
      );
      return copy === undefined ? undefined : `its record names it as ${copy.state}`;
    }
    case "head": {
      const value = await reader.get(key.headAt(storage, name));
      const state = value === undefined ? "trash" : tryDecode<HeadAtRecord>(value)?.state;
      return state === "trash" ? undefined : `it is known as the head of a version (${state})`;
    }
    case "stamp": {
      const value = await reader.get(key.stamp(storage, name));
      const isConfirmed = value !== undefined && tryDecode<StampRecord>(value)?.confirmed === true;
      return isConfirmed ? "it is known as a stamp that must be there" : undefined;
    }
    case "key":
      return "it is a key";
    case undefined:
      return "it is no object of this repository";
  }
}
