// The plaintext of a tree node (docs/format.md, "Nodes"). Canonical: equal nodes have equal bytes, hence equal ids.
import { malformed, writtenByNewer } from "./format-error.ts";

/** Children of a node. */
export const NODE_FAN_OUT = 256;
/** 256^8 blocks: more than any device has. */
export const NODE_LEVEL_MAX = 7;

const MAGIC = 0x4e;
const VERSION = 1;
const BITMAP_AT = 4;
const BITMAP_BYTES = NODE_FAN_OUT / 8;
const CHILDREN_AT = BITMAP_AT + BITMAP_BYTES;
const CHILD_BYTES = 32;
/** The largest node. */
export const NODE_BYTES_MAX = CHILDREN_AT + NODE_FAN_OUT * CHILD_BYTES;

/** A node of a version's hash tree. `Id` is how the caller brands ids: 32 bytes as hex. */
export interface TreeNode<Id extends string = string> {
  /** 0: a leaf, whose children are blocks; else its children are nodes one level below. */
  readonly level: number;
  /** By position; undefined where everything below is zero. Decoding gives 256, encoding takes up to 256. */
  readonly children: readonly (Id | undefined)[];
}

/** Encodes a node. */
export function encodeNode(node: TreeNode): Buffer {
  const { level, children } = node;
  if (!(Number.isInteger(level) && level >= 0 && level <= NODE_LEVEL_MAX))
    throw malformed(`has level ${level}`);
  if (children.length > NODE_FAN_OUT) throw malformed(`has ${children.length} children`);
  const present = children.reduce((count, child) => (child === undefined ? count : count + 1), 0);
  const out = Buffer.alloc(CHILDREN_AT + present * CHILD_BYTES);
  out[0] = MAGIC;
  out[1] = VERSION;
  out[2] = level;
  let at = CHILDREN_AT;
  for (const [index, child] of children.entries()) {
    if (child === undefined) continue;
    const bitAt = BITMAP_AT + (index >> 3);
    out[bitAt] = (out[bitAt] as number) | (1 << (index & 7));
    if (child.length !== CHILD_BYTES * 2 || out.write(child, at, "hex") !== CHILD_BYTES) {
      throw malformed(`has a child that is not 32 bytes in hex (${child})`);
    }
    at += CHILD_BYTES;
  }
  return out;
}

/** Decodes a node, and refuses every byte string that {@link encodeNode} would not have written. */
export function decodeNode<Id extends string = string>(bytes: Uint8Array): TreeNode<Id> {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.length < CHILDREN_AT || view[0] !== MAGIC) throw malformed("is not a tree node");
  if (view[1] !== VERSION) throw writtenByNewer(`node format ${view[1]}`);
  const level = view[2] as number;
  if (level > NODE_LEVEL_MAX) throw malformed(`has level ${level}`);
  if (view[3] !== 0) throw malformed("has a reserved byte that is not zero");
  const children: (Id | undefined)[] = Array.from({ length: NODE_FAN_OUT });
  let at = CHILDREN_AT;
  for (let index = 0; index < NODE_FAN_OUT; index += 1) {
    if (((view[BITMAP_AT + (index >> 3)] as number) & (1 << (index & 7))) === 0) continue;
    if (at + CHILD_BYTES > view.length) throw malformed("has fewer children than its bitmap says");
    children[index] = view.toString("hex", at, at + CHILD_BYTES) as Id;
    at += CHILD_BYTES;
  }
  if (at !== view.length) throw malformed("has more bytes than its bitmap says");
  return { level, children };
}
