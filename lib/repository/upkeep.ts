// What coordinators ask of the role that reaches the storages (a writer) beside putting and reading blocks, and what it came
// to: plain data. In one process it is called directly; the composition hands it over, since services do not import each other.
import type { BlockId, StorageId, VersionUid } from "#lib/core/ids.ts";

/** How a piece of upkeep is watched and stopped. */
export interface UpkeepOptions {
  readonly signal?: AbortSignal;
  /** Sealed bytes handled so far. */
  readonly onProgress?: (bytesDone: number) => void;
}

/** What putting owed heads came to at one storage. */
export interface HeadsOutcome {
  readonly storage: StorageId;
  readonly put: number;
  /** Still owed: the storage is away, or the root is not placed there yet. Counted up to a limit. */
  readonly owed: number;
  /** Asked for one version: the storage has a head of it that does not remove it, though perhaps not of the latest revision. */
  readonly hasHead: boolean;
  /** A head that could have been put was not. */
  readonly failed: boolean;
  /** Why heads are still owed. */
  readonly reason: string | undefined;
}

/** An object that could not be had, or was found damaged. */
export interface ObjectFailure {
  readonly storage: StorageId;
  readonly id: BlockId;
  readonly kind: "block" | "node";
  readonly reason: string;
}

/** What filling owed copies came to at one storage. */
export interface FillSummary {
  readonly storage: StorageId;
  /** Copies that are placed now. */
  readonly filled: number;
  /** Their sealed bytes. */
  readonly bytes: number;
  /** Still owed. Counted up to a limit. */
  readonly owed: number;
  readonly headsPut: number;
  /** Copies at other storages that were found bad while they were read. */
  readonly damaged: readonly ObjectFailure[];
  /** Copies that no storage could give; a bounded list. */
  readonly failures: readonly ObjectFailure[];
  /** Why it stopped early or did nothing. */
  readonly reason: string | undefined;
}

/** What a deletion run came to at one storage. */
export interface DeletionOutcome {
  readonly storage: StorageId;
  /** Number of the run; undefined when none began. */
  readonly run: number | undefined;
  readonly headsPut: number;
  readonly deleted: number;
  /** Objects that are locked there, and wait from now on until their locks have run out. */
  readonly waiting: number;
  /** Objects that could not be deleted; they stay in trash. */
  readonly failed: number;
  /** Why nothing, or not everything, was deleted. */
  readonly reason: string | undefined;
}

/** How locks are extended. */
export interface ExtendOptions {
  readonly signal?: AbortSignal;
  /** Locks extended so far. */
  readonly onProgress?: (extended: number) => void;
  /** About so many; the next run goes on. Default: all that are due. */
  readonly most?: number;
}

/** What extending locks came to at one storage. */
export interface ExtensionOutcome {
  readonly storage: StorageId;
  readonly extended: number;
  /** Stay due. */
  readonly failed: number;
  /** Why nothing, or not everything, was extended. */
  readonly reason: string | undefined;
}

/** What a sweep found at one storage. */
export interface SweepOutcome {
  readonly storage: StorageId;
  readonly listed: number;
  /** Objects that no record names; they are in trash now. */
  readonly orphans: number;
  /** Why it did nothing, or stopped early. */
  readonly reason: string | undefined;
}

/** A version that needs the object. */
export interface AffectedVersion {
  readonly uid: VersionUid;
  /** Where in the version, in bytes, ascending: a content may occur several times. */
  readonly offsets: readonly number[];
  /** Bytes behind each offset that the object stands for: one block, or all below a node. */
  readonly length: number;
  /** There are more offsets. */
  readonly more: boolean;
}

/** All that was found within the bounds. */
export interface BlastRadius {
  readonly versions: readonly AffectedVersion[];
  /** There are more versions, or more places, than the bounds allow to look for. */
  readonly more: boolean;
}

/** What a scrub looks at, and for how long. */
export interface ScrubOptions extends UpkeepOptions {
  /** Read, open and compare every byte. */
  readonly deep: boolean;
  /** Default: all that count. */
  readonly storages?: readonly StorageId[];
  /** Only what these versions name; each object once. Default: everything, oldest verification first. */
  readonly versions?: readonly VersionUid[];
  /** Look at so many copies of a hundred, chosen at random. */
  readonly samplePercent?: number;
  /** Stop after so long, or so many sealed bytes; the next scrub goes on where this one stopped. */
  readonly budget?: { readonly ms?: number; readonly bytes?: number };
  /**
   * Keeps the time of the cycle, and gives the one that counts: an earlier one where an earlier try of the same work has kept one.
   * What was verified then or later is not read again. In ms since 1970.
   */
  readonly keepCycle?: (cycleMs: number) => Promise<number>;
}

/** A damaged object. */
export interface DamagedObject extends BlastRadius {
  readonly storage: StorageId;
  readonly name: string;
  readonly id: BlockId;
  readonly kind: "block" | "node";
  readonly reason: string;
  /** The storage has a good copy again, copied from another one. */
  readonly healed: boolean;
}

/** What was looked at, at one storage. */
export interface ScrubbedStorage {
  readonly storage: StorageId;
  readonly checked: number;
  /** Sealed bytes: read by a deep scrub, seen by a shallow one. */
  readonly bytes: number;
  readonly damaged: number;
  /** Copies that had been found bad and are good: placed again. */
  readonly restored: number;
  /** Why not everything was looked at. */
  readonly reason: string | undefined;
}

/** Outcome of a scrub. */
export interface ScrubResult {
  readonly storages: readonly ScrubbedStorage[];
  /** Not more than are told one by one; `storages` has the counts. */
  readonly damaged: readonly DamagedObject[];
  /** The budget ended it. */
  readonly budgetSpent: boolean;
}

/** Storage upkeep. */
export interface Upkeep {
  /** Puts the heads that are owed: of one version or all, at one storage or all that are there. */
  putHeads(
    which: { readonly uid?: VersionUid; readonly storage?: StorageId },
    options?: UpkeepOptions,
  ): Promise<HeadsOutcome[]>;
  /** Refused when a storage and this KV do not recognise each other (DESIGN §4.10); those away are passed over. */
  guard(storages: readonly StorageId[]): Promise<void>;
  /**
   * Lists the stamps again, between putting a head and acknowledging it. Returns those that could be listed: a storage that
   * could not counts as away, so it does not count for the acknowledgement.
   */
  checkStamps(storages: readonly StorageId[]): Promise<readonly StorageId[]>;
  /** Fills what is owed to a storage from the others. */
  fill(storage: StorageId, options?: UpkeepOptions): Promise<FillSummary>;
  /** Deletes from trash at a storage, under a new stamp. */
  runDeletions(storage: StorageId, options?: UpkeepOptions): Promise<DeletionOutcome>;
  /** Extends the locks of objects that are needed, where a storage locks them. */
  extendLocks(storage: StorageId, options?: ExtendOptions): Promise<ExtensionOutcome>;
  /** Verifies what is stored, the oldest verification first, and heals what it finds (DESIGN §4.8). */
  scrub(options: ScrubOptions): Promise<ScrubResult>;
  /** Writes trash for what no record names at a storage. */
  sweep(storage: StorageId, options?: UpkeepOptions): Promise<SweepOutcome>;
  /**
   * Waits for puts that were answered at the quorum, at most `ms`, or until the signal aborts. Gives the storages at which they
   * have not ended: they hang, or are much slower than the quorum.
   */
  drain(ms: number, signal?: AbortSignal): Promise<readonly StorageId[]>;
}
