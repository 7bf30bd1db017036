// The other records of the metadata, as msgpack maps: read by people's tools, extended by adding fields.
import { Packr } from "msgpackr";
import type { BlockId, JobId, SessionId, StorageId, Token, VersionUid } from "#lib/core/ids.ts";
import type { LockMode } from "#lib/ports/blob-store.ts";
import type { CompressionChoice } from "#lib/ports/compute.ts";
import { NO_COUNTS, type BackupCounts } from "#proto/message-parts.ts";

const packr = new Packr({ useRecords: false, variableMapSize: true, int64AsType: "number" });

/** Encodes any record of this file. */
export function encodeRecord(record: object): Buffer {
  return packr.pack(record);
}

/** Decodes a record of this file; the caller names its type. */
export function decodeRecord<T>(bytes: Buffer): T {
  return packr.unpack(bytes) as T;
}

/** The schema of the metadata that this code writes; a newer one is refused. */
export const METADATA_SCHEMA = 1;

/** `config`: what holds for the whole repository. */
export interface RepositoryRecord {
  readonly schema: number;
  /** Identity of the repository, 16 hex digits: on every storage too. */
  readonly repository: string;
  readonly createdMs: number;
  readonly blockBytes: number;
  readonly hash: "blake3" | "hmac-sha256";
  /** The metadata were moved there, or are being moved: nobody uses these any more. */
  readonly movedTo?: string;
  /** They are whole there: from here on no other place can be theirs, and this one never again without being copied over. */
  readonly movedDone?: boolean;
  /** They are being copied from there, and are not to be used yet. */
  readonly copyOf?: string;
  /** Of the copy that `movedTo` or `copyOf` is about: the same in both places. */
  readonly copyId?: string;
  /** How often they were moved: of two places the one with more is the newer. */
  readonly moves?: number;
}

/** `accessKey/<access id>`: a sealed key object, with what is asked of it without opening it; or the tombstone of one. */
export interface AccessKeyRecord {
  /** As it is on storages. Undefined once the access key was removed. */
  readonly object: Buffer | undefined;
  /** As the user named it. */
  readonly label: string;
  readonly capability: "full" | "write-only";
  /** When it was made, in ms since 1970; 0 where nobody wrote it down. */
  readonly createdMs: number;
  readonly removedMs?: number;
}

/** The storages that a version goes to, and how many must have it whole before it counts. */
export interface Policy {
  readonly storages: readonly StorageId[];
  readonly quorum: number;
  /** Those of them that restores of the version read first, in this order; absent: as the storages are configured. */
  readonly prefer?: readonly StorageId[];
  /** How its blocks and nodes are compressed; absent: as the configuration of whoever seals them says. */
  readonly compression?: CompressionChoice;
}

/** *in use*; *readonly*: counts, gets nothing new; *disabled*: counts for nothing; *retired*: for ever. */
export type StorageState = "in-use" | "readonly" | "disabled" | "retired";

/** `storage/<identity>`. */
export interface StorageRecord {
  readonly name: string;
  readonly site: string;
  readonly state: StorageState;
  readonly addedMs: number;
  /** Its objects are locked for so long, in ms, and their locks extended; left out where they are not. */
  readonly lockMs?: number;
  readonly lockMode?: LockMode;
}

/** `lockWalk/<storage>`: what lay at a storage before its objects were locked is being taken in; up to where. */
export interface LockWalkRecord {
  readonly folder: "blocks" | "heads";
  /** The key behind which it goes on, in hex; left out at the beginning. */
  readonly from?: string;
}

/** `lockKeys/<storage>`: the key objects, and with them the marker, whose locks were last extended, and when. */
export interface LockKeysRecord {
  readonly atMs: number;
  readonly names: readonly string[];
}

/** `stamp/<storage>/<name>`: a stamp that this KV put there. */
export interface StampRecord {
  readonly run: number;
  /** False while its put may still be under way. */
  readonly confirmed: boolean;
}

/** `headAt/<storage>/<name>`: a head that this KV put there. */
export interface HeadAtRecord {
  readonly uid: VersionUid;
  readonly revision: number;
  readonly removed: boolean;
  readonly state: "putting" | "confirmed" | "trash";
  /** The repository key that it is sealed under (16 hex digits), once it is confirmed; absent where nobody has written that down. */
  readonly keyId?: string;
}

/** What a backup did. */
export interface BackupStatistics extends BackupCounts {
  readonly durationMs: number;
}

/** Statistics of a backup that did nothing. */
export const NO_STATISTICS: BackupStatistics = { ...NO_COUNTS, durationMs: 0 };

/** *incomplete* until its backup ended; *invalid* while its root is marked; *removed*: a tombstone. */
export type VersionState = "incomplete" | "valid" | "invalid" | "removed";

/** `version/<uid>`. */
export interface VersionRecord {
  readonly uid: VersionUid;
  readonly volume: string;
  readonly snapshot: string;
  readonly createdMs: number;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** Height of the tree; the root is at level `levels - 1`. */
  readonly levels: number;
  readonly root: BlockId | undefined;
  readonly state: VersionState;
  readonly protected: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly policy: Policy;
  readonly source: string;
  readonly warnings: readonly string[];
  readonly statistics: BackupStatistics | undefined;
  /** Which round of the rotating sample of unchanged blocks it checked (0 without hints). */
  readonly sampleRound: number;
  /** Of its head; raised here before a new one is put. */
  readonly revision: number;
  /** The session that makes it, while it is incomplete. */
  readonly session: SessionId | undefined;
  /** The job that makes it, or has made it: another try of that job makes no second one. */
  readonly job?: JobId;
}

/** *live*, *dead* (lost its lease or failed; resumable), *ended* (its token passes nowhere; being settled). */
export type SessionState = "live" | "dead" | "ended";

/** What a session does. Only backups claim and have a horizon. */
export type SessionKind = "backup" | "restore" | "replicate";

/** One try of a job: the token under which a coordinator has it. */
export interface JobRun {
  readonly job: JobId;
  readonly token: Token;
}

/** `session/<sid>`. */
export interface SessionRecord {
  readonly kind: SessionKind;
  readonly state: SessionState;
  readonly token: Token;
  readonly startedMs: number;
  /** When it was recorded dead or ended. */
  readonly endedMs: number | undefined;
  /** The version that it makes or reads. */
  readonly uid: VersionUid;
  readonly volume: string;
  readonly source: string;
  readonly policy: Policy | undefined;
  /** Who runs it: host name and, for the OS lock that tells of its death, the lock's name. */
  readonly host: string;
  readonly lock: string;
  /** The job that it is for, and the try of that job: whoever has the job next knows that this try is over. */
  readonly run?: JobRun;
  /**
   * What its nodes were read from: source, hints and base as the reader tells them apart. `MIXED_READING` when they were
   * read from several. Undefined before anything was read.
   */
  readonly reading?: string;
}

/** `heartbeat/<sid>`. */
export interface HeartbeatRecord {
  readonly atMs: number;
}

/** `claim/<sid>/<id>`: what is to be sent. */
export interface ClaimRecord {
  readonly kind: "block" | "node";
}
