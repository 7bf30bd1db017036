// Sweep (DESIGN §4.9): finds objects that no record names, e.g. of a put that arrived after its trash was emptied. It only
// writes trash; a run that deletes looks at the storage before it empties that.
//
// An object that is listed was named in a record before it was put, and a name that was dropped is never named again. So a
// record that is read after the listing, in the transaction that writes the trash, and does not name the object, will never
// name it: also where a put is under way at this moment.
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import type { KvReader } from "#lib/ports/kv.ts";
import { key } from "#lib/repository/keyspace.ts";
import { readBlock } from "#lib/repository/ledger.ts";
import { decodeRecord, type HeadAtRecord } from "#lib/repository/records.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { isRenewal } from "#lib/repository/transactions/renew.ts";
import { isTrash } from "#lib/repository/transactions/locked-trash.ts";
import { sweepNames } from "#lib/repository/transactions/storage.ts";
import { ObjectFolder, parseObjectName, type ObjectName } from "#proto/object-names.ts";
import { asAway } from "./away.ts";
import { storageState } from "./counting-storages.ts";
import { ensureGuarded } from "./guard.ts";
import type { SweepOutcome, UpkeepOptions } from "#lib/repository/upkeep.ts";

/** Objects judged in one transaction: each may read a record and write a trash entry. */
const BATCH = 64;

/**
 * Compares a storage's listing with the records, in bounded memory. Names that Ashlar does not give are left alone.
 * Refused when the storage and the metadata do not know each other.
 */
export async function sweepStorage(
  repo: Repository,
  storage: StorageId,
  options: UpkeepOptions = {},
): Promise<SweepOutcome> {
  const { signal } = options;
  const state = await storageState(repo.kv, storage);
  if (state !== "in-use" && state !== "readonly") {
    return { storage, listed: 0, orphans: 0, reason: `the storage is ${state}` };
  }
  const { away } = await ensureGuarded(repo, [storage], signal);
  const sweep = new Sweep(repo, storage);
  if (away[0] !== undefined) return sweep.outcome(away[0].error.message);
  try {
    const store = repo.storages.store(storage);
    let bytes = 0;
    for (const folder of [ObjectFolder.heads, ObjectFolder.nodes, ObjectFolder.blocks]) {
      for await (const entry of store.list(folder, signal === undefined ? {} : { signal })) {
        signal?.throwIfAborted();
        await sweep.look(entry.name);
        bytes += entry.sizeBytes;
        options.onProgress?.(bytes);
      }
    }
    await sweep.judge();
    return sweep.outcome(undefined);
  } catch (error) {
    signal?.throwIfAborted();
    return sweep.outcome(asAway(error).message);
  }
}

class Sweep {
  readonly #repo: Repository;
  readonly #storage: StorageId;
  #batch: { name: string; isNamed: (reader: KvReader) => Promise<boolean> }[] = [];
  #listed = 0;
  #orphans = 0;

  constructor(repo: Repository, storage: StorageId) {
    this.#repo = repo;
    this.#storage = storage;
  }

  async look(name: string): Promise<void> {
    const parsed = parseObjectName(name);
    if (parsed === undefined) return;
    this.#listed += 1;
    const storage = this.#storage;
    this.#batch.push({ name, isNamed: (reader) => isNamed(reader, storage, name, parsed) });
    if (this.#batch.length === BATCH) await this.judge();
  }

  async judge(): Promise<void> {
    const batch = this.#batch;
    this.#batch = [];
    if (batch.length === 0) return;
    this.#orphans += await sweepNames(this.#repo.kv, this.#storage, batch);
  }

  outcome(reason: string | undefined): SweepOutcome {
    return { storage: this.#storage, listed: this.#listed, orphans: this.#orphans, reason };
  }
}

/** Whether a record names the object there, in any state, or it is in trash already. */
async function isNamed(
  reader: KvReader,
  storage: StorageId,
  name: string,
  parsed: ObjectName,
): Promise<boolean> {
  if (await isTrash(reader, storage, name)) return true;
  switch (parsed.type) {
    case "block":
    case "node": {
      const id = parsed.id as BlockId;
      const record = await readBlock(reader, id);
      const isCopy = record?.copies.some(
        (copy) => copy.storage === storage && copy.generation === parsed.generation,
      );
      if (record?.kind === parsed.type && isCopy === true) return true;
      return isRenewal(reader, storage, id, parsed.generation as Generation);
    }
    case "head": {
      const value = await reader.get(key.headAt(storage, name));
      // One that is not known at all was put by another KV: the guard's business, never ours to delete.
      return value === undefined || decodeRecord<HeadAtRecord>(value).state !== "trash";
    }
    case "stamp":
    case "key":
      return true;
  }
}
