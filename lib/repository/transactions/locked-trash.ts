// Trash that its storage keeps locked (docs/storages.md, "Object lock"): it leaves the trash until its lock runs out, so that no run
// asks for it, or reads past it, in vain. Then it is trash again, under the run number that it had.
//
// An entry by name says how it stands; one by date, what is due. The first is the truth: one by date that does not fit it counts for
// nothing.
import { assert } from "#lib/core/assert.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { Kv, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import { key, keyAfter, parse, range } from "../keyspace.ts";
import { BATCH_MAX, writeCounter } from "../ledger.ts";
import { decodeRecord, type HeadAtRecord } from "../records.ts";

/** An object that could not be deleted yet. */
export interface LockedName {
  readonly name: string;
  /** When its lock runs out, in ms since 1970. */
  readonly untilMs: number;
  /** What it takes at the storage. */
  readonly sizeBytes: number;
}

/** How a name waits. */
export interface WaitingEntry {
  /** The run number of its trash entry. */
  readonly run: number;
  readonly untilMs: number;
  readonly sizeBytes: number;
}

/** What waits at a storage. */
export interface WaitingTrash {
  readonly objects: number;
  readonly bytes: number;
  /** There is more. */
  readonly more: boolean;
  /** When the first and the last of the locks run out, in ms since 1970; undefined where nothing waits. */
  readonly firstMs: number | undefined;
  readonly lastMs: number | undefined;
}

const FIELD_BYTES = 8;
const STEP = 128;
/** Counting reads every entry. */
const COUNT_MAX = 1_000_000;
const COUNT_STEP = 2000;

function encodeWaiting({ run, untilMs, sizeBytes }: WaitingEntry): Buffer {
  const out = Buffer.allocUnsafe(3 * FIELD_BYTES);
  for (const [index, field] of [run, untilMs, sizeBytes].entries()) {
    out.writeBigUInt64LE(BigInt(field), index * FIELD_BYTES);
  }
  return out;
}

/** Reads the value of an entry by name. */
export function decodeWaiting(value: Buffer): WaitingEntry {
  const [run = 0, untilMs = 0, sizeBytes = 0] = [0, 1, 2].map((index) =>
    Number(value.readBigUInt64LE(index * FIELD_BYTES)),
  );
  return { run, untilMs, sizeBytes };
}

/**
 * Names that run `run` could not delete wait for their locks; those whose entry was written again meanwhile stay in trash. Lands
 * twice without harm: what is no trash any more is left alone.
 */
export function waitForLocks(
  kv: Kv,
  storage: StorageId,
  run: number,
  locked: readonly LockedName[],
): Promise<void> {
  assert(locked.length <= BATCH_MAX, "a batch of locked names is bounded");
  return kv.transact(
    async (tx) => {
      const values = await tx.getMany(locked.map(({ name }) => key.trash(storage, name)));
      for (const [index, { name, untilMs, sizeBytes }] of locked.entries()) {
        const value = values[index];
        const entryRun = value === undefined ? run : Number(value.readBigUInt64LE(0));
        if (entryRun >= run) continue;
        tx.clear(key.trash(storage, name));
        await clearWaiting(tx, storage, name);
        setWaiting(tx, storage, name, { run: entryRun, untilMs: Math.ceil(untilMs), sizeBytes });
      }
    },
    { durable: false, label: "free:trash" },
  );
}

function setWaiting(
  tx: KvTransaction,
  storage: StorageId,
  name: string,
  entry: WaitingEntry,
): void {
  tx.set(key.waiting(storage, name), encodeWaiting(entry));
  writeCounter(tx, key.waitingUntil(storage, entry.untilMs, name), entry.sizeBytes);
}

/** A name waits no longer, if it did: it is dropped, or adopted by a rebuild. */
export async function clearWaiting(
  tx: KvTransaction,
  storage: StorageId,
  name: string,
): Promise<void> {
  const value = await tx.get(key.waiting(storage, name));
  if (value === undefined) return;
  tx.clear(key.waiting(storage, name));
  tx.clear(key.waitingUntil(storage, decodeWaiting(value).untilMs, name));
}

