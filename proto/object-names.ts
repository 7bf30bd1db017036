// Names of objects on a storage (docs/format.md, "Names"). Nothing in a name reveals what an object holds.

/** The folders of a storage; each holds objects of one type. */
export const ObjectFolder = {
  blocks: "blocks/",
  nodes: "nodes/",
  heads: "heads/",
  stamps: "stamps/",
  keys: "keys/",
} as const;

/** What a name says. Ids are lower-case hex. */
export type ObjectName =
  | { readonly type: "block" | "node"; readonly id: string; readonly generation: string }
  /** `hash`: the keyed hash of the version's uid. `random` tells apart tries to put one revision. */
  | {
      readonly type: "head";
      readonly hash: string;
      readonly revision: number;
      readonly random: string;
    }
  | { readonly type: "stamp"; readonly random: string }
  | { readonly type: "key"; readonly accessId: string };

const DATA_NAME = /^(block|node)s\/([0-9a-f]{64})\.([0-9a-f]{16})$/;
const HEAD_NAME = /^heads\/([0-9a-f]{64})\.([1-9][0-9]{0,14})\.([0-9a-f]{16})$/;
const STAMP_NAME = /^stamps\/([0-9a-f]{16})$/;
const KEY_NAME = /^keys\/([0-9a-f]{16})$/;

/** The name of an object. */
export function formatObjectName(name: ObjectName): string {
  switch (name.type) {
    case "block":
    case "node":
      return `${name.type}s/${name.id}.${name.generation}`;
    case "head":
      return `heads/${name.hash}.${name.revision}.${name.random}`;
    case "stamp":
      return `stamps/${name.random}`;
    case "key":
      return `keys/${name.accessId}`;
  }
}

/** Reads a name; undefined for one that Ashlar does not give, which callers leave alone. */
export function parseObjectName(name: string): ObjectName | undefined {
  const data = DATA_NAME.exec(name);
  if (data !== null) {
    return {
      type: data[1] as "block" | "node",
      id: data[2] as string,
      generation: data[3] as string,
    };
  }
  const head = HEAD_NAME.exec(name);
  if (head !== null) {
    return {
      type: "head",
      hash: head[1] as string,
      revision: Number(head[2]),
      random: head[3] as string,
    };
  }
  const stamp = STAMP_NAME.exec(name);
  if (stamp !== null) return { type: "stamp", random: stamp[1] as string };
  const key = KEY_NAME.exec(name);
  return key === null ? undefined : { type: "key", accessId: key[1] as string };
}

/** Name of a block's object. */
export function blockObjectName(id: string, generation: string): string {
  return formatObjectName({ type: "block", id, generation });
}

/** Name of a node's object. */
export function nodeObjectName(id: string, generation: string): string {
  return formatObjectName({ type: "node", id, generation });
}

/** Name of a head. */
export function headObjectName(hash: string, revision: number, random: string): string {
  return formatObjectName({ type: "head", hash, revision, random });
}

/** Name of a stamp. */
export function stampObjectName(random: string): string {
  return formatObjectName({ type: "stamp", random });
}

/** Name of a key object. */
export function keyObjectName(accessId: string): string {
  return formatObjectName({ type: "key", accessId });
}

/** The id in the header of a sealed stamp: its 8 random bytes, then zeros, for it has no content hash. */
export function stampObjectId(random: string): string {
  return random.padEnd(64, "0");
}
