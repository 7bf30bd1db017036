// The shape of every message, and the rule by which messages change while processes of two releases work together (docs/cluster.md,
// "Upgrading"):
// - A new field is optional, for at least as long as a release without it may be running; receivers pass over what they do not know.
// - A field is never taken away, renamed or given another meaning; one that is not optional is sent for ever.
// - A new kind, or a new word of a closed set, is understood one release before anybody sends it. A kind may also go by a queue of its
//   own, which nobody serves who does not know it, and whoever sends it does.
// - Anything else needs subjects of another version (MESSAGE_VERSION).
// `test/recorded/` has each kind as each release sent it; its test fails where the shapes here do not keep the rule.
import type {
  BackupCounts,
  BaseMessage,
  CompressionMessage,
  CopyMessage,
  DamagedBlockMessage,
  ErrorMessage,
  PolicyMessage,
  ProgressMessage,
  PutBlockMessage,
  PutOutcomeMessage,
  PutTimesMessage,
  ReadBlockMessage,
  ReadOutcomeMessage,
  SessionMessage,
} from "./message-parts.ts";
import type {
  AgentMessage,
  Envelope,
  PresenceMessage,
  ReplyEnvelope,
  Requests,
  RequestType,
} from "./messages.ts";
import {
  anything,
  bytes,
  choice,
  fields,
  flag,
  list,
  map,
  nullable,
  number,
  optional,
  text,
  word,
  type Shape,
} from "./shape.ts";

/** What an error looks like, of whatever version the message is. */
const ERROR: Shape<ErrorMessage> = fields<ErrorMessage>({
  code: text,
  message: text,
  remedy: optional(text),
  details: optional(map(anything)),
});

/** What stays the same in all versions: by it a message of another one is answered. */
export const ENVELOPE: Shape<Envelope> = fields<Envelope>({
  v: number,
  type: text,
  id: text,
  replyTo: text,
  body: anything,
});

/** Likewise, of a reply. */
export const REPLY_ENVELOPE: Shape<ReplyEnvelope> = fields<ReplyEnvelope>({
  v: number,
  id: text,
  body: optional(anything),
  error: optional(ERROR),
});

const SESSION = { session: text, token: text } as const;
const POLICY = fields<PolicyMessage>({ storages: list(text), quorum: number });
const COMPRESSION = fields<CompressionMessage>({ name: text, level: number });
const COPY = fields<CopyMessage>({ storage: text, generation: text });
const KIND = word("block", "node");
const NOTHING = fields<Record<string, never>>({});

const COUNTS = fields<BackupCounts>({
  bytesRead: number,
  blocksRead: number,
  bytesNew: number,
  blocksNew: number,
  bytesKnown: number,
  blocksKnown: number,
  bytesSparse: number,
  blocksSparse: number,
  bytesUnchanged: number,
  blocksUnchanged: number,
  bytesStored: number,
});

type BackupRequest = Requests["backup"]["request"];
type ClaimAnswer = Requests["claim"]["reply"]["answers"][number];
type VerifyDamage = Requests["verify"]["reply"]["damaged"][number];
type CommitReply = Requests["commit"]["reply"];

/** What each request asks. */
export const REQUEST_SHAPES: { readonly [T in RequestType]: Shape<Requests[T]["request"]> } = {
  claim: fields<Requests["claim"]["request"]>({
    ...SESSION,
    kind: KIND,
    ids: bytes,
    plainBytes: list(number),
    policy: POLICY,
    impatient: flag,
  }),
  commit: fields<Requests["commit"]["request"]>({
    ...SESSION,
    id: text,
    plain: bytes,
    durable: list(COPY),
    storedBytes: number,
    policy: POLICY,
    level: number,
    index: number,
  }),
  hold: fields<Requests["hold"]["request"]>({ ...SESSION, id: text, level: number, index: number }),
  nodes: fields<Requests["nodes"]["request"]>({ ...SESSION, ids: bytes }),
  alive: fields<Requests["alive"]["request"]>({
    ...SESSION,
    horizon: nullable(number),
    reading: nullable(text),
  }),
  put: fields<Requests["put"]["request"]>({
    kind: KIND,
    blocks: list(
      fields<PutBlockMessage>({
        id: text,
        offset: number,
        length: number,
        copies: list(COPY),
        need: number,
      }),
    ),
    compression: optional(COMPRESSION),
  }),
  settle: fields<Requests["settle"]["request"]>({
    ids: bytes,
    storages: list(text),
    patienceMs: number,
  }),
  read: fields<Requests["read"]["request"]>({
    ...SESSION,
    blocks: list(fields<ReadBlockMessage>({ kind: KIND, id: text, length: number })),
    storage: nullable(text),
  }),
  verify: fields<Requests["verify"]["request"]>({
    scrub: text,
    storage: text,
    ids: bytes,
    generations: bytes,
    bad: flag,
    deep: flag,
    cycleMs: number,
    boundMs: number,
  }),
  backup: fields<BackupRequest>({
    ...SESSION,
    job: text,
    source: text,
    frozen: flag,
    blockBytes: number,
    policy: POLICY,
    compression: optional(COMPRESSION),
    base: nullable(fields<BaseMessage>({ root: text, levels: number, sizeBytes: number })),
    hints: nullable(text),
    strictHints: flag,
    sampleRate: number,
    sampleRound: number,
    placed: list(
      fields<BackupRequest["placed"][number]>({ level: number, index: number, id: text }),
    ),
    placedOf: nullable(text),
    heartbeatMs: number,
    patienceMs: number,
  }),
  ensureRoot: fields<Requests["ensureRoot"]["request"]>({ ...SESSION, policy: POLICY }),
  release: fields<SessionMessage>(SESSION),
  restore: fields<Requests["restore"]["request"]>({
    ...SESSION,
    job: text,
    target: text,
    restore: optional(text),
    root: text,
    levels: number,
    sizeBytes: number,
    blockBytes: number,
    offset: number,
    length: number,
    force: flag,
    sparse: flag,
    differential: flag,
    keepGoing: flag,
    storage: nullable(text),
    heartbeatMs: number,
  }),
};

