// Storages know their KV (DESIGN §4.10). A storage shows stamps and heads; the KV remembers those that it put there. Where
// the two do not fit, one of them was put back from an older copy, or the KV was cloned, and nothing may be claimed, written
// or deleted there.
//
// Other processes of this KV put, confirm, trash and delete while this looks, so the order decides what is certain:
//
// - *Unknown*: list first, then read the KV. A name is recorded, durably, before its object is put, and is never forgotten
//   (heads stay known as trash, stamps for ever). So a listed name that a later read does not find was put by another KV.
// - *Missing*: read what is confirmed first, then list. A confirmed object was durable before its record said so. It may
//   lack in the listing because the listing lags, so it is looked up by name; or because it went to trash and was deleted
//   meanwhile, so the KV is read once more, last of all: it says *trash* before anything is deleted. Only what is still
//   confirmed then is missing.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { key, keyAfter, parse, range } from "#lib/repository/keyspace.ts";
import { decodeRecord, type HeadAtRecord, type StampRecord } from "#lib/repository/records.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { ObjectFolder, parseObjectName } from "#proto/object-names.ts";
import { asAway } from "./away.ts";
import { storageState } from "./counting-storages.ts";

/** What looking at a storage showed. */
export type Inspection =
  | {
      readonly kind: "ok";
      /** Names of the listed stamps and heads; all of them are known to the KV. */
      readonly stamps: ReadonlySet<string>;
      readonly heads: ReadonlySet<string>;
    }
  /** It cannot be listed: that says nothing about it. */
  | { readonly kind: "away"; readonly error: AshlarError }
  | {
      readonly kind: "suspect";
      /** The KV was put back from an older copy or cloned; the storage was put back; or both. */
      readonly problems: readonly ("metadata" | "storage")[];
      readonly sentences: readonly string[];
      readonly remedy: string;
    };

/** Stamps and heads are compared alike. */
type Shown = "stamp" | "head";

/** What is wrong with one kind of objects; the lists stop at a few names. */
interface Comparison {
  readonly listed: ReadonlySet<string>;
  readonly unknown: readonly string[];
  readonly missing: readonly string[];
}

/** Storages that were looked at: fit, or away. */
export interface Guarded {
  readonly ok: readonly StorageId[];
  readonly away: readonly { readonly storage: StorageId; readonly error: AshlarError }[];
}

const STEP = 500;
/** So many names prove the point; a storage that lost everything is not asked for each. */
const PROOFS_MAX = 3;

/** Compares all that a storage shows with what the KV knows. */
export function inspectStorage(
  repo: Repository,
  storage: StorageId,
  signal?: AbortSignal,
): Promise<Inspection> {
  return inspect(repo, storage, ["stamp", "head"], signal);
}

async function inspect(
  repo: Repository,
  storage: StorageId,
  kinds: readonly Shown[],
  signal: AbortSignal | undefined,
): Promise<Inspection> {
  try {
    if ((await storageState(repo.kv, storage)) === "retired")
      return { kind: "away", error: retired(repo, storage) };
    const store = repo.storages.store(storage);
    const found = new Map<Shown, Comparison>();
    for (const kind of kinds) found.set(kind, await compare(repo.kv, store, storage, kind, signal));
    return judge(repo, storage, store, found);
  } catch (error) {
    signal?.throwIfAborted();
    return { kind: "away", error: asAway(error) };
  }
}

/** What was put there is forgotten, and says nothing about either. */
function retired({ storages }: Repository, storage: StorageId): AshlarError {
  const name = storages.nameOf(storage);
  return new AshlarError(ErrorCode.Unavailable, `storage ${name} was removed from the repository`, {
    remedy: "take it out of the configuration, and start this process anew",
  });
}

