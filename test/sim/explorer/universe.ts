// The names of a small world: the explorer counts items, storages, sessions and generations, the metadata want identifiers.
import type {
  BlockId,
  Generation,
  SessionId,
  StorageId,
  Token,
  VersionUid,
} from "#lib/core/ids.ts";
import { assert } from "#lib/core/assert.ts";
import type { Policy } from "#lib/repository/records.ts";
import { encodeNode } from "#proto/node.ts";
import type { Configuration, ItemPlan, SessionPlan } from "./configuration.ts";

/** A storage and a generation there. */
export type Copy = [storage: number, generation: number];

/** An object: its storage, the item that it holds, its generation. */
export type Name = [storage: number, item: number, generation: number];

/** Another name like it: renaming changes names in place. */
export function copyOfName([storage, item, generation]: Readonly<Name>): Name {
  return [storage, item, generation];
}

/** The identifiers of a configuration's world. */
export class Universe {
  readonly configuration: Configuration;
  readonly storages: readonly StorageId[];
  readonly ids: readonly BlockId[];
  readonly sessions: readonly SessionId[];
  readonly uids: readonly VersionUid[];
  /** Plaintext of each node; empty for blocks. */
  readonly plains: readonly Buffer[];
  readonly #itemById: ReadonlyMap<BlockId, number>;

  constructor(configuration: Configuration) {
    this.configuration = configuration;
    const { items, sessions } = configuration;
    this.storages = Array.from({ length: configuration.storages }, (_, at) => idOf(0xa0 + at));
    this.ids = items.map(({ kind }, at) => blockIdOf((kind === "block" ? 0x01 : 0x11) + at));
    this.#itemById = new Map(this.ids.map((id, at) => [id, at]));
    this.sessions = sessions.map((_, at) => idOf(0x51 + at));
    this.uids = sessions.map((_, at) => `v-${at}` as VersionUid);
    this.plains = items.map(({ kind, level, children }) =>
      kind === "block"
        ? Buffer.alloc(0)
        : encodeNode({ level, children: children.map((child) => this.id(child)) }),
    );
  }

  id(item: number): BlockId {
    const id = this.ids[item];
    assert(id !== undefined, `there is no item ${item}`);
    return id;
  }

  item(item: number): ItemPlan {
    const plan = this.configuration.items[item];
    assert(plan !== undefined, `there is no item ${item}`);
    return plan;
  }

  itemOf(id: BlockId): number {
    const item = this.#itemById.get(id);
    assert(item !== undefined, `${id} is no item`);
    return item;
  }

  plan(session: number): SessionPlan {
    const plan = this.configuration.sessions[session];
    assert(plan !== undefined, `there is no session ${session}`);
    return plan;
  }

  root(session: number): number {
    return this.plan(session).items.at(-1) as number;
  }

  storage(storage: number): StorageId {
    const id = this.storages[storage];
    assert(id !== undefined, `there is no storage ${storage}`);
    return id;
  }

  storageOf(id: StorageId): number {
    const storage = this.storages.indexOf(id);
    assert(storage !== -1, `there is no storage ${id}`);
    return storage;
  }

  session(session: number): SessionId {
    const id = this.sessions[session];
    assert(id !== undefined, `there is no session ${session}`);
    return id;
  }

  uid(session: number): VersionUid {
    const uid = this.uids[session];
    assert(uid !== undefined, `there is no session ${session}`);
    return uid;
  }

  policy(storages: readonly number[], quorum: number): Policy {
    return { storages: storages.map((storage) => this.storage(storage)), quorum };
  }

  /** An object for people. */
  describe([storage, item, generation]: Readonly<Name>): string {
    return `${this.item(item).name}.${generation}@${storage}`;
  }
}

/** The generation with this number. */
export function generationOf(number: number): Generation {
  return number.toString(16).padStart(16, "0") as Generation;
}

/** The inverse of {@link generationOf}. */
export function generationNumber(generation: Generation): number {
  return Number.parseInt(generation, 16);
}

/** The token with which a session is worked on for the `turn`-th time. */
export function tokenOf(session: number, turn: number): Token {
  return Buffer.from([0x74, 0, 0, 0, 0, 0, session, turn]).toString("hex") as Token;
}

function idOf<T extends StorageId | SessionId>(byte: number): T {
  return Buffer.alloc(8, byte).toString("hex") as T;
}

function blockIdOf(byte: number): BlockId {
  return Buffer.alloc(32, byte).toString("hex") as BlockId;
}
