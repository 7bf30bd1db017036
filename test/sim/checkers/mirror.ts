// The metadata as the checkers see them: decoded once, kept true by watching every commit. Codecs and keyspace are all that it
// shares with the transactions.
import type { BlockId, SessionId, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { MemoryKvChange } from "#lib/drivers/memory/memory-kv.ts";
import { decodeBlockRecord, type BlockRecord } from "#lib/repository/block-record.ts";
import { parse, type Parent } from "#lib/repository/keyspace.ts";
import {
  decodeRecord,
  type HeadAtRecord,
  type SessionRecord,
  type StorageRecord,
  type VersionRecord,
} from "#lib/repository/records.ts";
import { decodeNode } from "#proto/node.ts";

/** One thing that a commit has changed; undefined: it was not there, or is not any more. */
export interface Change<T> {
  readonly before: T | undefined;
  readonly after: T | undefined;
}

/** What one commit has changed, decoded. */
export interface Commit {
  readonly blocks: ReadonlyMap<BlockId, Change<BlockRecord>>;
  readonly nodes: ReadonlyMap<BlockId, Change<readonly BlockId[]>>;
  readonly versions: ReadonlyMap<VersionUid, Change<VersionRecord>>;
  readonly sessions: ReadonlyMap<SessionId, Change<SessionRecord>>;
  /** By the text of the hold's place. */
  readonly holds: ReadonlyMap<string, Change<HeldNode>>;
  /** "child parent" of references that came or went. */
  readonly references: ReadonlySet<string>;
  /** Objects that went to trash, as "storage/name". */
  readonly trashed: readonly { readonly storage: StorageId; readonly name: string }[];
}

/** A held node. */
export interface HeldNode {
  readonly id: BlockId;
  /** The parent of its reference. */
  readonly parent: string;
}

/** Text of a parent, the same for the key of a reference and for what makes it. */
export function parentText(parent: Parent): string {
  switch (parent.kind) {
    case "node":
      return `n${parent.id}`;
    case "version":
      return `v${parent.uid}`;
    case "hold":
      return `s${parent.session}/${parent.position.level}/${parent.position.index}`;
  }
}

/** The queues that must become empty, by the prefix of their keys. */
const QUEUES: Readonly<Record<string, string>> = {
  "u/": "unreferenced",
  "x/": "condemned",
  "t/": "trash",
  "tw/": "locked trash",
  "o/": "owed copies",
  "oh/": "owed heads",
  "k/": "re-checks",
  "l/": "leaving copies",
  "rn/": "renewals",
  "sc/": "claims",
  "sd/": "holds",
};

/** Decoded metadata. */
export class Mirror {
  readonly blocks = new Map<BlockId, BlockRecord>();
  /** Distinct children by node. */
  readonly nodes = new Map<BlockId, readonly BlockId[]>();
  readonly versions = new Map<VersionUid, VersionRecord>();
  readonly sessions = new Map<SessionId, SessionRecord>();
  readonly storages = new Map<StorageId, StorageRecord>();
  readonly holds = new Map<string, HeldNode>();
  /** Parents by child. */
  readonly references = new Map<BlockId, Map<string, Parent>>();
  /** Heads by "storage/name". */
  readonly heads = new Map<string, HeadAtRecord>();
  /** Generations that are to take the place of others, by "storage/id". */
  readonly renewals = new Map<string, string>();
  readonly horizons = new Map<SessionId, number>();
  /** Keys of queues that are not empty, by queue. */
  readonly queues = new Map<string, Set<string>>();

  /** Takes in a commit. */
  apply(changes: readonly MemoryKvChange[]): Commit {
    const commit = new CommitBuilder();
    for (const { key, value } of changes) this.#applyOne(commit, key, value);
    return commit;
  }

  #applyOne(commit: CommitBuilder, key: Buffer, value: Buffer | undefined): void {
    const prefix = key.toString("latin1", 0, key.indexOf(0x2f) + 1);
    const queue = QUEUES[prefix];
    if (queue !== undefined) this.#countQueue(queue, key.toString("latin1"), value !== undefined);
    switch (prefix) {
      case "b/":
        this.#record(commit.blocks, this.blocks, parse.block(key), value, decodeBlockRecord);
        break;
      case "n/":
        this.#record(commit.nodes, this.nodes, parse.node(key), value, distinctChildren);
        break;
      case "vu/": {
        const uid = key.toString("utf8", prefix.length) as VersionUid;
        this.#record(commit.versions, this.versions, uid, value, decodeRecord<VersionRecord>);
        break;
      }
      case "se/": {
        const id = parse.session(key);
        this.#record(commit.sessions, this.sessions, id, value, decodeRecord<SessionRecord>);
        break;
      }
      case "sd/":
        this.#hold(commit, key, value);
        break;
      case "r/":
        this.#reference(commit, key, value !== undefined);
        break;
      case "t/":
        if (value !== undefined) commit.trashed.push(parse.trash(key));
        break;
      default:
        this.#others(prefix, key, value);
    }
  }

  #others(prefix: string, key: Buffer, value: Buffer | undefined): void {
    switch (prefix) {
      case "h/": {
        const { storage, name } = parse.headAt(key);
        set(this.heads, `${storage}/${name}`, value && decodeRecord<HeadAtRecord>(value));
        break;
      }
      case "rn/": {
        const { storage, id } = parse.renewal(key);
        set(this.renewals, `${storage}/${id}`, value?.toString("hex").slice(16));
        break;
      }
      case "ss/":
        set(this.storages, parse.storage(key), value && decodeRecord<StorageRecord>(value));
        break;
      case "sh/": {
        const session = key.toString("hex", prefix.length) as SessionId;
        set(this.horizons, session, value && Number(value.readBigUInt64LE(0)));
        break;
      }
      default:
    }
  }

  #record<Id, T>(
    changed: Map<Id, Change<T>>,
    all: Map<Id, T>,
    id: Id,
    value: Buffer | undefined,
    decode: (bytes: Buffer) => T,
  ): void {
    const before = changed.has(id) ? changed.get(id)?.before : all.get(id);
    const after = value === undefined ? undefined : decode(value);
    changed.set(id, { before, after });
    set(all, id, after);
  }

  #hold(commit: CommitBuilder, key: Buffer, value: Buffer | undefined): void {
    const { session, position } = parse.hold(key);
    const parent = parentText({ kind: "hold", session, position });
    this.#record(commit.holds, this.holds, parent, value, (bytes) => ({
      id: bytes.toString("hex") as BlockId,
      parent,
    }));
  }

  #reference(commit: CommitBuilder, key: Buffer, isThere: boolean): void {
    const { child, parent } = parse.reference(key);
    const text = parentText(parent);
    commit.references.add(`${child} ${text}`);
    const parents = this.references.get(child) ?? new Map<string, Parent>();
    if (isThere) this.references.set(child, parents.set(text, parent));
    else if (parents.delete(text) && parents.size === 0) this.references.delete(child);
  }

  #countQueue(queue: string, key: string, isThere: boolean): void {
    const keys = this.queues.get(queue) ?? new Set();
    if (isThere) keys.add(key);
    else keys.delete(key);
    this.queues.set(queue, keys);
  }
}

class CommitBuilder implements Commit {
  readonly blocks = new Map<BlockId, Change<BlockRecord>>();
  readonly nodes = new Map<BlockId, Change<readonly BlockId[]>>();
  readonly versions = new Map<VersionUid, Change<VersionRecord>>();
  readonly sessions = new Map<SessionId, Change<SessionRecord>>();
  readonly holds = new Map<string, Change<HeldNode>>();
  readonly references = new Set<string>();
  readonly trashed: { storage: StorageId; name: string }[] = [];
}

function set<Id, T>(map: Map<Id, T>, id: Id, value: T | undefined): void {
  if (value === undefined) map.delete(id);
  else map.set(id, value);
}

function distinctChildren(plain: Buffer): readonly BlockId[] {
  return [...new Set(decodeNode<BlockId>(plain).children.filter((child) => child !== undefined))];
}
