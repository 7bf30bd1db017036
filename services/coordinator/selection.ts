// Which versions a filter means.
import type { FilterableVersion } from "#lib/core/version-filter/evaluate.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { VersionRecord } from "#lib/repository/records.ts";

/** Names of storages by identity. */
export type StorageNames = (storage: StorageId) => string;

/** Tells whether a version is meant. */
export type VersionPredicate = (version: VersionRecord) => boolean;

/** A filter's predicate; without a filter, all versions. */
export async function compileSelection(
  filter: string | undefined,
  nameOf: StorageNames,
  nowMs: number,
): Promise<VersionPredicate> {
  if (filter === undefined) return () => true;
  // Loaded on use: the date parser behind it is large.
  const { compileFilter } = await import("#lib/core/version-filter/evaluate.ts");
  const matches = compileFilter(filter, nowMs);
  return (version) => matches(filterable(version, nameOf));
}

/** A version as filters see it. */
export function filterable(version: VersionRecord, nameOf: StorageNames): FilterableVersion {
  const { statistics } = version;
  return {
    uid: version.uid,
    date: version.createdMs,
    volume: version.volume,
    snapshot: version.snapshot,
    sizeBytes: version.sizeBytes,
    blockBytes: version.blockBytes,
    status: version.state === "removed" ? "invalid" : version.state,
    protected: version.protected,
    storages: version.policy.storages.map(nameOf),
    labels: version.labels,
    bytesRead: statistics?.bytesRead,
    bytesWritten: statistics?.bytesNew,
    bytesDeduplicated: statistics?.bytesKnown,
    bytesSparse: statistics?.bytesSparse,
    durationMs: statistics?.durationMs,
  };
}
