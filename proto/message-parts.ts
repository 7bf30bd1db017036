// What messages are made of; the messages themselves are in messages.ts, and the rule by which they change in message-shapes.ts.

/** Storages and quorum, as sent. */
export interface PolicyMessage {
  readonly storages: readonly string[];
  readonly quorum: number;
}

/** How to compress what is put: a compression's name, and a level where it has some. */
export interface CompressionMessage {
  readonly name: string;
  readonly level: number;
}

/** A copy to bring, or that was brought: storage identity and generation. */
export interface CopyMessage {
  readonly storage: string;
  readonly generation: string;
}

/** What a writer spent on a put, in ms: `storages` by name, for the one that enough copies waited for. */
export interface PutTimesMessage {
  readonly queue: number;
  readonly seal: number;
  readonly store: number;
  readonly storages: Readonly<Record<string, number>>;
}

/** Sessions authenticate each request by their token. */
export interface SessionMessage {
  readonly session: string;
  readonly token: string;
}

/** One block of a `put`; offset and length are in the payload. */
export interface PutBlockMessage {
  readonly id: string;
  readonly offset: number;
  readonly length: number;
  readonly copies: readonly CopyMessage[];
  /** How many of the copies make the quorum. */
  readonly need: number;
}

/** What became of one block of a `put`. */
export interface PutOutcomeMessage {
  /** False: a copy was not named any more; claim again. */
  readonly named: boolean;
  /** Where it is durable (nodes) or placed (blocks). */
  readonly durable: readonly CopyMessage[];
  readonly storedBytes: number;
}

/** One object to read back. */
export interface ReadBlockMessage {
  readonly kind: "block" | "node";
  readonly id: string;
  /** Plaintext bytes expected. */
  readonly length: number;
}

/** Where a plaintext lies in the payload, or why it could not be had. */
export type ReadOutcomeMessage =
  | { readonly ok: true; readonly offset: number; readonly length: number }
  | { readonly ok: false; readonly code: string; readonly reason: string };

/** The base of an incremental backup. */
export interface BaseMessage {
  readonly root: string;
  readonly levels: number;
  readonly sizeBytes: number;
}

/** What a backup did, in bytes and blocks. */
export interface BackupCounts {
  readonly bytesRead: number;
  readonly blocksRead: number;
  readonly bytesNew: number;
  readonly blocksNew: number;
  readonly bytesKnown: number;
  readonly blocksKnown: number;
  readonly bytesSparse: number;
  readonly blocksSparse: number;
  readonly bytesUnchanged: number;
  readonly blocksUnchanged: number;
  readonly bytesStored: number;
}

/** Counts of a backup that has done nothing. */
export const NO_COUNTS: BackupCounts = {
  bytesRead: 0,
  blocksRead: 0,
  bytesNew: 0,
  blocksNew: 0,
  bytesKnown: 0,
  blocksKnown: 0,
  bytesSparse: 0,
  blocksSparse: 0,
  bytesUnchanged: 0,
  blocksUnchanged: 0,
  bytesStored: 0,
};

/** A block that could not be restored; of kind "node", everything below a node of the tree. */
export interface DamagedBlockMessage {
  readonly kind: "block" | "node";
  readonly id: string;
  readonly offset: number;
  readonly length: number;
  readonly reason: string;
}

/** Progress of a reader's job. */
export interface ProgressMessage {
  readonly phase: string;
  readonly bytesDone: number;
  readonly bytesTotal: number | null;
  readonly bytesNew: number;
  readonly bytesKnown: number;
  readonly bytesSparse: number;
}

/** An error as it travels. */
export interface ErrorMessage {
  readonly code: string;
  readonly message: string;
  readonly remedy?: string;
  readonly details?: Readonly<Record<string, unknown>>;
}
