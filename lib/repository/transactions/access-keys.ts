// The access keys of a repository (DESIGN §5): their sealed key objects are in the KV, which is the truth of them; storages and
// the metadata folder have copies. Removed ones leave a tombstone, so that whoever finds their object somewhere deletes it.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Kv, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import { key, parse, range } from "../keyspace.ts";
import { readCounter, writeCounter } from "../ledger.ts";
import { decodeRecord, encodeRecord, type AccessKeyRecord } from "../records.ts";

/** More is a mistake; so many are read, and sealed anew, in one transaction. */
export const ACCESS_KEYS_MAX = 100;
/** With tombstones: whoever adds and removes keys by a machine is told so. */
const RECORDS_MAX = 1000;

/** An access key in the KV. */
export interface AccessKeyEntry {
  readonly accessId: string;
  readonly record: AccessKeyRecord;
}

/** All access keys at one point in time. */
export interface AccessKeySet {
  /** Rises with every change; 0: the metadata have none yet, for a release made them that kept them on storages only. */
  readonly version: number;
  readonly entries: readonly AccessKeyEntry[];
}

/** One change of a set: what the record was when it was decided on, and what it is to be. */
export interface AccessKeyChange {
  readonly accessId: string;
  /** Undefined: there was none. */
  readonly before: AccessKeyRecord | undefined;
  readonly after: AccessKeyRecord;
}

/** Which set there is: changes when an access key or a repository key does. */
export function readAccessKeysVersion(kv: Kv): Promise<number> {
  return kv.read((reader) => readCounter(reader, key.accessKeysVersion, 0));
}

/** All access keys. */
export function readAccessKeys(kv: Kv): Promise<AccessKeySet> {
  return kv.read(readSet);
}

async function readSet(reader: KvReader): Promise<AccessKeySet> {
  const [version, entries] = await Promise.all([
    readCounter(reader, key.accessKeysVersion, 0),
    reader.range({ ...range.accessKeys(), limit: RECORDS_MAX + 1 }),
  ]);
  return {
    version,
    entries: entries.map((entry) => ({
      accessId: parse.accessKey(entry.key),
      record: decodeRecord<AccessKeyRecord>(entry.value),
    })),
  };
}

/** Takes the key objects that were found on storages into metadata that have none. Changes nothing where there are any. */
export function adoptAccessKeys(kv: Kv, found: readonly AccessKeyEntry[]): Promise<AccessKeySet> {
  return kv.transact(
    async (tx) => {
      const set = await readSet(tx);
      if (set.version > 0 || found.length === 0) return set;
      const entries = found.slice(0, ACCESS_KEYS_MAX);
      for (const { accessId, record } of entries) save(tx, accessId, record);
      writeCounter(tx, key.accessKeysVersion, 1);
      return { version: 1, entries };
    },
    // A restore must not fail for it where the disk is full.
    { label: "free:keys" },
  );
}

/**
 * Changes access keys, all of them or none. Each record must be as it was when the change was decided on; where all are as
 * they are to be, an earlier try of this has done it. TryAgain where somebody else was faster.
 * @param options.complete whether all access keys that there are must be among the changes
 * @param options.version what the set must be: whoever seals keys must not seal those of before a rotation
 */
export function changeAccessKeys(
  kv: Kv,
  changes: readonly AccessKeyChange[],
  options: { readonly complete?: boolean; readonly version?: number } = {},
): Promise<AccessKeySet> {
  return kv.transact(
    async (tx) => {
      const set = await readSet(tx);
      const present = new Map(set.entries.map(({ accessId, record }) => [accessId, record]));
      if (changes.every(({ accessId, after }) => isSame(present.get(accessId), after))) return set;
      const isAsDecided = changes.every(({ accessId, before }) =>
        isSame(present.get(accessId), before),
      );
      const ids = new Set(changes.map(({ accessId }) => accessId));
      const isMissingOne =
        options.complete === true &&
        set.entries.some(
          ({ accessId, record }) => record.object !== undefined && !ids.has(accessId),
        );
      const isAnother = options.version !== undefined && options.version !== set.version;
      if (!isAsDecided || isMissingOne || isAnother) {
        throw new AshlarError(ErrorCode.TryAgain, "the access keys were changed by somebody else", {
          remedy: "look at `ashlar key ls`, and run it again",
        });
      }
      for (const { accessId, after } of changes) present.set(accessId, after);
      requireSound(present);
      for (const { accessId, after } of changes) save(tx, accessId, after);
      writeCounter(tx, key.accessKeysVersion, set.version + 1);
      const entries = [...present].map(([accessId, record]) => ({ accessId, record }));
      return { version: set.version + 1, entries };
    },
    { label: "access keys" },
  );
}

/** Nobody could restore any more, or add a key that can. */
function requireSound(records: ReadonlyMap<string, AccessKeyRecord>): void {
  const live = [...records.values()].filter((record) => record.object !== undefined);
  if (!live.some(({ capability }) => capability === "full")) {
    throw new AshlarError(ErrorCode.Refused, "this is the last full access key of the repository", {
      remedy: "`ashlar key add` makes another one first",
    });
  }
  if (live.length > ACCESS_KEYS_MAX || records.size > RECORDS_MAX) {
    throw new AshlarError(
      ErrorCode.Refused,
      `a repository has at most ${ACCESS_KEYS_MAX} access keys at once, and ${RECORDS_MAX} in its life`,
      { remedy: "`ashlar key remove` takes away those that are not used any more" },
    );
  }
}

function save(tx: KvTransaction, accessId: string, record: AccessKeyRecord): void {
  tx.set(key.accessKey(accessId), encodeRecord(record));
}

function isSame(a: AccessKeyRecord | undefined, b: AccessKeyRecord | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    (a.object === undefined || b.object === undefined
      ? a.object === b.object
      : a.object.equals(b.object)) &&
    a.label === b.label &&
    a.capability === b.capability &&
    a.createdMs === b.createdMs &&
    a.removedMs === b.removedMs
  );
}
