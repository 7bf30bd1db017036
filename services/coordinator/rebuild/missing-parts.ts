// Which parts of an invalid version no storage has. Marks lead there: only what is marked is walked.
import type { BlockId } from "#lib/core/ids.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { hasGoodCopy } from "#lib/repository/block-record.ts";
import { key } from "#lib/repository/keyspace.ts";
import { readBlocks } from "#lib/repository/ledger.ts";
import { blocksPerNode, NODE_FAN_OUT } from "#lib/repository/tree.ts";
import { decodeNode } from "#proto/node.ts";
import type { MissingPart } from "./run.ts";
import type { RebuiltVersion } from "./rebuilt-version.ts";

/** Finds at most `limit` missing parts, in the order of the device. */
export async function findMissingParts(
  kv: Kv,
  version: RebuiltVersion,
  limit: number,
): Promise<MissingPart[]> {
  const out: MissingPart[] = [];
  if (version.root !== undefined) {
    await visit(kv, version, { id: version.root, level: version.levels - 1, index: 0 }, limit, out);
  }
  return out;
}

interface Place {
  readonly id: BlockId;
  readonly level: number;
  readonly index: number;
}

async function visit(
  kv: Kv,
  version: RebuiltVersion,
  { id, level, index }: Place,
  limit: number,
  out: MissingPart[],
): Promise<void> {
  const plain = await kv.read((reader) => reader.get(key.node(id)));
  if (plain === undefined) {
    out.push(part(version, "node", id, index * blocksPerNode(level), blocksPerNode(level)));
    return;
  }
  const { children } = decodeNode<BlockId>(plain);
  const ids = [...new Set(children.filter((child) => child !== undefined))];
  const records = await kv.read((reader) => readBlocks(reader, ids));
  const marked = new Map(ids.map((child, at) => [child, records[at]]));
  for (const [position, child] of children.entries()) {
    if (out.length >= limit) return;
    const record = child === undefined ? undefined : marked.get(child);
    if (child === undefined || record?.damaged === false) continue;
    const place = { id: child, level: level - 1, index: index * NODE_FAN_OUT + position };
    if (level > 0) await visit(kv, version, place, limit, out);
    else if (record === undefined || !hasGoodCopy(record)) {
      out.push(part(version, "block", child, place.index, 1));
    }
  }
}

function part(
  { sizeBytes, blockBytes }: RebuiltVersion,
  kind: MissingPart["kind"],
  id: BlockId,
  firstBlock: number,
  blockCount: number,
): MissingPart {
  const offset = Math.min(sizeBytes, firstBlock * blockBytes);
  const length = Math.min(sizeBytes - offset, blockCount * blockBytes);
  return { offset, length, kind, id };
}
