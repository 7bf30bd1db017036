// Messages between actors: msgpackr records; lists of block ids are flat binary, 32 bytes each. Every request is
// idempotent: it may be lost, repeated, late or reordered. A field is added, optional, and never reused; readers pass over
// unknown ones. Processes of two releases work together: what may change, and how, stands in message-shapes.ts, which the compiler
// holds against this file.

import type {
  CompressionMessage,
  BackupCounts,
  BaseMessage,
  CopyMessage,
  DamagedBlockMessage,
  ErrorMessage,
  PolicyMessage,
  PutBlockMessage,
  PutOutcomeMessage,
  PutTimesMessage,
  ReadBlockMessage,
  ReadOutcomeMessage,
  SessionMessage,
} from "./message-parts.ts";

/**
 * Version of the messages: of the requests and replies, which carry it, and of all subjects, which are named by it. It rises only
 * with a change that processes of the release before cannot take; a message of a newer one is refused.
 */
export const MESSAGE_VERSION = 1;

/** The nodes that a session holds were read from several things: none of them is taken over. */
export const MIXED_READING = "";

/** The work queues. */
export const queues = {
  dedup: "dedup",
  /** Blocks and nodes to put, reads. */
  writer: "writer",
  /** Waiting for copies that a commit wants. */
  upkeep: "upkeep",
  /** Copies to verify, a few seconds of work in each message: what must not wait for that goes by other queues. */
  verify: "verify",
  reader: (host: string): string => `reader.${host}`,
  /** Jobs that are submitted without waiting for an answer: JSON. */
  jobs: "jobs",
} as const;

