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
  /** Objects that could not be deleted; they stay in trash. */
  readonly failed: number;
  /** Why nothing, or not everything, was deleted. */
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
  /** Writes trash for what no record names at a storage. */
  sweep(storage: StorageId, options?: UpkeepOptions): Promise<SweepOutcome>;
  /**
   * Waits for puts that were answered at the quorum, at most `ms`, or until the signal aborts. Gives the storages at which they
   * have not ended: they hang, or are much slower than the quorum.
   */
  drain(ms: number, signal?: AbortSignal): Promise<readonly StorageId[]>;
}
