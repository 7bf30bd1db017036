// Which versions there are, and what each is worth: valid, restorable, complete where. One look at a version's root record
// answers it (DESIGN §3, closure), so a listing costs two reads a version, whatever their size.
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import {
  parseVersionReference,
  resolveVersionReference,
  type ReferableVersion,
} from "#lib/core/uid.ts";
import type { Kv, KvReader } from "#lib/ports/kv.ts";
import { decodeBlockRecord, placedAt } from "#lib/repository/block-record.ts";
import { key, keyAfter, parse, range } from "#lib/repository/keyspace.ts";
import { decodeRecord, type StorageRecord, type VersionRecord } from "#lib/repository/records.ts";
import { listVersions, readVersion, requireVersion } from "#lib/repository/transactions/version.ts";

/** A version with what its root's record says of it. */
export interface ListedVersion {
  readonly version: VersionRecord;
  /** The storages that can restore it alone (but for copies found bad since): they count, have its root placed and its head. */
  readonly completeAt: readonly StorageId[];
  /** Storages of its policy that are still to get it. */
  readonly missingAt: readonly StorageId[];
  /** Valid, and as many storages as its quorum asks for have its root placed; their heads may still be owed. */
  readonly restorable: boolean;
}

/** Root records are read in steps of this many, so that no read transaction lasts long. */
const STEP = 256;

/** All versions that `include` accepts, sorted by volume and date; removed ones are never among them. */
export async function listPlacedVersions(
  kv: Kv,
  include: (version: VersionRecord) => boolean = () => true,
): Promise<ListedVersion[]> {
  const versions: VersionRecord[] = [];
  for await (const version of listVersions(kv)) if (include(version)) versions.push(version);
  versions.sort(byVolumeAndDate);
  const out: ListedVersion[] = [];
  for (let from = 0; from < versions.length; from += STEP) {
    const step = versions.slice(from, from + STEP);
    out.push(...(await kv.read((reader) => readPlacement(reader, step))));
  }
  return out;
}

/** One version; NotFound when there is none. */
export function showVersion(kv: Kv, uid: VersionUid): Promise<ListedVersion> {
  return kv.read(async (reader) => {
    const [listed] = await readPlacement(reader, [await requireVersion(reader, uid)]);
    return listed as ListedVersion;
  });
}

/** Order of listings: by volume, then by date, the oldest first. */
export function byVolumeAndDate(a: VersionRecord, b: VersionRecord): number {
  if (a.volume !== b.volume) return a.volume < b.volume ? -1 : 1;
  return a.createdMs - b.createdMs || (a.uid < b.uid ? -1 : 1);
}

async function readPlacement(
  reader: KvReader,
  versions: readonly VersionRecord[],
): Promise<ListedVersion[]> {
  const counting = await readCountingStorages(reader);
  const roots = await reader.getMany(
    versions.map((version) => (version.root === undefined ? key.config : key.block(version.root))),
  );
  const placed = versions.map((version, index) => {
    const value = version.root === undefined ? undefined : roots[index];
    const record = value === undefined ? undefined : decodeBlockRecord(value);
    const at =
      record === undefined
        ? []
        : inPolicyOrder(version, counting).filter(
            (storage) => placedAt(record, storage) !== undefined,
          );
    return { version, at };
  });
  const owedHeads = await reader.getMany(
    placed.flatMap(({ version: { uid }, at }) => at.map((storage) => key.owedHead(storage, uid))),
  );
  let next = 0;
  return placed.map(({ version, at }) => {
    const first = next;
    next += at.length;
    const completeAt = at.filter((_, index) => owedHeads[first + index] === undefined);
    return {
      version,
      completeAt,
      missingAt: version.policy.storages.filter((storage) => !completeAt.includes(storage)),
      restorable: version.state === "valid" && at.length >= version.policy.quorum,
    };
  });
}

/** The storages that count, by name. */
async function readCountingStorages(reader: KvReader): Promise<StorageId[]> {
  const entries = await reader.range({ ...range.storages(), limit: 1000 });
  return entries
    .map((entry) => ({
      storage: parse.storage(entry.key),
      record: decodeRecord<StorageRecord>(entry.value),
    }))
    .filter(({ record }) => record.state === "in-use" || record.state === "readonly")
    .toSorted((a, b) => (a.record.name < b.record.name ? -1 : 1))
    .map(({ storage }) => storage);
}

/**
 * As the policy lists them. Others may have all of its content by other versions, but not its head: nobody who has but such a
 * storage finds the version there.
 */
function inPolicyOrder(version: VersionRecord, counting: readonly StorageId[]): StorageId[] {
  return version.policy.storages.filter((storage) => counting.includes(storage));
}

/**
 * The version that a user means: a uid, a unique beginning of one, or `VOLUME@latest`, the youngest valid version of a
 * volume. Usage where several begin like that, NotFound where nothing fits.
 */
export async function resolveVersion(kv: Kv, text: string): Promise<VersionUid> {
  const reference = parseVersionReference(text);
  const candidates =
    reference.kind === "prefix"
      ? await withPrefix(kv, reference.prefix)
      : await ofVolume(kv, reference.volume);
  return resolveVersionReference(reference, candidates.map(referable));
}

function referable(version: VersionRecord): ReferableVersion {
  const { uid, volume, createdMs, state } = version;
  return { uid, volume, date: createdMs, status: state === "removed" ? "incomplete" : state };
}

async function withPrefix(kv: Kv, prefix: string): Promise<VersionRecord[]> {
  const out: VersionRecord[] = [];
  const { start, end } = range.versions(prefix);
  for (let from = start; ;) {
    const at = from;
    const entries = await kv.read((reader) => reader.range({ start: at, end, limit: STEP }));
    for (const entry of entries) {
      const version = decodeRecord<VersionRecord>(entry.value);
      if (version.state !== "removed") out.push(version);
    }
    const last = entries.at(-1);
    if (last === undefined || entries.length < STEP) return out;
    from = keyAfter(last.key);
  }
}

/** The versions of a volume from the youngest down to the first valid one. */
async function ofVolume(kv: Kv, volume: string): Promise<VersionRecord[]> {
  const out: VersionRecord[] = [];
  const { start, end } = range.volume(volume);
  for (let before = end; ;) {
    const upTo = before;
    const entries = await kv.read((reader) =>
      reader.range({ start, end: upTo, limit: STEP, reverse: true }),
    );
    for (const entry of entries) {
      const { uid } = parse.volume(entry.key);
      const version = await kv.read((reader) => readVersion(reader, uid));
      if (version !== undefined && version.state !== "removed") out.push(version);
      if (version?.state === "valid") return out;
    }
    const last = entries.at(-1);
    if (last === undefined || entries.length < STEP) return out;
    before = last.key;
  }
}