/** All requests, by type, with their replies. */
export interface Requests {
  claim: {
    request: SessionMessage & {
      readonly kind: "block" | "node";
      readonly ids: Buffer;
      readonly plainBytes: readonly number[];
      readonly policy: PolicyMessage;
      readonly impatient: boolean;
    };
    reply: {
      readonly epoch: number;
      readonly answers: readonly (
        | { readonly kind: "known" }
        | { readonly kind: "wait" }
        | { readonly kind: "send"; readonly copies: readonly CopyMessage[]; readonly need: number }
      )[];
    };
  };
  commit: {
    request: SessionMessage & {
      readonly id: string;
      readonly plain: Buffer;
      readonly durable: readonly CopyMessage[];
      readonly storedBytes: number;
      readonly policy: PolicyMessage;
      readonly level: number;
      readonly index: number;
    };
    reply:
      | { readonly kind: "committed" }
      | {
          readonly kind: "returned";
          readonly children: readonly number[];
          readonly self: boolean;
          readonly storages: readonly string[];
        };
  };
  /** Holds a known node at a place of the tree under construction. */
  hold: {
    request: SessionMessage & {
      readonly id: string;
      readonly level: number;
      readonly index: number;
    };
    reply: { readonly held: boolean };
  };
  /** Plaintexts of nodes, undefined where there is none. Only for a session that is live. */
  nodes: {
    request: SessionMessage & { readonly ids: Buffer };
    reply: { readonly plains: readonly (Buffer | null)[] };
  };
  alive: {
    request: SessionMessage & {
      readonly horizon: number | null;
      /** What is being read; {@link MIXED_READING} when that is no one thing. Null says nothing. */
      readonly reading: string | null;
    };
    reply: Record<string, never>;
  };
  put: {
    request: {
      readonly kind: "block" | "node";
      readonly blocks: readonly PutBlockMessage[];
      /** Absent: as the writer's configuration says. */
      readonly compression?: CompressionMessage;
    };
    reply: {
      readonly outcomes: readonly PutOutcomeMessage[];
      /** Where the writer's time went, in ms. */
      readonly times?: PutTimesMessage;
    };
  };
  /** Waits, with patience, until these blocks are placed at these storages: for late puts, and by fills of what is owed. */
  settle: {
    request: {
      readonly ids: Buffer;
      readonly storages: readonly string[];
      readonly patienceMs: number;
    };
    /** How many of them are still not placed at all of the storages. */
    reply: { readonly missing: number };
  };
  /** Only for a restore's session that is live: its token is known to the host that it was given to. */
  read: {
    request: SessionMessage & {
      readonly blocks: readonly ReadBlockMessage[];
      /** Read from this storage only. */
      readonly storage: string | null;
    };
    /** The payload holds the plaintexts. */
    reply: { readonly outcomes: readonly ReadOutcomeMessage[] };
  };
  /**
   * A piece of a scrub: looks at copies at one storage in their order, marks what it finds, and tells it. Whoever does it, and however
   * often, a copy that was verified in this cycle is not read again.
   */
  verify: {
    request: {
      /** The name of the scrub: random. */
      readonly scrub: string;
      readonly storage: string;
      /** The copies: ids, and generations of 8 bytes each. */
      readonly ids: Buffer;
      readonly generations: Buffer;
      /** They were found bad before, and are looked at once more; else one that is bad by now is only told. */
      readonly bad: boolean;
      /** Read and open them; else existence and size will do. */
      readonly deep: boolean;
      /** A copy that was verified then or later was looked at in this cycle. */
      readonly cycleMs: number;
      /** Nothing more is begun after so long. */
      readonly boundMs: number;
    };
    reply: {
      /** Which ones were not looked at, ascending: they are to be asked for again. */
      readonly left: readonly number[];
      readonly checked: number;
      /** Sealed bytes: read, or seen. */
      readonly bytes: number;
      /** How many of those found bad before are good. */
      readonly restored: number;
      /** Missing or wrong. */
      readonly damaged: readonly { readonly index: number; readonly reason: string }[];
      /** Why this writer cannot use the storage. */
      readonly away: ErrorMessage | null;
      /** What it took, without what the request waited for. */
      readonly workMs: number;
    };
  };
  /** A reader reads a device and builds its tree. Answered when the root is committed. */
  backup: {
    request: SessionMessage & {
      readonly job: string;
      readonly source: string;
      readonly frozen: boolean;
      readonly blockBytes: number;
      readonly policy: PolicyMessage;
      /** How what it brings is compressed; goes into its puts. */
      readonly compression?: CompressionMessage;
      readonly base: BaseMessage | null;
      /** Where the reader finds the hints, if there are any. */
      readonly hints: string | null;
      readonly strictHints: boolean;
      /** Share of the unchanged blocks that is checked, and which round of the rotation it is. */
      readonly sampleRate: number;
      readonly sampleRound: number;
      /** What a resumed backup has brought already. */
      readonly placed: readonly {
        readonly level: number;
        readonly index: number;
        readonly id: string;
      }[];
      /** What was read when that was brought; another reading takes none of it. */
      readonly placedOf: string | null;
      readonly heartbeatMs: number;
      readonly patienceMs: number;
    };
    reply: {
      readonly root: string;
      readonly sizeBytes: number;
      readonly levels: number;
      readonly counts: BackupCounts;
      readonly warnings: readonly string[];
      readonly labels: Readonly<Record<string, string>>;
      /** Where the reader's time went, in ms. */
      readonly stages?: Readonly<Record<string, number>>;
    };
  };
  /** Goes on after a refused finish: claims the root for these storages and commits it again. */
  ensureRoot: {
    request: SessionMessage & { readonly policy: PolicyMessage };
    /** A source that changes may read otherwise now: also its size belongs to this root and to no other. */
    reply: { readonly root: string; readonly sizeBytes: number; readonly levels: number };
  };
  /** The backup's version is valid or given up: the reader forgets it. */
  release: {
    request: SessionMessage;
    reply: Record<string, never>;
  };
  /** A reader writes a version onto a target. */
  restore: {
    request: SessionMessage & {
      readonly job: string;
      readonly target: string;
      /** The same for each try of a restore, also under another session. */
      readonly restore?: string;
      readonly root: string;
      readonly levels: number;
      readonly sizeBytes: number;
      readonly blockBytes: number;
      readonly offset: number;
      readonly length: number;
      readonly force: boolean;
      readonly sparse: boolean;
      readonly differential: boolean;
      readonly keepGoing: boolean;
      readonly storage: string | null;
      readonly heartbeatMs: number;
    };
    reply: {
      readonly bytesWritten: number;
      readonly bytesZero: number;
      readonly bytesEqual: number;
      /** The first of them: a message has its bounds. */
      readonly damaged: readonly DamagedBlockMessage[];
      /** How many there are; a reader of 0.1 does not say so, and lists all. */
      readonly damagedCount?: number;
      readonly warnings: readonly string[];
      /** Where the reader's time went, in ms. */
      readonly stages?: Readonly<Record<string, number>>;
    };
  };
}

/** Names of the request types. */
export type RequestType = keyof Requests;

/** A request as it travels. */
export interface Envelope {
  readonly v: number;
  readonly type: string;
  /** Identity of the request: a repeated one has the same. */
  readonly id: string;
  /** Where the reply goes. */
  readonly replyTo: string;
  readonly body: unknown;
}

/** A reply as it travels. */
export interface ReplyEnvelope {
  readonly v: number;
  readonly id: string;
  readonly body?: unknown;
  readonly error?: ErrorMessage;
}

/** An agent that reads and restores. It is believed, for a job only ever goes to the host of that name. */
export interface AgentMessage {
  readonly host: string;
  /** Patterns of what it may read, and restore onto. */
  readonly sources: readonly string[];
  readonly targets: readonly string[];
  /** It says no more: it is being stopped. */
  readonly leaves: boolean;
}

/** An agent says to others of its host that it is there; one that starts asks whether somebody is. */
export interface PresenceMessage {
  /** Random; another one is another process. */
  readonly instance: string;
  readonly asks: boolean;
}