async function compare(
  kv: Kv,
  store: BlobStore,
  storage: StorageId,
  kind: Shown,
  signal: AbortSignal | undefined,
): Promise<Comparison> {
  const confirmed = await readConfirmed(kv, storage, kind);
  const listed = new Set<string>();
  const strangers: string[] = [];
  const folder = kind === "stamp" ? ObjectFolder.stamps : ObjectFolder.heads;
  for await (const { name } of store.list(folder, signal === undefined ? {} : { signal })) {
    // What Ashlar does not name so is nobody's stamp or head.
    if (parseObjectName(name)?.type !== kind) continue;
    listed.add(name);
    if (!confirmed.delete(name)) strangers.push(name);
  }
  const unknown = await findUnknown(kv, storage, kind, strangers);
  const missing: string[] = [];
  for (const name of confirmed) {
    signal?.throwIfAborted();
    if (await isMissing(kv, store, storage, kind, name)) missing.push(name);
    if (missing.length === PROOFS_MAX) break;
  }
  return { listed, unknown, missing };
}

async function readConfirmed(kv: Kv, storage: StorageId, kind: Shown): Promise<Set<string>> {
  const names = new Set<string>();
  let { start } = rangeOf(storage, kind);
  const { end } = rangeOf(storage, kind);
  for (;;) {
    const from = start;
    const entries = await kv.read((reader) => reader.range({ start: from, end, limit: STEP }));
    for (const entry of entries) {
      if (isConfirmed(kind, entry.value)) names.add(nameOf(kind, entry.key));
    }
    const last = entries.at(-1);
    if (last === undefined || entries.length < STEP) return names;
    start = keyAfter(last.key);
  }
}

const rangeOf = (storage: StorageId, kind: Shown) =>
  kind === "stamp" ? range.stamps(storage) : range.headsAt(storage);

const keyOf = (storage: StorageId, kind: Shown, name: string): Buffer =>
  kind === "stamp" ? key.stamp(storage, name) : key.headAt(storage, name);

const nameOf = (kind: Shown, at: Buffer): string =>
  kind === "stamp" ? parse.stamp(at).name : parse.headAt(at).name;

function isConfirmed(kind: Shown, value: Buffer): boolean {
  return kind === "stamp"
    ? decodeRecord<StampRecord>(value).confirmed
    : decodeRecord<HeadAtRecord>(value).state === "confirmed";
}

async function findUnknown(
  kv: Kv,
  storage: StorageId,
  kind: Shown,
  names: readonly string[],
): Promise<string[]> {
  const unknown: string[] = [];
  for (let from = 0; from < names.length && unknown.length < PROOFS_MAX; from += STEP) {
    const step = names.slice(from, from + STEP);
    const keys = step.map((name) => keyOf(storage, kind, name));
    const values = await kv.read((reader) => reader.getMany(keys));
    unknown.push(...step.filter((_, index) => values[index] === undefined));
  }
  return unknown.slice(0, PROOFS_MAX);
}

async function isMissing(
  kv: Kv,
  store: BlobStore,
  storage: StorageId,
  kind: Shown,
  name: string,
): Promise<boolean> {
  try {
    await store.stat(name);
    return false;
  } catch (error) {
    if (!(error instanceof AshlarError) || error.code !== ErrorCode.NotFound) throw error;
  }
  const value = await kv.read((reader) => reader.get(keyOf(storage, kind, name)));
  return value !== undefined && isConfirmed(kind, value);
}

function judge(
  repo: Repository,
  storage: StorageId,
  store: BlobStore,
  found: ReadonlyMap<Shown, Comparison>,
): Inspection {
  const unknown: string[] = [];
  const missing: string[] = [];
  for (const comparison of found.values()) {
    unknown.push(...comparison.unknown);
    missing.push(...comparison.missing);
  }
  const problems: ("metadata" | "storage")[] = [];
  const sentences: string[] = [];
  const name = repo.storages.nameOf(storage);
  if (unknown.length > 0) {
    problems.push("metadata");
    sentences.push(
      `storage ${name} shows what this metadata did not put there (${unknown.slice(0, PROOFS_MAX).join(", ")}): ` +
        "the metadata were put back from an older copy, or another copy of them is in use",
    );
  }
  if (missing.length > 0) {
    problems.push("storage");
    sentences.push(
      `storage ${name} lacks what was put there and confirmed (${missing.slice(0, PROOFS_MAX).join(", ")}): ` +
        "it was put back from an older copy, or objects were deleted by hand",
    );
  }
  const none: ReadonlySet<string> = new Set();
  if (problems.length > 0)
    return { kind: "suspect", problems, sentences, remedy: remedyFor(store) };
  return {
    kind: "ok",
    stamps: found.get("stamp")?.listed ?? none,
    heads: found.get("head")?.listed ?? none,
  };
}