/** What each request is answered. */
export const REPLY_SHAPES: { readonly [T in RequestType]: Shape<Requests[T]["reply"]> } = {
  claim: fields<Requests["claim"]["reply"]>({
    epoch: number,
    answers: list(
      choice<ClaimAnswer, "kind">("kind", {
        known: fields<{ readonly kind: "known" }>({ kind: word("known") }),
        wait: fields<{ readonly kind: "wait" }>({ kind: word("wait") }),
        send: fields<Extract<ClaimAnswer, { readonly kind: "send" }>>({
          kind: word("send"),
          copies: list(COPY),
          need: number,
        }),
      }),
    ),
  }),
  commit: choice<CommitReply, "kind">("kind", {
    committed: fields<{ readonly kind: "committed" }>({ kind: word("committed") }),
    returned: fields<Extract<CommitReply, { readonly kind: "returned" }>>({
      kind: word("returned"),
      children: list(number),
      self: flag,
      storages: list(text),
    }),
  }),
  hold: fields<Requests["hold"]["reply"]>({ held: flag }),
  nodes: fields<Requests["nodes"]["reply"]>({ plains: list(nullable(bytes)) }),
  alive: NOTHING,
  put: fields<Requests["put"]["reply"]>({
    outcomes: list(
      fields<PutOutcomeMessage>({ named: flag, durable: list(COPY), storedBytes: number }),
    ),
    times: optional(
      fields<PutTimesMessage>({
        queue: number,
        seal: number,
        store: number,
        storages: map(number),
      }),
    ),
  }),
  settle: fields<Requests["settle"]["reply"]>({ missing: number }),
  read: fields<Requests["read"]["reply"]>({
    outcomes: list(
      choice<ReadOutcomeMessage, "ok">("ok", {
        true: fields<Extract<ReadOutcomeMessage, { readonly ok: true }>>({
          ok: word(true),
          offset: number,
          length: number,
        }),
        false: fields<Extract<ReadOutcomeMessage, { readonly ok: false }>>({
          ok: word(false),
          code: text,
          reason: text,
        }),
      }),
    ),
  }),
  verify: fields<Requests["verify"]["reply"]>({
    left: list(number),
    checked: number,
    bytes: number,
    restored: number,
    damaged: list(fields<VerifyDamage>({ index: number, reason: text })),
    away: nullable(ERROR),
    workMs: number,
  }),
  backup: fields<Requests["backup"]["reply"]>({
    root: text,
    sizeBytes: number,
    levels: number,
    counts: COUNTS,
    warnings: list(text),
    labels: map(text),
    stages: optional(map(number)),
  }),
  ensureRoot: fields<Requests["ensureRoot"]["reply"]>({
    root: text,
    sizeBytes: number,
    levels: number,
  }),
  release: NOTHING,
  restore: fields<Requests["restore"]["reply"]>({
    bytesWritten: number,
    bytesZero: number,
    bytesEqual: number,
    damaged: list(
      fields<DamagedBlockMessage>({
        kind: KIND,
        id: text,
        offset: number,
        length: number,
        reason: text,
      }),
    ),
    damagedCount: optional(number),
    warnings: list(text),
    stages: optional(map(number)),
  }),
};

/** What is said to whoever hears it; its version is that of its subject. */
export const PROGRESS: Shape<ProgressMessage> = fields<ProgressMessage>({
  phase: text,
  bytesDone: number,
  bytesTotal: nullable(number),
  bytesNew: number,
  bytesKnown: number,
  bytesSparse: number,
});

/** An agent's word. */
export const AGENT: Shape<AgentMessage> = fields<AgentMessage>({
  host: text,
  sources: list(text),
  targets: list(text),
  leaves: flag,
});

/** Presence of an agent. */
export const PRESENCE: Shape<PresenceMessage> = fields<PresenceMessage>({
  instance: text,
  asks: flag,
});
