// Moving a repository's metadata from one store to another: everything is copied, compared, and only then used. Until that is done
// neither store is; whoever dies half-way runs it again. Nobody else may work with the metadata meanwhile: the source says at once
// that it is being moved, and whoever looks stops.
import { createHash, type Hash } from "node:crypto";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Random } from "#lib/ports/random.ts";
import type { Kv, KvEntry } from "#lib/ports/kv.ts";
import { key, keyAfter } from "#lib/repository/keyspace.ts";
import { decodeRecord, encodeRecord, type RepositoryRecord } from "#lib/repository/records.ts";

/** A store with its URL, by which the other one remembers it. */
export interface NamedStore {
  readonly kv: Kv;
  readonly url: string;
}

/** How it is done. */
export interface CopyOptions {
  readonly random: Random;
  /** Waits until nobody works with the source any more; it is marked already. */
  readonly quiesce: () => Promise<void>;
  readonly signal?: AbortSignal;
  readonly onProgress?: (entries: number, phase: "copying" | "comparing") => void;
}

/** What was copied. */
export interface CopyResult {
  readonly entries: number;
  readonly bytes: number;
}

const ALL = { start: Buffer.alloc(0), end: Buffer.from([0xff]) };
/** A page has about so many bytes: far below what a transaction may have, and read long before a snapshot is too old. */
const PAGE_BYTES = 512 * 1024;
const PAGE_ENTRIES_MAX = 200;
/** Until it is known how large they are: the largest values are 90 kB. */
const PAGE_ENTRIES_FIRST = 50;

/** Moves the metadata; undefined where that was done before. */
export async function copyMetadata(
  from: NamedStore,
  to: NamedStore,
  options: CopyOptions,
): Promise<CopyResult | undefined> {
  const record = await markSource(from, to, options.random);
  const final = inUse(record);
  if (record.movedDone === true) {
    await finishTarget(from, to, record, final);
    return undefined;
  }
  await options.quiesce();
  await clearAll(to.kv, { ...final, copyOf: from.url });
  const copied = await copyAll(from.kv, to.kv, options);
  for (const store of [to, from]) {
    const digest = await digestOf(store.kv, options);
    if (digest === copied.digest) continue;
    throw new AshlarError(
      ErrorCode.TryAgain,
      `${store.url} has changed while it was copied: somebody else works with it`,
      { remedy: "stop every agent and command of this repository, and run it again" },
    );
  }
  // The source first: when the copy can be used, nobody can give it up any more, from wherever he sees the source.
  await writeRecord(from.kv, { ...record, movedDone: true });
  await writeRecord(to.kv, final);
  return { entries: copied.entries, bytes: copied.bytes };
}

/** Gives up a copy that did not come to its end: the source is used again. */
export async function cancelCopy(from: NamedStore, to: NamedStore): Promise<void> {
  const record = await requireRecord(from);
  if (record.movedTo === undefined) return;
  if (record.movedTo !== to.url) throw movedElsewhere(from, record.movedTo);
  if (record.movedDone === true) {
    throw new AshlarError(ErrorCode.Refused, `the copy to ${to.url} has come to its end`, {
      remedy:
        "run the same `ashlar kv copy` without --cancel, and use it; it can be copied back then",
    });
  }
  const target = await readRecord(to.kv);
  // What is there otherwise is older than the copy, and stays as it is.
  if (target?.copyId !== undefined && target.copyId === record.copyId) await clearAll(to.kv);
  const { movedTo: _, copyId: __, ...unmarked } = record;
  await writeRecord(from.kv, unmarked);
}

/** As the target has it in the end. */
function inUse(record: RepositoryRecord): RepositoryRecord {
  const { movedTo: _, movedDone: __, copyOf: ___, ...rest } = record;
  return { ...rest, moves: (record.moves ?? 0) + 1 };
}

async function markSource(
  from: NamedStore,
  to: NamedStore,
  random: Random,
): Promise<RepositoryRecord> {
  const record = await requireRecord(from);
  if (record.copyOf !== undefined) {
    throw new AshlarError(
      ErrorCode.Refused,
      `${from.url} is an unfinished copy of ${record.copyOf} itself`,
      { remedy: "finish that one first" },
    );
  }
  if (record.movedTo !== undefined && record.movedTo !== to.url) {
    throw movedElsewhere(from, record.movedTo);
  }
  if (record.movedDone === true) return record;
  await requireTarget(to, record);
  const copyId =
    record.copyId !== undefined && record.movedTo !== undefined
      ? record.copyId
      : random.bytes(8).toString("hex");
  const marked = { ...record, movedTo: to.url, copyId };
  await writeRecord(from.kv, marked);
  return marked;
}

function movedElsewhere({ url }: NamedStore, movedTo: string): AshlarError {
  return new AshlarError(ErrorCode.Refused, `the metadata in ${url} were moved to ${movedTo}`);
}

/** The source says that the copy is whole: what may be missing is that the copy says so as well. */
async function finishTarget(
  from: NamedStore,
  to: NamedStore,
  record: RepositoryRecord,
  final: RepositoryRecord,
): Promise<void> {
  const target = await readRecord(to.kv);
  if (target?.copyOf === from.url && target.copyId === record.copyId) {
    await writeRecord(to.kv, final);
    return;
  }
  const isThere = target?.copyId === record.copyId || (target?.moves ?? 0) > (record.moves ?? 0);
  if (isThere && target?.movedTo === undefined) return;
  throw new AshlarError(
    ErrorCode.Refused,
    target?.movedTo === undefined
      ? `the metadata were moved to ${to.url}, but they are not there`
      : `the metadata in ${to.url} are newer, and were or are being moved to ${target.movedTo}`,
    {
      remedy:
        "see that the place is the right one, on the right host, and mounted; or finish that copy",
    },
  );
}

