// BlobStore: a place for objects. Drivers: file, memory, s3, b2.

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
