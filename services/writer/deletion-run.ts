// A run that deletes (DESIGN §4.10), the one way in which objects go: only from trash, under a new stamp, and only where the
// storage and the metadata know each other. It may stop at any point and be run again: a stamp that was recorded and never
// put stays unconfirmed and is not missed; an object that was deleted before its entry went is deleted once more.
import { AshlarError } from "#lib/core/errors.ts";
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import type { KvReader } from "#lib/ports/kv.ts";
import { decodeBlockRecord } from "#lib/repository/block-record.ts";
import { key } from "#lib/repository/keyspace.ts";
import { decodeRecord, type HeadAtRecord, type VersionRecord } from "#lib/repository/records.ts";
import type { Repository } from "#lib/repository/repository.ts";
import {
  beginRun,
  clearTrash,
  confirmStamp,
  listTrash,
} from "#lib/repository/transactions/storage.ts";
import {
  olderHeadsWaitUntil,
  releaseWaiting,
  waitForLocks,
  type LockedName,
} from "#lib/repository/transactions/locked-trash.ts";
import { lockOf } from "#lib/ports/blob-store.ts";
import { ObjectFolder, stampObjectId, stampObjectName } from "#proto/object-names.ts";
import { encodeStamp } from "#proto/stamp.ts";
import { asAway } from "./away.ts";
import { forEachBounded } from "./bounded.ts";
import { storageState } from "./counting-storages.ts";
import { ensureGuarded, inspectStorage, suspectError } from "./guard.ts";
import { putOwedHeads } from "./heads.ts";
import type { DeletionOutcome, UpkeepOptions } from "#lib/repository/upkeep.ts";

/** Names that are deleted, and whose entries are cleared, at once. */
const BATCH = 128;
/** Versions that a refusal names. */
const SHOWN_MAX = 3;

type Counts = {
  run: number | undefined;
  headsPut: number;
  deleted: number;
  waiting: number;
  failed: number;
};

/**
 * Deletes a storage's trash of earlier runs. A storage that is away, or whose listings may lag, is left alone, with the
 * reason. Refused, and nothing is deleted, when the storage and the metadata do not know each other.
 */
export async function runDeletions(
  repo: Repository,
  storage: StorageId,
  options: UpkeepOptions = {},
): Promise<DeletionOutcome> {
  const { signal } = options;
  const counts: Counts = { run: undefined, headsPut: 0, deleted: 0, waiting: 0, failed: 0 };
  let reason = await whyNot(repo, storage);
  try {
    reason ??= await deleteUnderStamp(repo, storage, counts, options);
  } catch (error) {
    signal?.throwIfAborted();
    if (isSuspicion(error)) throw error;
    reason = asAway(error).message;
  }
  return { storage, ...counts, reason };
}

/** The run itself; returns why it did not delete everything. */
async function deleteUnderStamp(
  repo: Repository,
  storage: StorageId,
  counts: Counts,
  options: UpkeepOptions,
): Promise<string | undefined> {
  const { signal } = options;
  const { away } = await ensureGuarded(repo, [storage], signal);
  if (away[0] !== undefined) return away[0].error.message;
  while (await releaseWaiting(repo.kv, storage, repo.clock.now())) signal?.throwIfAborted();
  const stamp = await putStamp(repo, storage, signal);
  counts.run = stamp.run;
  // Before the listing: another KV that lists these heads leaves alone what they name.
  const which = signal === undefined ? { storage } : { storage, signal };
  const [heads] = await putOwedHeads(repo, which);
  counts.headsPut = heads?.put ?? 0;
  if (heads?.failed === true) return heads.reason;
  const held = await whyHeld(repo, storage, stamp.name, signal);
  if (held !== undefined) return held;
  return deleteTrash({ repo, storage, run: stamp.run, counts, options });
}

function isSuspicion(error: unknown): boolean {
  return error instanceof AshlarError && error.details["problems"] !== undefined;
}