/** Nothing is overwritten but what is older than the source, or an unfinished copy of it. */
async function requireTarget(to: NamedStore, record: RepositoryRecord): Promise<void> {
  const target = await readRecord(to.kv);
  if (target === undefined) {
    const [first] = await to.kv.read((reader) => reader.range({ ...ALL, limit: 1 }));
    if (first === undefined) return;
    throw new AshlarError(ErrorCode.Refused, `${to.url} is not empty, and holds no metadata`, {
      remedy: "choose another prefix or folder",
    });
  }
  if (target.repository !== record.repository) {
    throw new AshlarError(
      ErrorCode.Refused,
      `${to.url} has the metadata of another repository (${target.repository})`,
      { remedy: "choose another prefix or folder" },
    );
  }
  const isUnfinished = target.copyOf !== undefined;
  const isOlder = target.movedDone === true && (target.moves ?? 0) < (record.moves ?? 0);
  if (isUnfinished || isOlder) return;
  throw new AshlarError(ErrorCode.Refused, `${to.url} has metadata of this repository already`, {
    remedy: "choose another prefix or folder: only one of them can be right",
  });
}

async function requireRecord({ kv, url }: NamedStore): Promise<RepositoryRecord> {
  const record = await readRecord(kv);
  if (record !== undefined) return record;
  throw new AshlarError(ErrorCode.Unavailable, `there are no metadata in ${url}`);
}

async function readRecord(kv: Kv): Promise<RepositoryRecord | undefined> {
  const value = await kv.read((reader) => reader.get(key.config));
  return value === undefined ? undefined : decodeRecord<RepositoryRecord>(value);
}

function writeRecord(kv: Kv, record: RepositoryRecord): Promise<void> {
  return kv.transact(async (tx) => tx.set(key.config, encodeRecord(record)));
}

function clearAll(kv: Kv, record?: RepositoryRecord): Promise<void> {
  return kv.transact(
    async (tx) => {
      tx.clearRange(ALL.start, ALL.end);
      if (record !== undefined) tx.set(key.config, encodeRecord(record));
    },
    { label: "free: clearing a copy" },
  );
}

async function copyAll(
  from: Kv,
  to: Kv,
  { signal, onProgress }: CopyOptions,
): Promise<CopyResult & { readonly digest: string }> {
  const hash = createHash("sha256");
  let entries = 0;
  let bytes = 0;
  for await (const page of pagesOf(from)) {
    signal?.throwIfAborted();
    for (const part of partsOf(page)) {
      // Written again when the result is not known: the same values.
      await to.transact(
        async (tx) => {
          for (const entry of part) tx.set(entry.key, entry.value);
        },
        { durable: false, label: "copying metadata" },
      );
    }
    for (const entry of page) bytes += hashEntry(hash, entry);
    entries += page.length;
    onProgress?.(entries, "copying");
  }
  await to.flush();
  return { entries, bytes, digest: hash.digest("hex") };
}

/** A page may have much more than was expected: values grow from one kind of record to the next. */
function* partsOf(page: readonly KvEntry[]): Generator<readonly KvEntry[]> {
  let part: KvEntry[] = [];
  let bytes = 0;
  for (const entry of page) {
    part.push(entry);
    bytes += entry.key.length + entry.value.length;
    if (bytes < PAGE_BYTES) continue;
    yield part;
    [part, bytes] = [[], 0];
  }
  if (part.length > 0) yield part;
}

async function digestOf(kv: Kv, { signal, onProgress }: CopyOptions): Promise<string> {
  const hash = createHash("sha256");
  let entries = 0;
  for await (const page of pagesOf(kv)) {
    signal?.throwIfAborted();
    for (const entry of page) hashEntry(hash, entry);
    entries += page.length;
    onProgress?.(entries, "comparing");
  }
  return hash.digest("hex");
}

function hashEntry(hash: Hash, entry: KvEntry): number {
  const lengths = Buffer.allocUnsafe(8);
  lengths.writeUInt32LE(entry.key.length, 0);
  lengths.writeUInt32LE(entry.value.length, 4);
  hash.update(lengths).update(entry.key).update(entry.value);
  return entry.key.length + entry.value.length;
}

/** All entries but the record of the repository, each page at its own point in time: nothing changes meanwhile. */
async function* pagesOf(kv: Kv): AsyncGenerator<KvEntry[]> {
  let start: Buffer = ALL.start;
  let limit = PAGE_ENTRIES_FIRST;
  for (;;) {
    const page = await kv.read((reader) => reader.range({ start, end: ALL.end, limit }));
    const last = page.at(-1);
    if (last === undefined) return;
    yield page.filter((entry) => !entry.key.equals(key.config));
    if (page.length < limit) return;
    start = keyAfter(last.key);
    const bytes = page.reduce((sum, entry) => sum + entry.key.length + entry.value.length, 0);
    const fitting = Math.floor((PAGE_BYTES * page.length) / Math.max(1, bytes));
    // Growing slowly: what comes next may be larger.
    limit = Math.max(1, Math.min(PAGE_ENTRIES_MAX, fitting, limit * 2));
  }
}