/** A name is trash no longer, locked or not. */
export async function clearTrashOf(
  tx: KvTransaction,
  storage: StorageId,
  name: string,
): Promise<void> {
  tx.clear(key.trash(storage, name));
  await clearWaiting(tx, storage, name);
}

/** Whether a name is to be deleted, now or once its lock has run out. */
export async function isTrash(
  reader: KvReader,
  storage: StorageId,
  name: string,
): Promise<boolean> {
  const keys = [key.trash(storage, name), key.waiting(storage, name)];
  return (await reader.getMany(keys)).some((value) => value !== undefined);
}

/** Whether anything is to be deleted at a storage now. */
export async function hasDueTrash(kv: Kv, storage: StorageId, nowMs: number): Promise<boolean> {
  return kv.read(async (reader) => {
    for (const where of [range.trash(storage), range.waitingUntil(storage, nowMs)]) {
      if ((await reader.range({ ...where, limit: 1 })).length > 0) return true;
    }
    return false;
  });
}

/**
 * Some of what has waited long enough is trash again.
 * @returns whether there is more
 */
export function releaseWaiting(kv: Kv, storage: StorageId, nowMs: number): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const entries = await tx.range({ ...range.waitingUntil(storage, nowMs), limit: STEP });
      for (const { key: at } of entries) {
        const { untilMs, name } = parse.waitingUntil(at);
        tx.clear(at);
        const value = await tx.get(key.waiting(storage, name));
        if (value === undefined) continue;
        const waiting = decodeWaiting(value);
        if (waiting.untilMs !== untilMs) continue;
        tx.clear(key.waiting(storage, name));
        // One that was written since then is of a later run.
        if ((await tx.get(key.trash(storage, name))) !== undefined) continue;
        writeCounter(tx, key.trash(storage, name), waiting.run);
      }
      return entries.length === STEP;
    },
    { durable: false, label: "free:trash" },
  );
}

/**
 * Until when heads with this prefix wait that do not remove their version; 0 where none does. `prefix` is the start of all head
 * names of a version.
 */
export async function olderHeadsWaitUntil(
  reader: KvReader,
  storage: StorageId,
  prefix: string,
): Promise<number> {
  let start = key.waiting(storage, prefix);
  const end = key.waiting(storage, `${prefix}\u007f`);
  let untilMs = 0;
  for (;;) {
    const entries = await reader.range({ start, end, limit: STEP });
    for (const entry of entries) {
      const { name } = parse.waiting(entry.key);
      const head = await reader.get(key.headAt(storage, name));
      if (head !== undefined && decodeRecord<HeadAtRecord>(head).removed) continue;
      untilMs = Math.max(untilMs, decodeWaiting(entry.value).untilMs);
    }
    const last = entries.at(-1);
    if (last === undefined || entries.length < STEP) return untilMs;
    start = keyAfter(last.key);
  }
}

/** What waits at a storage; counted up to a limit. */
export async function measureWaiting(kv: Kv, storage: StorageId): Promise<WaitingTrash> {
  const { start, end } = range.waitingUntil(storage);
  const counts = { objects: 0, bytes: 0, more: false };
  let firstMs: number | undefined;
  let lastMs: number | undefined;
  for (let from = start; ;) {
    const entries = await kv.read((reader) =>
      reader.range({ start: from, end, limit: COUNT_STEP }),
    );
    for (const { key: at, value } of entries) {
      lastMs = parse.waitingUntil(at).untilMs;
      firstMs ??= lastMs;
      counts.objects += 1;
      counts.bytes += Number(value.readBigUInt64LE(0));
    }
    const last = entries.at(-1);
    if (last === undefined || entries.length < COUNT_STEP) break;
    counts.more = counts.objects >= COUNT_MAX;
    if (counts.more) break;
    from = keyAfter(last.key);
  }
  if (counts.more) {
    const [final] = await kv.read((reader) =>
      reader.range({ start, end, limit: 1, reverse: true }),
    );
    if (final !== undefined) lastMs = parse.waitingUntil(final.key).untilMs;
  }
  return { ...counts, firstMs, lastMs };
}