async function whyNot(repo: Repository, storage: StorageId): Promise<string | undefined> {
  const state = await storageState(repo.kv, storage);
  if (state !== "in-use" && state !== "readonly") return `the storage is ${state}`;
  try {
    // Not seeing another KV's stamp or head must mean that it is not there.
    return repo.storages.store(storage).capabilities.consistentListing
      ? undefined
      : "its listings may lag, so nothing can be deleted safely";
  } catch (error) {
    return asAway(error).message;
  }
}

/** Records, puts and confirms a new stamp with the storage's next run number. */
async function putStamp(
  repo: Repository,
  storage: StorageId,
  signal: AbortSignal | undefined,
): Promise<{ readonly run: number; readonly name: string }> {
  const random = repo.random.bytes(8).toString("hex");
  const name = stampObjectName(random);
  const run = await beginRun(repo.kv, storage, name);
  // What this run deletes was written to trash, together with the removal of its record, before the run began. Not every
  // one of those transactions waited for the disk.
  await repo.kv.flush();
  const { repository } = repo.config;
  const plain = encodeStamp({ repository, storage, run, random, createdMs: repo.clock.now() });
  const sealed = repo.sealer.seal({ kind: "stamp", id: stampObjectId(random), plain });
  await repo.storages.put(storage, name, sealed, {
    reserve: true,
    // Nothing is lost with one, and each run that deletes puts another.
    unlocked: true,
    ...(signal === undefined ? {} : { signal }),
  });
  await confirmStamp(repo.kv, storage, name);
  return { run, name };
}

/** Why nothing may be deleted at this storage in this run, or undefined. Refused when it is suspect. */
async function whyHeld(
  repo: Repository,
  storage: StorageId,
  stampName: string,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const inspection = await inspectStorage(repo, storage, signal);
  if (inspection.kind === "away") return inspection.error.message;
  if (inspection.kind === "suspect") throw suspectError([storage], [inspection]);
  if (!inspection.stamps.has(stampName))
    return "its listing does not show this run's own stamp yet";
  const uids = await rootlessHeads(repo, storage, inspection.heads);
  if (uids.size === 0) return undefined;
  const shown = [...uids].slice(0, SHOWN_MAX).join(", ");
  return (
    `it shows heads of versions whose trees the metadata do not hold there (${shown}); ` +
    "`ashlar rebuild --from` it takes them in"
  );
}

/**
 * Versions without a tombstone of which the storage shows a head, while the metadata do not hold their root there as placed
 * or bad. The heads were listed before; each version is read with its root at one point in time.
 */
async function rootlessHeads(
  repo: Repository,
  storage: StorageId,
  heads: ReadonlySet<string>,
): Promise<Set<VersionUid | string>> {
  const rootless = new Set<VersionUid | string>();
  const names = [...heads];
  for (let from = 0; from < names.length; from += BATCH) {
    const step = names.slice(from, from + BATCH);
    await repo.kv.read(async (reader) => {
      const values = await reader.getMany(step.map((name) => key.headAt(storage, name)));
      for (const [index, value] of values.entries()) {
        const head = value === undefined ? undefined : decodeRecord<HeadAtRecord>(value);
        if (head === undefined || !(await isHeld(reader, storage, head))) {
          rootless.add(head?.uid ?? (step[index] as string));
        }
      }
    });
  }
  return rootless;
}

async function isHeld(
  reader: KvReader,
  storage: StorageId,
  { uid, state }: HeadAtRecord,
): Promise<boolean> {
  const value = await reader.get(key.version(uid));
  if (value === undefined) return false;
  const version = decodeRecord<VersionRecord>(value);
  if (version.state === "removed") return true;
  // It has left the storage: what is shown there of it is on its way out, or was put late.
  if (state === "trash" && !version.policy.storages.includes(storage)) return true;
  const { root } = version;
  const record = root === undefined ? undefined : await reader.get(key.block(root));
  if (record === undefined) return false;
  return decodeBlockRecord(record).copies.some(
    (copy) => copy.storage === storage && (copy.state === "placed" || copy.state === "bad"),
  );
}

interface DeletionJob {
  readonly repo: Repository;
  readonly storage: StorageId;
  readonly run: number;
  readonly counts: Counts;
  readonly options: UpkeepOptions;
}

