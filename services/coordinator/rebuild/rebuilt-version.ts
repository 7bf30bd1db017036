// Versions as a rebuild finds them on storages.
import type { BlockId, VersionUid } from "#lib/core/ids.ts";
import {
  NO_STATISTICS,
  type BackupStatistics,
  type Policy,
  type VersionRecord,
} from "#lib/repository/records.ts";
import type { Head } from "#proto/head.ts";
import { isSameHead, type HeadGroup } from "./heads.ts";

/**
 * A version's record with the note that a rebuild found it, and did not see it turn valid: it may be placed at fewer storages
 * than its quorum, until what is owed to the others is there. Records are maps that are extended by adding fields.
 */
export interface RebuiltVersion extends VersionRecord {
  readonly rebuilt?: boolean;
}

/** Stands for the uid of a version of which no head can be read: its heads are known, and nothing is deleted over them. */
export function unreadableUid(hash: string): VersionUid {
  return `${UNREADABLE}${hash.slice(0, 12)}` as VersionUid;
}

const UNREADABLE = "unreadable:";

/** Whether a head's uid only stands for one that cannot be read. */
export function isUnreadableUid(uid: VersionUid): boolean {
  return uid.startsWith(UNREADABLE);
}

/**
 * A version as it is after its heads were looked at: the highest revision wins, the metadata's own where they are equal. Two
 * of one revision that differ come from clones of the metadata: what keeps more wins, and a new revision is owed everywhere.
 * Undefined when neither metadata nor heads tell what it is.
 */
export function mergeVersion(
  known: RebuiltVersion | undefined,
  group: HeadGroup,
): RebuiltVersion | undefined {
  const merged = mergeContent(known, group.best);
  if (merged === undefined || merged.state === "incomplete") return merged;
  const revision = merged.revision > group.surpass ? merged.revision : group.surpass + 1;
  return { ...merged, revision };
}

function mergeContent(
  known: RebuiltVersion | undefined,
  best: Head | undefined,
): RebuiltVersion | undefined {
  if (best === undefined) return known;
  if (known === undefined || known.state === "incomplete") return versionFrom(best, known);
  if (best.revision > known.revision) return versionFrom(best, known);
  if (best.revision < known.revision || isSameHead(best, contentOf(known, best))) return known;
  const kept = known.state === "removed" && !best.removed ? versionFrom(best, known) : known;
  return { ...kept, revision: known.revision + 1 };
}

/** The known version as a head, for comparison. */
function contentOf(known: VersionRecord, like: Head): Head {
  const removed = known.state === "removed";
  return {
    ...like,
    removed,
    labels: known.labels,
    protected: known.protected,
    root: removed ? undefined : known.root,
  };
}

/** A version as its head says; a removed one keeps what the metadata know of it. */
function versionFrom(head: Head, known: RebuiltVersion | undefined): RebuiltVersion {
  const wasThere = known?.state === "valid" || known?.state === "invalid";
  return {
    uid: head.uid as VersionUid,
    volume: head.volume,
    snapshot: head.snapshot,
    createdMs: head.createdMs,
    sizeBytes: head.sizeBytes,
    blockBytes: head.blockBytes,
    levels: head.levels,
    root: head.removed ? known?.root : (head.root as BlockId | undefined),
    // Whether it is valid is for the transaction to say that reads the root.
    state: head.removed ? "removed" : "invalid",
    protected: head.protected,
    labels: head.labels,
    policy: head.policy as Policy,
    source: head.source,
    warnings: head.warnings,
    statistics: statisticsFrom(head.statistics),
    sampleRound: known?.sampleRound ?? 0,
    revision: head.revision,
    session: undefined,
    rebuilt: wasThere ? known.rebuilt === true : true,
  };
}

function statisticsFrom(counters: Readonly<Record<string, number>>): BackupStatistics | undefined {
  return Object.keys(counters).length === 0 ? undefined : { ...NO_STATISTICS, ...counters };
}
