// How versions look: as JSON documents, and in tables.
import { formatDuration, formatSize } from "#lib/core/size.ts";
import type { BackupStatistics } from "#lib/repository/records.ts";
import type { ListedVersion } from "#services/coordinator/listing.ts";
import type { StorageNames } from "#services/coordinator/selection.ts";

/** A version as a JSON document. Fields are added, never renamed. */
export function versionDocument(listed: ListedVersion, nameOf: StorageNames): object {
  const { version, completeAt, missingAt, restorable } = listed;
  const { statistics } = version;
  return {
    uid: version.uid,
    volume: version.volume,
    snapshot: version.snapshot,
    date: new Date(version.createdMs).toISOString(),
    sizeBytes: version.sizeBytes,
    blockBytes: version.blockBytes,
    status: version.state,
    valid: version.state === "valid",
    restorable,
    protected: version.protected,
    labels: version.labels,
    storages: version.policy.storages.map((storage) => ({
      name: nameOf(storage),
      complete: !missingAt.includes(storage),
    })),
    completeAt: completeAt.map(nameOf),
    quorum: version.policy.quorum,
    prefer: (version.policy.prefer ?? []).map(nameOf),
    compression: version.policy.compression ?? null,
    source: version.source,
    warnings: version.warnings,
    root: version.root ?? null,
    ...(statistics === undefined ? {} : statisticsDocument(statistics)),
  };
}

/** What a backup did, as fields of a document. */
export function statisticsDocument(statistics: BackupStatistics): object {
  return {
    bytesRead: statistics.bytesRead,
    blocksRead: statistics.blocksRead,
    bytesNew: statistics.bytesNew,
    blocksNew: statistics.blocksNew,
    bytesKnown: statistics.bytesKnown,
    blocksKnown: statistics.blocksKnown,
    bytesSparse: statistics.bytesSparse,
    blocksSparse: statistics.blocksSparse,
    bytesUnchanged: statistics.bytesUnchanged,
    blocksUnchanged: statistics.blocksUnchanged,
    bytesStored: statistics.bytesStored,
    durationMs: statistics.durationMs,
  };
}

/** What a backup did, for people: name and value. */
export function statisticsFields(statistics: BackupStatistics): [string, string][] {
  const amount = (bytes: number, blocks: number): string =>
    `${formatSize(bytes)} in ${blocks} ${blocks === 1 ? "block" : "blocks"}`;
  return [
    ["read", amount(statistics.bytesRead, statistics.blocksRead)],
    ["new", amount(statistics.bytesNew, statistics.blocksNew)],
    ["known", amount(statistics.bytesKnown, statistics.blocksKnown)],
    ["sparse", amount(statistics.bytesSparse, statistics.blocksSparse)],
    ["unchanged", amount(statistics.bytesUnchanged, statistics.blocksUnchanged)],
    ["stored", formatSize(statistics.bytesStored)],
    ["duration", formatDuration(statistics.durationMs)],
  ];
}

/** A date for people: local time, to the second. */
export function formatDate(ms: number): string {
  const date = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, "0");
  return (
    `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
  );
}
