// Storages know their KV (DESIGN §4.10): storage records, stamps, run numbers, and trash. Heads are in heads.ts.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { Kv, KvReader } from "#lib/ports/kv.ts";
import { key, keyAfter, parse, prefixRange, range } from "../keyspace.ts";
import { queueTrash, readCounter, readRun, writeCounter } from "../ledger.ts";
import {
  decodeRecord,
  encodeRecord,
  type StampRecord,
  type StorageRecord,
  type StorageState,
} from "../records.ts";

/** All storages that this KV knows, retired ones too. */
export function listStorages(
  kv: Kv,
): Promise<{ readonly storage: StorageId; readonly record: StorageRecord }[]> {
  return kv.read(async (reader) =>
    (await reader.range({ ...range.storages(), limit: 1000 })).map((entry) => ({
      storage: parse.storage(entry.key),
      record: decodeRecord<StorageRecord>(entry.value),
    })),
  );
}

/** Makes a storage count in this KV. An identity that was retired never comes back. */
export function addStorage(kv: Kv, storage: StorageId, record: StorageRecord): Promise<void> {
  return kv.transact(async (tx) => {
    const value = await tx.get(key.storage(storage));
    if (value !== undefined && decodeRecord<StorageRecord>(value).state === "retired") {
      throw new AshlarError(ErrorCode.Refused, `storage ${record.name} was retired`, {
        remedy: "make a new, empty storage",
      });
    }
    tx.set(key.storage(storage), encodeRecord(record));
  });
}

/**
 * Puts a storage in use, makes it readonly, or disables it. What it was owed meanwhile it is still owed: versions that were
 * finished without it owe it their roots. The record as it was before.
 * @throws NotFound for one that was never added, Refused for one that is retired
 */
export function setStorageState(
  kv: Kv,
  storage: StorageId,
  state: Exclude<StorageState, "retired">,
): Promise<StorageRecord> {
  return kv.transact(
    async (tx) => {
      const value = await tx.get(key.storage(storage));
      if (value === undefined) {
        throw new AshlarError(ErrorCode.NotFound, `there is no storage ${storage}`);
      }
      const record = decodeRecord<StorageRecord>(value);
      if (record.state === "retired") {
        throw new AshlarError(ErrorCode.Refused, `storage ${record.name} was retired`, {
          remedy: "make a new, empty storage",
        });
      }
      if (record.state !== state) tx.set(key.storage(storage), encodeRecord({ ...record, state }));
      return record;
    },
    { label: "free:state" },
  );
}

/** Begins a run that deletes: the next run number, and the stamp that says so, recorded before it is put. */
export function beginRun(kv: Kv, storage: StorageId, stampName: string): Promise<number> {
  return kv.transact(
    async (tx) => {
      const present = await tx.get(key.stamp(storage, stampName));
      if (present !== undefined) return decodeRecord<StampRecord>(present).run;
      const run = (await readRun(tx, storage)) + 1;
      writeCounter(tx, key.run(storage), run);
      const stamp: StampRecord = { run, confirmed: false };
      tx.set(key.stamp(storage, stampName), encodeRecord(stamp));
      return run;
    },
    { label: "free:stamp" },
  );
}

/** A stamp's put has succeeded: from now on its absence means that the storage went back. */
export function confirmStamp(kv: Kv, storage: StorageId, stampName: string): Promise<void> {
  return kv.transact(
    async (tx) => {
      const value = await tx.get(key.stamp(storage, stampName));
      if (value === undefined) return;
      const stamp: StampRecord = { ...decodeRecord<StampRecord>(value), confirmed: true };
      tx.set(key.stamp(storage, stampName), encodeRecord(stamp));
    },
    { label: "free:stamp" },
  );
}

/** The stamps that this KV put at a storage, by name. */
export function readStamps(kv: Kv, storage: StorageId): Promise<Map<string, StampRecord>> {
  return readNamed<StampRecord>(kv, range.stamps(storage), (at) => parse.stamp(at).name);
}

