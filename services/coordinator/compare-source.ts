// Comparing a version with a source: the source is read and hashed, and its ids are compared with those of the tree. No
// storage is asked; whether it still has the objects is scrub's question.
import type { BlockId, VersionUid } from "#lib/core/ids.ts";
import { blockIdFrom, BLOCK_ID_BYTES } from "#lib/core/ids.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockSource, Extent } from "#lib/ports/block-device.ts";
import { key } from "#lib/repository/keyspace.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { blockCountOf } from "#lib/repository/tree.ts";
import { walkLeaves } from "#lib/repository/tree-walk.ts";
import type { JobOptions } from "./jobs.ts";

/** What a comparison found. */
export interface SourceComparison {
  readonly uid: VersionUid;
  readonly bytesCompared: number;
  /** Extents of whole blocks that differ, merged; what one side has beyond the other's end is one of them. */
  readonly differing: readonly Extent[];
}

/** Bytes that are read and hashed at once. */
const READ_BYTES = 8 * 1024 * 1024;

/** Compares all of the version with the source, block by block. */
export async function compareSource(
  repo: Repository,
  version: VersionRecord,
  source: BlockSource,
  options: JobOptions = {},
): Promise<SourceComparison> {
  const { sizeBytes } = source;
  if (sizeBytes === undefined || !source.seekable) {
    throw new AshlarError(ErrorCode.Usage, "a stream cannot be compared with a version");
  }
  const { blockBytes } = version;
  const shorter = Math.min(version.sizeBytes, sizeBytes);
  const longer = Math.max(version.sizeBytes, sizeBytes);
  const count = blockCountOf(shorter, blockBytes);
  const perRead = Math.max(1, Math.floor(READ_BYTES / blockBytes));
  const pool = repo.compute.pool(perRead * blockBytes, 1);
  const expected = expectedIds(repo, version, count);
  const differing: Extent[] = [];
  const slot = await pool.acquire(options.signal);
  try {
    for (let first = 0; first < count; first += perRead) {
      options.signal?.throwIfAborted();
      const offset = first * blockBytes;
      const length = Math.min(perRead * blockBytes, shorter - offset);
      const bytes = slot.bytes.subarray(0, length);
      await source.read(bytes, offset);
      const { ids, zero } = await repo.compute.hash(bytes, blockBytes);
      for (let at = 0; at < perRead && first + at < count; at += 1) {
        const id = zero[at] === 1 ? undefined : blockIdFrom(ids, at * BLOCK_ID_BYTES);
        const next = await expected.next();
        if (next.value === id) continue;
        const start = (first + at) * blockBytes;
        addExtent(differing, {
          offset: start,
          length: Math.min(blockBytes, version.sizeBytes - start),
        });
      }
      options.onProgress?.(progress(offset + length, shorter));
    }
  } finally {
    slot.release();
  }
  if (longer > shorter) addExtent(differing, { offset: shorter, length: longer - shorter });
  return { uid: version.uid, bytesCompared: shorter, differing };
}

/** The ids that the version has, block by block; undefined for zeros. */
async function* expectedIds(
  repo: Repository,
  version: VersionRecord,
  count: number,
): AsyncGenerator<BlockId | undefined, undefined> {
  let index = 0;
  if (version.root !== undefined) {
    const readNodes = (ids: readonly BlockId[]): Promise<(Buffer | undefined)[]> =>
      repo.kv.read((reader) => reader.getMany(ids.map((id) => key.node(id))));
    const tree = { root: version.root, levels: version.levels };
    for await (const leaf of walkLeaves(readNodes, tree, { from: 0, to: count })) {
      for (; index < leaf.first; index += 1) yield undefined;
      for (const id of leaf.blocks) {
        yield id;
        index += 1;
      }
    }
  }
  for (; index < count; index += 1) yield undefined;
}

function addExtent(extents: Extent[], extent: Extent): void {
  const last = extents.at(-1);
  if (last !== undefined && last.offset + last.length >= extent.offset) {
    const end = Math.max(last.offset + last.length, extent.offset + extent.length);
    extents[extents.length - 1] = { offset: last.offset, length: end - last.offset };
  } else extents.push(extent);
}

function progress(
  bytesDone: number,
  bytesTotal: number,
): Parameters<NonNullable<JobOptions["onProgress"]>>[0] {
  return { phase: "comparing", bytesDone, bytesTotal, bytesNew: 0, bytesKnown: 0, bytesSparse: 0 };
}
