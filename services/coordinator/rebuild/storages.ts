// The end of a rebuild: the given storages count, their stamps are known, and each gets a new one. Last of all, for as long
// as a storage shows a stamp that the metadata do not know, nothing is written or deleted there; and the new stamp tells
// every other copy of the metadata that it is not the one any more.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { FormatError } from "#proto/format-error.ts";
import { parseObjectName, stampObjectId, stampObjectName } from "#proto/object-names.ts";
import { decodeStamp, encodeStamp } from "#proto/stamp.ts";
import { key } from "#lib/repository/keyspace.ts";
import { BATCH_MAX, readRun, writeCounter } from "#lib/repository/ledger.ts";
import {
  decodeRecord,
  encodeRecord,
  type StampRecord,
  type StorageRecord,
} from "#lib/repository/records.ts";
import { beginRun, confirmStamp, readStamps } from "#lib/repository/transactions/storage.ts";
import { isAtStorage } from "./listing.ts";
import type { RebuildRun, RebuildStore } from "./run.ts";

/** Makes a given storage count, and it and the metadata know each other again. */
export async function admitStorage(
  run: RebuildRun,
  given: RebuildStore,
  listed: ReadonlySet<string>,
): Promise<void> {
  const runs = await readRuns(run, given, listed);
  await forgetLostStamps(run, given, listed);
  const names = [...listed];
  for (let from = 0; from < names.length; from += BATCH_MAX) {
    const step = names.slice(from, from + BATCH_MAX);
    await run.transact(async (tx) => {
      for (const name of step) {
        const at = key.stamp(given.identity, name);
        const value = await tx.get(at);
        const known = value === undefined ? undefined : decodeRecord<StampRecord>(value);
        if (known?.confirmed === true) continue;
        const stamp: StampRecord = { run: known?.run ?? runs.get(name) ?? 0, confirmed: true };
        tx.set(at, encodeRecord(stamp));
      }
    });
  }
  await run.transact(async (tx) => {
    // Trash is deleted by runs of a higher number than its own: numbers go on where any KV of this storage stopped.
    const highest = Math.max(await readRun(tx, given.identity), 0, ...runs.values());
    writeCounter(tx, key.run(given.identity), highest);
    const at = key.storage(given.identity);
    const value = await tx.get(at);
    const known = value === undefined ? undefined : decodeRecord<StorageRecord>(value);
    if (known?.state === "retired") throw retired(given);
    const record: StorageRecord = {
      name: given.name,
      site: given.site ?? known?.site ?? "",
      state: known?.state === "readonly" ? "readonly" : "in-use",
      addedMs: known?.addedMs ?? run.request.clock.now(),
    };
    tx.set(at, encodeRecord(record));
  }, true);
  await putStamp(run, given);
}

/** Refused, before anything is changed, for a storage that was retired. */
export async function refuseRetired(run: RebuildRun): Promise<void> {
  for (const given of run.request.stores) {
    const value = await run.kv.read((reader) => reader.get(key.storage(given.identity)));
    if (value !== undefined && decodeRecord<StorageRecord>(value).state === "retired") {
      throw retired(given);
    }
  }
}

function retired({ name }: RebuildStore): AshlarError {
  return new AshlarError(ErrorCode.Refused, `storage ${name} was retired here`, {
    remedy: "a retired storage never comes back: rebuild from it into a new, empty folder",
  });
}

/** The run numbers of stamps that are not known yet; one that cannot be read tells none. */
async function readRuns(
  run: RebuildRun,
  given: RebuildStore,
  listed: ReadonlySet<string>,
): Promise<Map<string, number>> {
  const known = await readStamps(run.kv, given.identity);
  const runs = new Map<string, number>();
  for (const name of listed) {
    run.request.signal?.throwIfAborted();
    if (known.has(name)) continue;
    runs.set(name, await readStampRun(run, given, name));
  }
  return runs;
}

async function readStampRun(run: RebuildRun, given: RebuildStore, name: string): Promise<number> {
  const parsed = parseObjectName(name);
  if (parsed?.type !== "stamp") return 0;
  try {
    const sealed = await given.store.get(name);
    const id = stampObjectId(parsed.random);
    return decodeStamp(run.sealer.open({ kind: "stamp", id, sealed })).run;
  } catch (error) {
    const isDamage =
      error instanceof FormatError ||
      (error instanceof AshlarError &&
        (error.code === ErrorCode.Damaged || error.code === ErrorCode.NotFound));
    if (!isDamage) throw error;
    run.problems.push(`${name} at storage ${given.name} cannot be read: ${error.message}`);
    return 0;
  }
}

/** Stamps that were confirmed and are not there: the storage went back. They are missed no longer. */
async function forgetLostStamps(
  run: RebuildRun,
  given: RebuildStore,
  listed: ReadonlySet<string>,
): Promise<void> {
  for (const [name, { confirmed }] of await readStamps(run.kv, given.identity)) {
    if (!confirmed || listed.has(name) || (await isAtStorage(given.store, name))) continue;
    await run.transact(async (tx) => {
      tx.clear(key.stamp(given.identity, name));
      await Promise.resolve();
    });
  }
}

/** Records, puts and confirms a new stamp. */
async function putStamp(run: RebuildRun, given: RebuildStore): Promise<void> {
  const { random, keys, clock, signal } = run.request;
  const { identity: storage, store } = given;
  const name8 = random.bytes(8).toString("hex");
  const name = stampObjectName(name8);
  const number = await beginRun(run.kv, storage, name);
  // What the stamp vouches for is on the disk before the stamp is on the storage.
  await run.kv.flush();
  const { repository } = keys;
  const plain = encodeStamp({
    repository,
    storage,
    run: number,
    random: name8,
    createdMs: clock.now(),
  });
  const sealed = run.sealer.seal({ kind: "stamp", id: stampObjectId(name8), plain });
  const mode = { mode: "create", reserve: true, unlocked: true } as const;
  await store.put(name, sealed, signal === undefined ? mode : { ...mode, signal });
  await confirmStamp(run.kv, storage, name);
}

/** Storages that policies name and nobody has shown here yet. */
export async function listDisabled(
  run: RebuildRun,
  counts: ReadonlyMap<StorageId, number>,
): Promise<{ readonly storage: StorageId; readonly versions: number }[]> {
  const out: { storage: StorageId; versions: number }[] = [];
  for (const [storage, versions] of counts) {
    const value = await run.kv.read((reader) => reader.get(key.storage(storage)));
    const state = value === undefined ? undefined : decodeRecord<StorageRecord>(value).state;
    if (state === "disabled") out.push({ storage, versions });
  }
  return out;
}