/** Which of a page of names are to be deleted now. */
type Choose = (names: readonly string[]) => Promise<readonly string[]>;

/**
 * Heads go first, so that none outlives what it names. Last revisions go at the very end, and only when every older head
 * could be deleted: a storage must not show a removed version as if it were there. Where an older head is locked, the last
 * revision waits as long.
 */
async function deleteTrash(job: DeletionJob): Promise<string | undefined> {
  const { repo, storage, counts } = job;
  const all: Choose = (names) => Promise.resolve(names);
  const heads =
    (removed: boolean): Choose =>
    async (names) => {
      const known = await readHeads(repo, storage, names);
      return names.filter((_, index) => (known[index]?.removed === true) === removed);
    };
  let reason = await deleteNames(job, ObjectFolder.heads, heads(false));
  const olderAreGone = counts.failed === 0;
  reason = (await deleteNames(job, ObjectFolder.nodes, all)) ?? reason;
  reason = (await deleteNames(job, ObjectFolder.blocks, all)) ?? reason;
  if (!olderAreGone) return reason;
  const last: Choose = async (names) => afterOlderHeads(job, await heads(true)(names));
  return (await deleteNames(job, ObjectFolder.heads, last)) ?? reason;
}

/** Those of some last revisions of whose versions no older head waits for its lock. */
async function afterOlderHeads(
  { repo, storage, run, counts }: DeletionJob,
  names: readonly string[],
): Promise<string[]> {
  const early: LockedName[] = [];
  for (const name of names) {
    const prefix = name.slice(0, name.indexOf(".") + 1);
    const untilMs = await repo.kv.read((reader) => olderHeadsWaitUntil(reader, storage, prefix));
    if (untilMs > 0) early.push({ name, untilMs, sizeBytes: 0 });
  }
  if (early.length === 0) return [...names];
  await waitForLocks(repo.kv, storage, run, early);
  counts.waiting += early.length;
  return names.filter((name) => early.every((each) => each.name !== name));
}

async function readHeads(
  repo: Repository,
  storage: StorageId,
  names: readonly string[],
): Promise<(HeadAtRecord | undefined)[]> {
  const values = await repo.kv.read((reader) =>
    reader.getMany(names.map((name) => key.headAt(storage, name))),
  );
  return values.map((value) =>
    value === undefined ? undefined : decodeRecord<HeadAtRecord>(value),
  );
}

/** Deletes trash of one folder, several batches at once; returns an error's message. */
async function deleteNames(
  job: DeletionJob,
  folder: string,
  choose: Choose,
): Promise<string | undefined> {
  const { repo, storage, counts, options } = job;
  let reason: string | undefined;
  const deleteBatch = async (names: readonly string[]): Promise<void> => {
    const errors = await repo.storages.delete(storage, names, options.signal);
    const gone = names.filter((name) => !errors.has(name));
    await clearTrash(repo.kv, storage, job.run, gone);
    counts.deleted += gone.length;
    const locked: LockedName[] = [];
    for (const [name, error] of errors) {
      const lock = lockOf(error);
      if (lock !== undefined) locked.push({ name, ...lock });
      else reason ??= error.message;
    }
    if (locked.length > 0) await waitForLocks(repo.kv, storage, job.run, locked);
    counts.waiting += locked.length;
    counts.failed += errors.size - locked.length;
  };
  const batches = trashBatches(job, folder, choose);
  await forEachBounded(batches, repo.storages.removalsMax(storage), deleteBatch, options.signal);
  return reason;
}

/** Entries are cleared behind the place from which the next batch is read. */
async function* trashBatches(
  { repo, storage, run }: DeletionJob,
  prefix: string,
  choose: Choose,
): AsyncGenerator<readonly string[]> {
  let from: Buffer | undefined;
  do {
    const page = await listTrash(repo.kv, storage, run, { prefix, from, limit: BATCH });
    const names = await choose(page.names);
    if (names.length > 0) yield names;
    from = page.next;
  } while (from !== undefined);
}
