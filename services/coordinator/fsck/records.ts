// Checks of `block/<id>`: the record itself, the queues that follow from it, and that nothing unreferenced is forgotten.
import type { BlockId, StorageId } from "#lib/core/ids.ts";
import type { KvReader } from "#lib/ports/kv.ts";
import { hasGoodCopy, type BlockRecord, type Copy } from "#lib/repository/block-record.ts";
import { key, parse, range } from "#lib/repository/keyspace.ts";
import { addEntry, recheckAndClimb, settleCopy } from "./repair.ts";
import type { Check, FsckRun, Problem } from "./run.ts";
import { decodeOrUnreadable, readRecord } from "../readable-records.ts";

/** Records looked at in one read; each costs a handful of point reads. */
const STEP = 256;
/** Sessions that still have a record; more would not be looked through for each unreferenced record. */
const SESSIONS_MAX = 10_000;

/** Checks all block records. */
export async function checkRecords(run: FsckRun): Promise<void> {
  await run.checkAll("records", range.blocks(), STEP, (entry) => {
    const record = decodeOrUnreadable(entry.value);
    if (record !== "unreadable" && record !== undefined) {
      run.counts[record.kind === "node" ? "nodes" : "blocks"] += 1;
      if (record.damaged) run.counts.damaged += 1;
    }
    return checkRecord(run, parse.block(entry.key));
  });
}

function checkRecord(run: FsckRun, id: BlockId): Check {
  return async (reader) => {
    const record = await readRecord(reader, id);
    if (record === undefined) return [];
    if (record === "unreadable") {
      return [{ invariant: "records", what: "the record cannot be decoded", where: `block ${id}` }];
    }
    const referenced = (await reader.range({ ...range.references(id), limit: 1 })).length > 0;
    return [
      ...(await copyProblems(reader, id, record)),
      ...(await comingProblems(run, reader, id, record)),
      ...(await queueProblems(reader, id, record)),
      ...(await markProblems(reader, id, record, referenced)),
      ...(referenced ? [] : await forgottenProblems(reader, id, record)),
    ];
  };
}

const whereOf = (id: BlockId, record: BlockRecord): string => `${record.kind} ${id}`;

/** The copies make sense: known storages, at most one of either kind at each. */
async function copyProblems(
  reader: KvReader,
  id: BlockId,
  record: BlockRecord,
): Promise<Problem[]> {
  const problems: Problem[] = [];
  const seen = new Set<string>();
  for (const { state, storage } of record.copies) {
    const slot = `${storage}${state === "bad" ? "bad" : ""}`;
    if (seen.has(slot)) {
      problems.push({
        invariant: "records",
        what: `there are two copies of it at storage ${storage}`,
        where: whereOf(id, record),
      });
    }
    seen.add(slot);
    if ((await reader.get(key.storage(storage))) === undefined) {
      problems.push({
        invariant: "records",
        what: `a copy is at storage ${storage}, which these metadata do not know`,
        where: whereOf(id, record),
      });
    }
  }
  return problems;
}

type Coming = Extract<Copy, { state: "coming" }>;

/** What is coming comes from a session that has claimed it, so that its end settles it. */
async function comingProblems(
  run: FsckRun,
  reader: KvReader,
  id: BlockId,
  record: BlockRecord,
): Promise<Problem[]> {
  const problems: Problem[] = [];
  for (const copy of record.copies) {
    if (copy.state !== "coming" || (await isClaimed(reader, id, copy))) continue;
    problems.push({
      invariant: "sessions",
      what: `a copy is coming to storage ${copy.storage} from session ${copy.session}, which has no claim on it`,
      where: whereOf(id, record),
      repair: (tx) => settleCopy(tx, run.repo.random, id, copy),
    });
  }
  return problems;
}

async function isClaimed(reader: KvReader, id: BlockId, copy: Coming): Promise<boolean> {
  const [session, claim] = await reader.getMany([
    key.session(copy.session),
    key.claim(copy.session, id),
  ]);
  return session !== undefined && claim !== undefined;
}

/** Every queue entry that follows from the record is there. (That no other is there, the queues' own checks tell.) */
async function queueProblems(
  reader: KvReader,
  id: BlockId,
  record: BlockRecord,
): Promise<Problem[]> {
  const wanted: { readonly at: Buffer; readonly what: string }[] = [];
  for (const copy of record.copies) {
    if (copy.state === "owed") {
      wanted.push({ at: key.owed(copy.storage, id), what: owedWhat(copy.storage) });
    }
    if (copy.state === "placed") {
      const at = key.verify(copy.storage, copy.verifiedMs, id);
      wanted.push({ at, what: `it is not queued to be verified at storage ${copy.storage}` });
    }
  }
  if (record.condemnedEpoch !== undefined) {
    const at = key.condemned(record.condemnedEpoch, id);
    wanted.push({ at, what: "it is condemned but not queued to be removed" });
  }
  const values = await reader.getMany(wanted.map(({ at }) => at));
  return wanted
    .filter((_, index) => values[index] === undefined)
    .map(({ at, what }) => ({
      invariant: "queues",
      what,
      where: whereOf(id, record),
      repair: (tx) => addEntry(tx, at),
    }));
}

const owedWhat = (storage: StorageId): string =>
  `it is owed to storage ${storage} but not queued to be filled`;

/**
 * Marked exactly when no copy is good; what a node's children add is checked with the node. One that nothing refers to may
 * be on its way still. A pending re-check excuses: the mark is being moved.
 */
async function markProblems(
  reader: KvReader,
  id: BlockId,
  record: BlockRecord,
  referenced: boolean,
): Promise<Problem[]> {
  const isGood = hasGoodCopy(record);
  const isUnmarked = referenced && !isGood && !record.damaged;
  const isMarkedInVain = record.kind === "block" && isGood && record.damaged;
  if (!isUnmarked && !isMarkedInVain) return [];
  if ((await reader.get(key.recheck(id))) !== undefined) return [];
  return [
    {
      invariant: "marks",
      what: isUnmarked
        ? "it has no good copy but is not marked"
        : "it is marked but has a good copy",
      where: whereOf(id, record),
      repair: (tx) => recheckAndClimb(tx, id),
    },
  ];
}

/** What nothing refers to is where the collector or the end of a session will find it. */
async function forgottenProblems(
  reader: KvReader,
  id: BlockId,
  record: BlockRecord,
): Promise<Problem[]> {
  if (record.condemnedEpoch !== undefined) return [];
  if ((await reader.get(key.unreferenced(id))) !== undefined) return [];
  const sessions = await reader.range({ ...range.sessions(), limit: SESSIONS_MAX });
  const claims = sessions.map((entry) => key.claim(parse.session(entry.key), id));
  if ((await reader.getMany(claims)).some((claim) => claim !== undefined)) return [];
  return [
    {
      invariant: "queues",
      what: "nothing refers to it, and it is queued nowhere",
      where: whereOf(id, record),
      repair: (tx) => addEntry(tx, key.unreferenced(id)),
    },
  ];
}
