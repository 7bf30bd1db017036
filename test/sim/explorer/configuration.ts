// What one exploration is about: the world, the sessions in it, and how much of each kind of trouble there may be. Every
// number is a bound that keeps the space finite.

/** A block, or a node over some items. */
export interface ItemPlan {
  readonly name: string;
  readonly kind: "block" | "node";
  /** Positions of what a node names in {@link Configuration.items}; empty for a block. */
  readonly children: readonly number[];
  readonly level: number;
}

/** A backup. */
export interface SessionPlan {
  /** What it brings, children before parents, as positions in {@link Configuration.items}; the root comes last. */
  readonly items: readonly number[];
  readonly storages: readonly number[];
  readonly quorum: number;
  /** Its source cannot change, so known nodes are held, and who resumes it does not bring held nodes again. */
  readonly frozen?: boolean;
  /** It is an incremental: it holds the version of this session, and takes these items from there without a claim. */
  readonly base?: { readonly session: number; readonly items: readonly number[] };
  /** It has made its version before the exploration begins, or has brought its first item and was abandoned then. */
  readonly before?: "finished" | "abandoned";
}

/** A world and its bounds. What is left out does not happen. */
export interface Configuration {
  readonly name: string;
  readonly storages: number;
  readonly items: readonly ItemPlan[];
  readonly sessions: readonly SessionPlan[];
  /** Passes of the collector. */
  readonly passes?: number;
  /** Runs that delete. Without any, dead names are forgotten at once. */
  readonly deletionRuns?: number;
  /** Whether what a run deletes may be deleted once more, later. */
  readonly lateDeletes?: number;
  /** Live sessions that are taken for dead, while their readers go on. */
  readonly deaths?: number;
  readonly resumes?: number;
  /** Whether dead sessions may be abandoned. */
  readonly abandons?: boolean;
  /** Versions that are removed. */
  readonly removals?: number;
  /** Requests that land a second time. */
  readonly duplicates?: number;
  /** Claims that do not wait for other sessions. */
  readonly impatientClaims?: number;
  /** Whether an answer may stay on its way while other things happen; else it arrives at once. */
  readonly lateAnswers?: boolean;
  /**
   * Whether an object may be there for a while before it is recorded. Only what deletes or lists objects can tell: without
   * it, an object lands in the moment in which it is recorded.
   */
  readonly separatePuts?: boolean;
  /** Whether puts go on when nobody waits for them any more. */
  readonly latePuts?: boolean;
  /**
   * Readers whose session is not theirs any more only put: what else they ask is refused, and changes nothing (which is
   * explored where this is not set).
   */
  readonly silentZombies?: boolean;
  /** Copies that are filled from another storage. */
  readonly fills?: number;
  /** Objects that a storage loses. */
  readonly losses?: number;
  /** Good objects that are found bad. */
  readonly falseAlarms?: number;
  /** Objects that are read to be judged; without losses or false alarms, none has to be. */
  readonly scrubs?: number;
  readonly sweeps?: number;
  /** Times at which the last storage is disabled, or put in use again. */
  readonly storageChanges?: number;
  /** Of so many new states one is brought to its end and checked for leaks. */
  readonly drainEvery?: number;
}