function remedyFor(store: BlobStore): string {
  return (
    "stop every other process and copy of this repository, then run " +
    `\`ashlar rebuild --from ${store.location}\``
  );
}

/** The error of a suspect storage: Refused, with the remedy. */
export function suspectError(
  storages: readonly StorageId[],
  suspects: readonly Extract<Inspection, { kind: "suspect" }>[],
): AshlarError {
  const sentences = suspects.flatMap((suspect) => suspect.sentences);
  const remedies = new Set(suspects.map((suspect) => suspect.remedy));
  return new AshlarError(ErrorCode.Refused, `nothing was changed: ${sentences.join("; ")}`, {
    remedy: [...remedies].join("; "),
    details: { storages, problems: [...new Set(suspects.flatMap((suspect) => suspect.problems))] },
  });
}

async function guard(
  repo: Repository,
  ids: readonly StorageId[],
  kinds: readonly Shown[],
  signal: AbortSignal | undefined,
): Promise<Guarded> {
  const inspections = await Promise.all(ids.map((id) => inspect(repo, id, kinds, signal)));
  const ok: StorageId[] = [];
  const away: { storage: StorageId; error: AshlarError }[] = [];
  const suspect: StorageId[] = [];
  for (const [index, storage] of ids.entries()) {
    const inspection = inspections[index] as Inspection;
    if (inspection.kind === "ok") ok.push(storage);
    else if (inspection.kind === "away") away.push({ storage, error: inspection.error });
    else suspect.push(storage);
  }
  if (suspect.length > 0) {
    throw suspectError(
      suspect,
      inspections.filter((inspection) => inspection.kind === "suspect"),
    );
  }
  return { ok, away };
}

// "Who opens a storage to write lists stamps and heads before its first put": once per process, which has one KV open.
const guardedByKv = new WeakMap<Kv, Set<StorageId>>();

function guardedSet(kv: Kv): Set<StorageId> {
  const present = guardedByKv.get(kv);
  if (present !== undefined) return present;
  const fresh = new Set<StorageId>();
  guardedByKv.set(kv, fresh);
  return fresh;
}

/** Looks at storages before they are written to; Refused, with the remedy, for any that is suspect. Away is not suspect. */
export async function guardStorages(
  repo: Repository,
  ids: readonly StorageId[],
  signal?: AbortSignal,
): Promise<Guarded> {
  const guarded = await guard(repo, ids, ["stamp", "head"], signal);
  for (const id of guarded.ok) guardedSet(repo.kv).add(id);
  return guarded;
}

/** {@link guardStorages} for those that this process has not looked at yet. */
export async function ensureGuarded(
  repo: Repository,
  ids: readonly StorageId[],
  signal?: AbortSignal,
): Promise<Guarded> {
  const seen = guardedSet(repo.kv);
  const { ok, away } = await guardStorages(
    repo,
    ids.filter((id) => !seen.has(id)),
    signal,
  );
  return { ok: ids.filter((id) => seen.has(id) || ok.includes(id)), away };
}

/**
 * Lists the stamps between putting heads and acknowledging a backup. A run of another KV that deletes has put its stamp
 * before it listed the heads: either it sees our head, or we see its stamp. Refused for any suspect storage; one that is
 * away has not been looked at, and does not count for the acknowledgement.
 */
export function checkStamps(
  repo: Repository,
  ids: readonly StorageId[],
  signal?: AbortSignal,
): Promise<Guarded> {
  return guard(repo, ids, ["stamp"], signal);
}
