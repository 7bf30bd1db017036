// The metadata of a snapshot, decoded once: for the checkers, and for actors that look before they act. It uses the codecs
// and the keyspace, and nothing else of what the transactions use.
import type { Generation, BlockId, StorageId, Token } from "#lib/core/ids.ts";
import { decodeBlockRecord, type BlockRecord } from "#lib/repository/block-record.ts";
import { parse, type Parent } from "#lib/repository/keyspace.ts";
import {
  decodeRecord,
  type Policy,
  type SessionState,
  type SessionRecord,
  type StorageRecord,
  type VersionRecord,
  type VersionState,
} from "#lib/repository/records.ts";
import { decodeNode } from "#proto/node.ts";
import type { Entry, Snapshot } from "./snapshot-pool.ts";

/** A reference as it is recorded. */
export interface RecordedReference {
  readonly child: BlockId;
  readonly parent: Parent;
  readonly text: string;
}

/** Decoded metadata. */
export interface MetadataView {
  readonly records: ReadonlyMap<BlockId, BlockRecord>;
  /** Distinct children by node. */
  readonly nodes: ReadonlyMap<BlockId, readonly BlockId[]>;
  readonly references: readonly RecordedReference[];
  readonly sessions: ReadonlyMap<
    string,
    { readonly state: SessionState; readonly token: Token; readonly policy: Policy | undefined }
  >;
  readonly versions: ReadonlyMap<
    string,
    {
      readonly state: VersionState;
      readonly root: BlockId | undefined;
      readonly policy: Policy;
    }
  >;
  readonly holds: readonly {
    readonly session: string;
    readonly id: BlockId;
    readonly level: number;
    readonly index: number;
  }[];
  readonly claims: readonly { readonly session: string; readonly id: BlockId }[];
  readonly trash: readonly { readonly storage: StorageId; readonly name: string }[];
  readonly unreferenced: readonly BlockId[];
  readonly condemned: readonly { readonly epoch: number; readonly id: BlockId }[];
  readonly rechecks: readonly BlockId[];
  readonly owed: readonly { readonly storage: StorageId; readonly id: BlockId }[];
  readonly storagesInUse: ReadonlySet<StorageId>;
  readonly horizons: number;
  readonly epoch: number;
  /** Objects that records name, in any state, as "storage item generation". */
  readonly names: ReadonlySet<string>;
}

type Mutable<T> = {
  -readonly [K in keyof T]: T[K] extends ReadonlyMap<infer A, infer B>
    ? Map<A, B>
    : T[K] extends ReadonlySet<infer S>
      ? Set<S>
      : T[K] extends readonly (infer E)[]
        ? E[]
        : T[K];
};

const views = new WeakMap<Snapshot, MetadataView>();

/** The view of a snapshot. */
export function viewOf(snapshot: Snapshot): MetadataView {
  let view = views.get(snapshot);
  if (view === undefined) {
    view = decode(snapshot);
    views.set(snapshot, view);
  }
  return view;
}

/** A name as {@link MetadataView.names} has it. */
export function nameText(storage: StorageId, id: BlockId, generation: Generation): string {
  return `${storage}/${id}.${generation}`;
}

function decode(snapshot: Snapshot): MetadataView {
  const view: Mutable<MetadataView> = {
    records: new Map(),
    nodes: new Map(),
    references: [],
    sessions: new Map(),
    versions: new Map(),
    holds: [],
    claims: [],
    trash: [],
    unreferenced: [],
    condemned: [],
    rechecks: [],
    owed: [],
    storagesInUse: new Set(),
    horizons: 0,
    epoch: 0,
    names: new Set(),
  };
  for (const entry of snapshot.entries) {
    if (entry.text === "e") view.epoch = Number(entry.value.readBigUInt64LE(0));
    const slash = entry.text.indexOf("/");
    READERS[entry.text.slice(0, slash + 1)]?.(view, entry);
  }
  return view;
}

const READERS: Readonly<Record<string, (view: Mutable<MetadataView>, entry: Entry) => void>> = {
  "b/": (view, { key, value }) => {
    const id = parse.block(key);
    const record = decodeBlockRecord(value);
    view.records.set(id, record);
    for (const { storage, generation } of record.copies) {
      view.names.add(nameText(storage, id, generation));
    }
  },
  "n/": (view, { key, value }) => {
    const children = decodeNode<BlockId>(value).children.filter((child) => child !== undefined);
    view.nodes.set(parse.node(key), [...new Set(children)]);
  },
  "r/": (view, { key, text }) => void view.references.push({ ...parse.reference(key), text }),
  "se/": (view, { key, value }) => {
    const { state, token, policy } = decodeRecord<SessionRecord>(value);
    view.sessions.set(parse.session(key), { state, token, policy });
  },
  "vu/": (view, { text, value }) => {
    const { state, root, policy } = decodeRecord<VersionRecord>(value);
    view.versions.set(text.slice(3), { state, root, policy });
  },
  "sd/": (view, { key, value }) => {
    const { session, position } = parse.hold(key);
    view.holds.push({ session, id: value.toString("hex") as BlockId, ...position });
  },
  "sc/": (view, { key }) => void view.claims.push(parse.claim(key)),
  "t/": (view, { key }) => void view.trash.push(parse.trash(key)),
  "u/": (view, { key }) => void view.unreferenced.push(parse.unreferenced(key)),
  "x/": (view, { key }) => void view.condemned.push(parse.condemned(key)),
  "k/": (view, { key }) => void view.rechecks.push(parse.recheck(key)),
  "o/": (view, { key }) => void view.owed.push(parse.owed(key)),
  "ss/": (view, { key, value }) => {
    if (decodeRecord<StorageRecord>(value).state === "in-use") {
      view.storagesInUse.add(parse.storage(key));
    }
  },
  "sh/": (view) => void (view.horizons += 1),
};
