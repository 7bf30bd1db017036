// Compares what the storages show with what the metadata name there. Objects come and go meanwhile, so the order decides what
// is certain: an object that a record names as placed was durable before; what the listing lacks is looked up by name, and
// the record is read again after that. What a listing shows and no record names is only counted: sweeping it is gc's.
import { isRenewal } from "#lib/repository/transactions/renew.ts";
import { isErrorCode, AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { KvReader } from "#lib/ports/kv.ts";
import type { Copy } from "#lib/repository/block-record.ts";
import { key, objectName, parse, range } from "#lib/repository/keyspace.ts";
import type { HeadAtRecord, StampRecord, StorageRecord } from "#lib/repository/records.ts";
import { ObjectFolder, parseObjectName } from "#proto/object-names.ts";
import { SEAL_OVERHEAD_BYTES_MIN } from "#proto/sealed-object.ts";
import { markMissing } from "./repair.ts";
import type { Check, FsckRun, Problem } from "./run.ts";
import { ObjectSet } from "../object-set.ts";
import { decodeOrUnreadable, readRecord, tryDecode } from "../readable-records.ts";

const STEP = 256;

/** A storage that could not be looked at. */
export interface SkippedStorage {
  readonly storage: StorageId;
  readonly reason: string;
}

/** Lists all storages that count and compares; one that is away is skipped. */
export async function checkObjects(run: FsckRun): Promise<SkippedStorage[]> {
  const { kv, storages } = run.repo;
  const skipped: SkippedStorage[] = [];
  const entries = await kv.read((reader) => reader.range({ ...range.storages(), limit: 1000 }));
  for (const entry of entries) {
    const storage = parse.storage(entry.key);
    const record = tryDecode<StorageRecord>(entry.value);
    if (record?.state !== "in-use" && record?.state !== "readonly") continue;
    try {
      await checkStorage(run, storage, record.name, storages.store(storage));
    } catch (error) {
      if (!isErrorCode(error, ErrorCode.Unavailable)) throw error;
      skipped.push({ storage, reason: error.message });
    }
  }
  return skipped;
}

async function checkStorage(
  run: FsckRun,
  storage: StorageId,
  name: string,
  store: BlobStore,
): Promise<void> {
  const listed = new ObjectSet();
  for (const folder of [ObjectFolder.blocks, ObjectFolder.nodes]) {
    await listObjects(run, storage, name, store, folder, listed);
  }
  await run.pages(
    `objects at ${name}`,
    range.blocks(),
    STEP,
    async (_, entries) => {
      const absent: { readonly id: BlockId; readonly copy: Copy; readonly object: string }[] = [];
      for (const entry of entries) {
        const record = decodeOrUnreadable(entry.value);
        if (typeof record !== "object") continue;
        const id = parse.block(entry.key);
        const copy = record.copies.find(
          (each) => each.state === "placed" && each.storage === storage,
        );
        if (copy === undefined || listed.has(id, copy.generation)) continue;
        absent.push({ id, copy, object: objectName(record.kind, id, copy.generation) });
      }
      return absent;
    },
    async (absent) => {
      for (const { id, copy, object } of absent) {
        if (await isThere(store, object, SEAL_OVERHEAD_BYTES_MIN)) continue;
        await run.confirm(checkMissing(run, name, id, copy, object));
      }
    },
  );
  for (const folder of [ObjectFolder.heads, ObjectFolder.stamps]) {
    await compareKnown(run, storage, name, store, folder);
  }
}

interface ListedObject {
  readonly id: BlockId;
  readonly generation: Generation;
  /** Where an entry is when it waits for its lock. */
  readonly waits: Buffer;
}

/** Lists a folder into `listed`, counting what no record names. */
async function listObjects(
  run: FsckRun,
  storage: StorageId,
  name: string,
  store: BlobStore,
  folder: string,
  listed: ObjectSet,
): Promise<void> {
  const { signal, onProgress } = run.options;
  let batch: ListedObject[] = [];
  const flush = async (): Promise<void> => {
    run.counts.objects += batch.length;
    run.counts.orphans += await countUnnamed(run, storage, batch);
    batch = [];
    onProgress?.({ phase: `listing ${name}`, done: listed.size });
  };
  for await (const entry of store.list(folder, signal === undefined ? {} : { signal })) {
    const object = parseObjectName(entry.name);
    if (object?.type !== "block" && object?.type !== "node") continue;
    // What is too short to be an object is none.
    if (entry.sizeBytes > SEAL_OVERHEAD_BYTES_MIN) listed.add(object.id, object.generation);
    const { id, generation } = object;
    batch.push({
      id: id as BlockId,
      generation: generation as Generation,
      waits: key.waiting(storage, entry.name),
    });
    if (batch.length === STEP) await flush();
  }
  await flush();
}

/** Also what is to take the place of another object is named. */
function countUnnamed(
  run: FsckRun,
  storage: StorageId,
  objects: readonly ListedObject[],
): Promise<number> {
  return run.repo.kv.read(async (reader) => {
    const values = await reader.getMany(objects.map(({ id }) => key.block(id)));
    const unnamed = objects.filter(({ generation }, index) => {
      const record = decodeOrUnreadable(values[index]);
      return !(
        typeof record === "object" &&
        record.copies.some((copy) => copy.storage === storage && copy.generation === generation)
      );
    });
    // No sweep is of any use to what is locked.
    const waiting = await reader.getMany(unnamed.map(({ waits }) => waits));
    let count = 0;
    for (const [index, { id, generation }] of unnamed.entries()) {
      if (waiting[index] !== undefined) continue;
      if (!(await isRenewal(reader, storage, id, generation))) count += 1;
    }
    return count;
  });
}

async function isThere(store: BlobStore, name: string, bytesMin = 0): Promise<boolean> {
  try {
    return (await store.stat(name)).sizeBytes > bytesMin;
  } catch (error) {
    if (error instanceof AshlarError && error.code === ErrorCode.NotFound) return false;
    throw error;
  }
}

/** The object was looked for and is not there: does its record still name it as placed? */
function checkMissing(
  run: FsckRun,
  storageName: string,
  id: BlockId,
  copy: Copy,
  object: string,
): Check {
  return async (reader): Promise<Problem[]> => {
    const record = await readRecord(reader, id);
    if (typeof record !== "object") return [];
    const isNamed = record.copies.some(
      (each) =>
        each.state === "placed" &&
        each.storage === copy.storage &&
        each.generation === copy.generation,
    );
    if (!isNamed) return [];
    return [
      {
        invariant: "objects",
        what: `it is placed at storage ${storageName}, but not there, or cut`,
        where: object,
        repair: (tx) => markMissing(tx, run.repo.random, id, copy),
      },
    ];
  };
}

/** Heads or stamps: what the storage shows is known, and what is confirmed is there. */
async function compareKnown(
  run: FsckRun,
  storage: StorageId,
  storageName: string,
  store: BlobStore,
  folder: string,
): Promise<void> {
  const isHead = folder === ObjectFolder.heads;
  const keyOf = (name: string): Buffer =>
    isHead ? key.headAt(storage, name) : key.stamp(storage, name);
  const { signal } = run.options;
  for await (const { name } of store.list(folder, signal === undefined ? {} : { signal })) {
    const type = parseObjectName(name)?.type;
    if (type !== (isHead ? "head" : "stamp")) continue;
    const value = await run.repo.kv.read((reader) => reader.get(keyOf(name)));
    if (value === undefined) await run.confirm(checkUnknown(keyOf(name), name, storageName));
  }
  const within = isHead ? range.headsAt(storage) : range.stamps(storage);
  await run.pages(
    "heads",
    within,
    STEP,
    async (_, entries) =>
      entries
        .filter(({ value }) => isConfirmed(value))
        .map(({ key: at }) => (isHead ? parse.headAt(at) : parse.stamp(at)).name),
    async (names) => {
      for (const name of names) {
        if (await isThere(store, name)) continue;
        await run.confirm(checkVanished(keyOf(name), name, storageName));
      }
    },
  );
}

function isConfirmed(value: Buffer): boolean {
  const record = tryDecode<Partial<HeadAtRecord> & Partial<StampRecord>>(value);
  return record?.confirmed === true || record?.state === "confirmed";
}

const REMEDY = "`ashlar rebuild --from STORAGE` compares and mends both";

/** Listed, and not known afterwards: names are recorded before they are put. */
function checkUnknown(at: Buffer, name: string, storageName: string): Check {
  return async (reader: KvReader) =>
    (await reader.get(at)) !== undefined
      ? []
      : [
          {
            invariant: "heads",
            what: `storage ${storageName} shows it, but these metadata did not put it there: ${REMEDY}`,
            where: name,
          },
        ];
}

/** Known as confirmed, not there, and still known so afterwards. */
function checkVanished(at: Buffer, name: string, storageName: string): Check {
  return async (reader: KvReader) => {
    const value = await reader.get(at);
    if (value === undefined || !isConfirmed(value)) return [];
    return [
      {
        invariant: "heads",
        what: `it was put to storage ${storageName} and confirmed, but is not there: ${REMEDY}`,
        where: name,
      },
    ];
  };
}
