// Differences between versions, against a comparison of the bytes.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlockId, VersionUid } from "#lib/core/ids.ts";
import { openMemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { key } from "#lib/repository/keyspace.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import { levelsFor, NODE_FAN_OUT } from "#lib/repository/tree.ts";
import { encodeNode } from "#proto/node.ts";
import { createHash } from "node:crypto";
import { diffVersions, type ChangedExtent } from "./diff.ts";

const BLOCK_BYTES = 512;

/** Contents of blocks by index: a number is data, what is absent is zero. */
type Blocks = ReadonlyMap<number, number>;

const idOf = (bytes: Uint8Array): BlockId =>
  createHash("sha256").update(bytes).digest("hex") as BlockId;

/** Writes the tree of a device; answers a version of it. */
async function version(
  kv: Kv,
  name: string,
  blocks: Blocks,
  count: number,
  tail = 0,
): Promise<VersionRecord> {
  const levels = levelsFor(count);
  let ids = new Map([...blocks].map(([index, content]) => [index, idOf(Buffer.of(content))]));
  for (let level = 0; level < levels; level += 1) {
    const nodes = new Map<number, (BlockId | undefined)[]>();
    if (level === levels - 1) nodes.set(0, []);
    for (const [index, id] of ids) {
      const at = Math.floor(index / NODE_FAN_OUT);
      const children = nodes.get(at) ?? [];
      nodes.set(at, children);
      children[index % NODE_FAN_OUT] = id;
    }
    ids = new Map();
    for (const [index, children] of nodes) {
      const plain = encodeNode({ level, children: Array.from(children) });
      ids.set(index, idOf(plain));
      await kv.transact(async (tx) => {
        tx.set(key.node(idOf(plain)), plain);
        await Promise.resolve();
      });
    }
  }
  return {
    uid: name as VersionUid,
    blockBytes: BLOCK_BYTES,
    sizeBytes: count * BLOCK_BYTES - tail,
    levels,
    root: ids.get(0),
  } as VersionRecord;
}

async function diff(kv: Kv, from: VersionRecord, to: VersionRecord): Promise<ChangedExtent[]> {
  return Array.fromAsync(diffVersions(kv, from, to));
}

/** What the difference must be. */
function expected(from: Blocks, to: Blocks): { index: number; exists: boolean }[] {
  return [...new Set([...from.keys(), ...to.keys()])]
    .filter((index) => from.get(index) !== to.get(index))
    .sort((a, b) => a - b)
    .map((index) => ({ index, exists: to.has(index) }));
}

function asBlocks(extents: readonly ChangedExtent[]): { index: number; exists: boolean }[] {
  return extents.flatMap(({ offset, length, exists }) =>
    Array.from({ length: Math.ceil(length / BLOCK_BYTES) }, (_, at) => ({
      index: offset / BLOCK_BYTES + at,
      exists,
    })),
  );
}

describe("diff", () => {
  it("names exactly the blocks that differ, for trees of any two heights", async () => {
    // Heights 1, 2 and 3.
    const count = fc.constantFrom(1, 3, 256, 257, 5000, 65_536, 65_537, 200_000);
    const blocks = (below: number) =>
      fc.array(fc.tuple(fc.integer({ min: 0, max: below - 1 }), fc.integer({ min: 1, max: 3 })), {
        maxLength: 20,
      });
    const device = count.chain((size) =>
      fc.record({ count: fc.constant(size), blocks: blocks(size).map((pairs) => new Map(pairs)) }),
    );
    await fc.assert(
      fc.asyncProperty(device, device, fc.boolean(), async (a, b, shared) => {
        const kv = openMemoryKv();
        // Most of the second device is often that of the first.
        const second = shared
          ? new Map([...a.blocks].filter(([index]) => index < b.count).concat([...b.blocks]))
          : b.blocks;
        const from = await version(kv, "a", a.blocks, a.count);
        const to = await version(kv, "b", second, b.count);
        assert.deepEqual(asBlocks(await diff(kv, from, to)), expected(a.blocks, second));
        assert.deepEqual(await diff(kv, from, from), []);
      }),
      { numRuns: 60 },
    );
  });

  it("merges neighbours and ends at the end of a short last block", async () => {
    const kv = openMemoryKv();
    const from = await version(kv, "a", new Map([[0, 1]]), 4, 100);
    const to = await version(
      kv,
      "b",
      new Map([
        [2, 1],
        [3, 2],
      ]),
      4,
      100,
    );
    assert.deepEqual(await diff(kv, from, to), [
      { offset: 0, length: 512, exists: false },
      { offset: 1024, length: 924, exists: true },
    ]);
  });

  it("reads only what differs", async () => {
    const kv = openMemoryKv();
    const same = Array.from({ length: 5000 }, (_, index) => [index, 1] as const);
    const from = await version(kv, "a", new Map(same), 5000);
    const to = await version(kv, "b", new Map([...same, [4000, 2]]), 5000);
    let reads = 0;
    const counting: Kv = {
      ...kv,
      read: (body) => {
        reads += 1;
        return kv.read(body);
      },
      transact: (body) => kv.transact(body),
      flush: () => kv.flush(),
      close: () => kv.close(),
    };
    await diff(counting, from, to);
    assert.equal(reads, 4, "two roots and two leaves");
  });

  it("refuses different block sizes, unfinished versions, and says which node is missing", async () => {
    const kv = openMemoryKv();
    const one = await version(kv, "a", new Map([[0, 1]]), 1);
    await assert.rejects(diff(kv, one, { ...one, blockBytes: 1024 }), (error) =>
      isErrorCode(error, ErrorCode.Usage),
    );
    await assert.rejects(diff(kv, one, { ...one, root: undefined }), (error) =>
      isErrorCode(error, ErrorCode.TryAgain),
    );
    const lost = { ...one, root: idOf(Buffer.of(9)) };
    await assert.rejects(diff(kv, one, lost), (error) => isErrorCode(error, ErrorCode.Damaged));
  });
});
