// What can be asked of a coordinator, and what it answers: plain data, so that the same jobs travel as JSON.
import type { VersionUid } from "#lib/core/ids.ts";
import type { BackupStatistics } from "#lib/repository/records.ts";

/** How a job is watched and stopped. */
export interface JobOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
}

/** Where a job is. Bytes are plaintext bytes of the device. */
export interface Progress {
  /** What is being done, as a word for people: "reading", "restoring", "scrubbing", "copying". */
  readonly phase: string;
  readonly bytesDone: number;
  /** Undefined while it is not known (a stream). */
  readonly bytesTotal: number | undefined;
  readonly bytesNew: number;
  readonly bytesKnown: number;
  readonly bytesSparse: number;
}

/** A backup. */
export interface BackupJob {
  /** file:PATH, a path, a block device, or - for a stream. */
  readonly source: string;
  /** The host whose reader reads it; default: this one. */
  readonly host?: string;
  readonly volume: string;
  readonly uid?: VersionUid;
  /** Name of the snapshot that the source is; says that the source is frozen. */
  readonly snapshot?: string;
  /** Everything that the hints do not name is taken from this version. */
  readonly base?: VersionUid;
  /** Path of a hints file (rbd diff JSON). */
  readonly hints?: string;
  /** Fail on a wrong hint instead of reading everything. */
  readonly strictHints?: boolean;
  /** Names of the storages; default: those of the configuration. */
  readonly storages?: readonly string[];
  readonly quorum?: number;
  /** Names of storages of the version that its restores read first, in this order. */
  readonly prefer?: readonly string[];
  /** How what it stores is compressed: a name, and zstd's level; default: those of the configuration. */
  readonly compression?: string;
  readonly compressionLevel?: number;
  /** Fail unless every storage of the policy has it whole. */
  readonly requireComplete?: boolean;
  readonly labels?: Readonly<Record<string, string>>;
  /** Bytes; default: the repository's. */
  readonly blockBytes?: number;
}

/** A storage with what it is owed. */
export interface StorageOutcome {
  readonly storage: string;
  readonly complete: boolean;
  /** Why it is not complete, for people. */
  readonly reason: string | undefined;
}

/** Outcome of a backup. */
export interface BackupResult {
  readonly uid: VersionUid;
  readonly sizeBytes: number;
  readonly statistics: BackupStatistics;
  readonly warnings: readonly string[];
  readonly storages: readonly StorageOutcome[];
  /** It went on with an unfinished backup. */
  readonly resumed: boolean;
  /** Where its time went, in ms by stage; they add up to what it took. */
  readonly stages: Readonly<Record<string, number>>;
}

/** A restore. */
export interface RestoreJob {
  readonly uid: VersionUid;
  /** A path, a block device, or - for stdout. */
  readonly target: string;
  /** The host whose reader writes it; default: this one. */
  readonly host?: string;
  readonly force?: boolean;
  /** Discard or punch where the version has zeros, instead of writing them. */
  readonly sparse?: boolean;
  /** Read the target and write only what differs. */
  readonly differential?: boolean;
  /** Only these bytes of the version, written to the start of the target. */
  readonly range?: { readonly offset: number; readonly length: number };
  /** Read from this storage only. */
  readonly storage?: string;
  /** Leave zeros where blocks are damaged, and go on. */
  readonly keepGoing?: boolean;
}

/** A block that could not be restored; of kind "node", everything below a node of the version's tree. */
export interface DamagedBlock {
  readonly kind: "block" | "node";
  readonly id: string;
  /** In bytes of the version, where it is known. */
  readonly offset: number | undefined;
  readonly length: number;
  readonly reason: string;
}

/** Outcome of a restore. */
export interface RestoreResult {
  readonly uid: VersionUid;
  readonly bytesWritten: number;
  readonly bytesZero: number;
  /** Equal already (differential). */
  readonly bytesEqual: number;
  /** The first of them, in their order. */
  readonly damaged: readonly DamagedBlock[];
  readonly damagedCount: number;
  readonly warnings: readonly string[];
  readonly durationMs: number;
  /** Where its time went, in ms by stage; they add up to what it took. */
  readonly stages: Readonly<Record<string, number>>;
}