/** All records of a range, by what `nameOf` makes of their keys. */
export async function readNamed<T>(
  kv: Kv,
  where: { readonly start: Buffer; readonly end: Buffer },
  nameOf: (at: Buffer) => string,
): Promise<Map<string, T>> {
  const out = new Map<string, T>();
  let { start } = where;
  for (;;) {
    const from = start;
    const entries = await kv.read((reader) =>
      reader.range({ start: from, end: where.end, limit: 1000 }),
    );
    for (const entry of entries) out.set(nameOf(entry.key), decodeRecord<T>(entry.value));
    const last = entries.at(-1);
    if (last === undefined || entries.length < 1000) return out;
    start = Buffer.concat([last.key, Buffer.of(0)]);
  }
}

/** A page of trash. */
export interface TrashPage {
  /** What may be deleted: entries of an earlier run than the one that asks. */
  readonly names: string[];
  readonly next: Buffer | undefined;
}

/** Some trash of a storage whose names start with `prefix`, of an earlier run than `run`, from `from` on. */
export async function listTrash(
  kv: Kv,
  storage: StorageId,
  run: number,
  page: { readonly prefix: string; readonly from: Buffer | undefined; readonly limit: number },
): Promise<TrashPage> {
  const { start, end } = prefixRange(key.trash(storage, page.prefix));
  const { from, limit } = page;
  const entries = await kv.read((reader) => reader.range({ start: from ?? start, end, limit }));
  const last = entries.at(-1);
  return {
    names: entries
      .filter((entry) => Number(entry.value.readBigUInt64LE(0)) < run)
      .map((entry) => parse.trash(entry.key).name),
    next: last === undefined || entries.length < limit ? undefined : keyAfter(last.key),
  };
}

/**
 * Objects were deleted by run `run`: their trash entries go, but for those that were written again meanwhile, for a put that
 * arrived late. Heads stay known for ever, as trash: a put that arrives late must be recognised as ours, or it would look
 * like the head of a cloned KV.
 */
export function clearTrash(
  kv: Kv,
  storage: StorageId,
  run: number,
  names: readonly string[],
): Promise<void> {
  return kv.transact(
    async (tx) => {
      const keys = names.map((name) => key.trash(storage, name));
      for (const [index, value] of (await tx.getMany(keys)).entries()) {
        if (value !== undefined && Number(value.readBigUInt64LE(0)) < run) {
          tx.clear(keys[index] as Buffer);
        }
      }
    },
    { durable: false, label: "free:trash" },
  );
}

/** How many heads, or copies of blocks and nodes, are owed to a storage (counted up to `limit`). */
export function countOwed(
  kv: Kv,
  storage: StorageId,
  limit: number,
): Promise<{ readonly heads: number; readonly copies: number }> {
  return kv.read(async (reader) => ({
    heads: (await reader.range({ ...range.owedHeads(storage), limit })).length,
    copies: (await reader.range({ ...range.owed(storage), limit })).length,
  }));
}

/** The current run number of a storage. */
export function currentRun(kv: Kv, storage: StorageId): Promise<number> {
  return kv.read((reader) => readCounter(reader, key.run(storage), 0));
}

/**
 * Sweep (DESIGN §4.9): writes trash for those of the listed objects that no record names there in any state.
 * @returns how many were orphans.
 */
export function sweepNames(
  kv: Kv,
  storage: StorageId,
  objects: readonly {
    readonly name: string;
    readonly isNamed: (reader: KvReader) => Promise<boolean>;
  }[],
): Promise<number> {
  return kv.transact(
    async (tx) => {
      let orphans = 0;
      for (const object of objects) {
        if (await object.isNamed(tx)) continue;
        orphans += 1;
        await queueTrash(tx, storage, object.name);
      }
      return orphans;
    },
    { label: "free:sweep" },
  );
}
