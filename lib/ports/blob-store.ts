// BlobStore: a place for objects. Drivers: file, memory, s3, b2.
import { AshlarError } from "#lib/core/errors.ts";

/** One listed object. */
export interface BlobEntry {
  readonly name: string;
  readonly sizeBytes: number;
}

/** What a driver can do; callers ask, never guess. */
export interface BlobStoreCapabilities {
  /** `put` in mode "create" is atomic against other writers. */
  readonly createOnly: boolean;
  /** A listing shows every object put before it began. */
  readonly consistentListing: boolean;
}

/** How an object is put. */
export interface PutOptions {
  /** "create": AlreadyExists when the name is taken. "replace": atomically instead of what is there. */
  readonly mode: "create" | "replace";
  readonly signal?: AbortSignal;
  /** Stamps, heads and keys may use the space that a file storage keeps back for them. */
  readonly reserve?: boolean;
  /** A storage that locks what is put leaves this one as it is. */
  readonly unlocked?: boolean;
}

/** How an object is read. */
export interface GetOptions {
  /** Only these bytes. */
  readonly range?: { readonly offset: number; readonly length: number };
  /** Read into this buffer (at least as large as the object, else Damaged); the result is a view of it. */
  readonly into?: Uint8Array;
  /**
   * The object may come from a copy that was kept of an earlier read, where the storage has a cache, and is kept; by default it
   * comes from the storage. "use": whatever the storage has by now. "renew": the copy that is kept is forgotten, for it did not
   * open. Only for those who want the content and open what they get (restores): whoever asks what is on the storage, as scrub,
   * filling and fsck do, must see the storage. Has no effect on ranges, and on other objects than blocks and nodes.
   */
  readonly cached?: "use" | "renew";
  readonly signal?: AbortSignal;
}

/** How firmly an object is locked: against all but a special permission, or against everybody. */
export type LockMode = "governance" | "compliance";

/**
 * Object lock: the storage itself keeps what is put, whoever asks for its deletion.
 *
 * - What is put, unless `unlocked`, can be deleted by nobody until `periodMs` later. Putting under its name again ("replace")
 *   hides it, and it stays nevertheless.
 * - `delete` answers for what is still locked with an error of which {@link lockOf} tells.
 * - A lock is made longer and never shorter, nor taken off.
 */
export interface BlobLocking {
  /** Governance: whoever has a special permission can delete what is locked; compliance: nobody can. */
  readonly mode: LockMode;
  /** How long an object is locked from its put on, in ms. */
  readonly periodMs: number;
  /** It was not told so itself, but goes by what the repository had on record when it was opened. */
  readonly isInherited?: boolean;
  /**
   * Locks objects until `untilMs` (ms since 1970) at least; one that is locked for longer stays so, and one that was not locked is
   * so from now on. The result names those that could not be, with their error: NotFound for what is not there.
   */
  extend(names: readonly string[], untilMs: number): Promise<ReadonlyMap<string, Error>>;
  /** The same for the storage's marker. */
  extendMarker(untilMs: number): Promise<void>;
}

/** What an object that is still locked is to be known by. */
export interface LockedObject {
  /** When its last lock runs out, in ms since 1970. */
  readonly untilMs: number;
  /** Of all that lies under its name. */
  readonly sizeBytes: number;
}

/** What an error of `delete` says of a lock; undefined where it is about something else. */
export function lockOf(error: unknown): LockedObject | undefined {
  if (!(error instanceof AshlarError)) return undefined;
  return error.details["locked"] as LockedObject | undefined;
}

/**
 * A flat space of named, immutable objects. Names: `[a-z0-9._-]+` parts joined by `/`, at most 200 bytes.
 *
 * - `put` is atomic (nobody ever reads a part) and durable when it resolves. Several puts may share one flush.
 * - `get`, `stat` of an absent name: NotFound. `delete` of an absent name is a success.
 * - A storage that is away (unmounted, network down) answers Unavailable, never NotFound: absence must be certain.
 * - No space: Io with `details.errno = "ENOSPC"`; permissions: Refused.
 * - `list` gives every object whose name starts with `prefix` (which ends at a `/` or is empty), in any order.
 */
export interface BlobStore {
  readonly capabilities: BlobStoreCapabilities;
  /** For messages: the URL without secrets. */
  readonly location: string;
  /** Undefined where objects are not locked. */
  readonly locking?: BlobLocking;
  /** It was told to lock no more. Where neither is so, it does not know of locks: others may have locked what is there. */
  readonly locksNoMore?: boolean;
  put(name: string, bytes: Uint8Array, options: PutOptions): Promise<void>;
  get(name: string, options?: GetOptions): Promise<Uint8Array>;
  stat(name: string): Promise<BlobEntry>;
  /** Deletes many; the result names those that could not be, with their error. */
  delete(names: readonly string[]): Promise<ReadonlyMap<string, Error>>;
  list(prefix: string, options?: { signal?: AbortSignal }): AsyncIterable<BlobEntry>;
  /** Reads the storage's marker: fails (Unavailable, or as reading does) unless the storage is there and the one that was opened. */
  check(): Promise<void>;
  close(): Promise<void>;
}
