// The Compute port's contract as tests; every driver runs them.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { Compute, Opened, OpenRequest, Piece, SealRequest } from "#lib/ports/compute.ts";
import { createTasks, type BlockTaskSetup } from "#lib/repository/block-tasks.ts";
import { createHasher } from "#lib/repository/hashing.ts";
import { createRepositoryKeys } from "#lib/repository/keys.ts";
import { createSealer, sealedBytesMax } from "#lib/repository/sealing.ts";
import { decodeSealed } from "#proto/sealed-object.ts";

/** How a driver takes part. */
export interface ComputeSuite {
  /** Makes a Compute over the block tasks with this setup. */
  open(setup: BlockTaskSetup): Compute;
}

const KEYS = createRepositoryKeys({ hash: "blake3", compression: "zstd" });
const HASHER = createHasher(KEYS);
const SETUP: BlockTaskSetup = { hash: KEYS, seal: { keys: KEYS, compression: "zstd" } };
const BLOCK = 4096;

const idOf = (plain: Uint8Array): string => HASHER.hashBlock(plain).toString("hex");
const kind = "block" as const;

/** Blocks that compress and blocks that do not, the last one short. */
const BLOCKS = [Buffer.alloc(BLOCK, "text "), randomBytes(BLOCK), randomBytes(100)];

function cut(out: Uint8Array, piece: Piece | Opened | undefined): Buffer {
  assert.ok(piece !== undefined && "offset" in piece);
  return Buffer.from(out.subarray(piece.offset, piece.offset + piece.length));
}

const sealRequests = (blocks: readonly Uint8Array[]): SealRequest[] =>
  blocks.map((plain) => ({ kind, id: idOf(plain), plain }));

/** Memory of each kind: of the pool, so shared where the driver has threads, and the test's own. */
function memories(compute: Compute): readonly ((bytes: number) => Promise<Uint8Array>)[] {
  return [
    async (bytes) => (await compute.pool(bytes + 8, 1).acquire()).bytes.subarray(8),
    async (bytes) => new Uint8Array(bytes + 8).subarray(8),
  ];
}

/** Runs the suite on a driver. */
export function describeCompute(name: string, suite: ComputeSuite): void {
  describe(`Compute: ${name}`, () => {
    let compute: Compute;
    before(() => {
      compute = suite.open(SETUP);
    });
    after(() => compute.close());

    it("hashes consecutive blocks, the last one short, and finds the zero ones", async () => {
      for (const memory of memories(compute)) {
        const bytes = await memory(3 * BLOCK + 10);
        bytes.set(BLOCKS[0] as Buffer, 0);
        bytes.set(BLOCKS[1] as Buffer, 2 * BLOCK);
        const { ids, zero } = await compute.hash(bytes, BLOCK);
        assert.ok(Buffer.isBuffer(ids));
        assert.deepEqual([...zero], [0, 1, 0, 1]);
        assert.equal(ids.length, 4 * 32);
        assert.equal(ids.toString("hex", 0, 32), idOf(BLOCKS[0] as Buffer));
        assert.equal(ids.toString("hex", 64, 96), idOf(BLOCKS[1] as Buffer));
        bytes[3 * BLOCK + 9] = 1;
        assert.deepEqual([...(await compute.hash(bytes, BLOCK)).zero], [0, 1, 0, 0]);
      }
    });

    it("calls a block zero only when its last byte is, too", async () => {
      const bytes = new Uint8Array(600_000);
      assert.deepEqual([...(await compute.hash(bytes, bytes.length)).zero], [1]);
      for (const at of [0, 1, 262_143, 262_144, 599_999]) {
        bytes.fill(0);
        bytes[at] = 1;
        assert.deepEqual([...(await compute.hash(bytes, bytes.length)).zero], [0], `byte ${at}`);
      }
    });

    it("hashes nothing to nothing", async () => {
      const { ids, zero } = await compute.hash(new Uint8Array(0), BLOCK);
      assert.deepEqual([ids.length, zero.length], [0, 0]);
    });

    it("seals one behind the other, and opens what it sealed", async () => {
      for (const memory of memories(compute)) {
        const plains = await Promise.all(
          BLOCKS.map(async (block) => {
            const bytes = await memory(block.length);
            bytes.set(block);
            return bytes;
          }),
        );
        const out = await memory(4 * sealedBytesMax(BLOCK));
        const pieces = await compute.seal(sealRequests(plains), out);
        assert.equal(pieces.length, BLOCKS.length);
        let end = 0;
        for (const piece of pieces) {
          assert.equal(piece.offset, end);
          end += piece.length;
        }
        const sealer = createSealer(KEYS, { compression: "none" });
        const requests = BLOCKS.map((block, index): OpenRequest => {
          const sealed = out.subarray(
            pieces[index]?.offset,
            (pieces[index]?.offset ?? 0) + (pieces[index]?.length ?? 0),
          );
          assert.deepEqual(sealer.open({ kind, id: idOf(block), sealed }), block);
          return { kind, id: idOf(block), sealed };
        });
        const target = await memory(3 * BLOCK);
        const opened = await compute.open(requests, target);
        for (const [index, block] of BLOCKS.entries())
          assert.deepEqual(cut(target, opened[index]), block);
        assert.deepEqual(
          opened.map((piece) => "offset" in piece && piece.offset),
          [0, BLOCK, 2 * BLOCK],
        );
      }
    });

    it("compresses each as it is asked to, else as it was set up", async () => {
      const plain = Buffer.alloc(BLOCK, "what is easily made smaller ");
      const id = idOf(plain);
      const out = new Uint8Array(4 * sealedBytesMax(BLOCK));
      const request = { kind, id, plain };
      const chosen = (by: string) => ({ kind, id, plain, compression: { name: by, level: 1 } });
      const pieces = await compute.seal([request, chosen("lz4"), chosen("none")], out);
      const found = pieces.map((piece) => decodeSealed(cut(out, piece)).header.compression);
      assert.deepEqual(found, ["zstd", "lz4", "none"]);
      await assert.rejects(compute.seal([chosen("brotli")], out), (error) =>
        isErrorCode(error, ErrorCode.Usage),
      );
    });

    it("seals and opens nodes as nodes", async () => {
      const plain = Buffer.from("a node");
      const id = HASHER.hashNode(plain).toString("hex");
      const out = new Uint8Array(sealedBytesMax(plain.length));
      const [piece] = await compute.seal([{ kind: "node", id, plain }], out);
      const sealed = cut(out, piece);
      const target = new Uint8Array(plain.length);
      assert.equal((await compute.open([{ kind: "node", id, sealed }], target))[0]?.ok, true);
      assert.deepEqual(Buffer.from(target), plain);
      assert.equal((await compute.open([{ kind, id, sealed }], target))[0]?.ok, false);
    });

    it("refuses to seal what is not what its id says, where it is to be verified", async () => {
      const out = new Uint8Array(2 * sealedBytesMax(BLOCK));
      const [first, second] = sealRequests(BLOCKS) as [SealRequest, SealRequest];
      const swapped = { ...first, plain: second.plain };
      await compute.seal([swapped], out);
      await compute.seal([{ ...first, verify: true }], out);
      const asNode = { ...first, kind: "node" as const };
      for (const wrong of [swapped, asNode]) {
        await assert.rejects(
          compute.seal(
            [
              { ...second, verify: true },
              { ...wrong, verify: true },
            ],
            out,
          ),
          (error) => isErrorCode(error, ErrorCode.Damaged) && error.details["id"] === first.id,
        );
      }
    });

    it("says what is wrong with an object, and opens the others", async () => {
      const sealer = createSealer(KEYS, { compression: "zstd" });
      const requests = sealRequests(BLOCKS).map((request): OpenRequest => ({
        kind,
        id: request.id,
        sealed: sealer.seal(request),
      }));
      const middle = requests[1]?.sealed as Uint8Array;
      middle[200] = (middle[200] as number) ^ 1;
      const out = new Uint8Array(3 * BLOCK);
      const opened = await compute.open(requests, out);
      assert.deepEqual(cut(out, opened[0]), BLOCKS[0]);
      assert.deepEqual(cut(out, opened[2]), BLOCKS[2]);
      const wrong = opened[1];
      assert.ok(wrong?.ok === false);
      assert.match(wrong.reason, /checksum/);
    });

    it("verifies without opening where that is asked for, beside others that it opens", async () => {
      const sealer = createSealer(KEYS, { compression: "zstd" });
      const [first, second, third] = sealRequests(BLOCKS).map((request): OpenRequest => ({
        kind,
        id: request.id,
        sealed: sealer.seal(request),
      }));
      assert.ok(first !== undefined && second !== undefined && third !== undefined);
      second.sealed[200] = (second.sealed[200] as number) ^ 1;
      const requests = [
        { ...first, verifyOnly: true },
        { ...second, verifyOnly: true },
        { ...first, id: third.id, verifyOnly: true },
        third,
      ];
      const out = new Uint8Array(BLOCK);
      const opened = await compute.open(requests, out);
      assert.deepEqual(opened[0], { ok: true, offset: 0, length: 0 });
      assert.deepEqual(
        opened.slice(1, 3).map((one) => !one.ok && /checksum|in its place/.test(one.reason)),
        [true, true],
      );
      assert.deepEqual(cut(out, opened[3]), BLOCKS[2]);
    });

    it("throws when the output has no room, and goes on afterwards", async () => {
      const requests = sealRequests([randomBytes(BLOCK)]);
      for (const memory of memories(compute)) {
        await assert.rejects(compute.seal(requests, await memory(BLOCK)), {
          code: ErrorCode.Internal,
        });
      }
      const out = new Uint8Array(sealedBytesMax(BLOCK));
      assert.equal((await compute.seal(requests, out)).length, 1);
    });

    it("runs many calls at once, each on its own memory", async () => {
      const pool = compute.pool(BLOCK, 8);
      await Promise.all(
        Array.from({ length: 100 }, async (_, index) => {
          const slot = await pool.acquire();
          slot.bytes.fill(index + 1);
          const expected = idOf(Buffer.alloc(BLOCK, index + 1));
          const { ids } = await compute.hash(slot.bytes, BLOCK);
          slot.release();
          assert.equal(ids.toString("hex"), expected);
        }),
      );
      assert.equal(pool.freeCount, 8);
    });

    it("finishes what is under way when it is closed, and refuses more", async () => {
      const other = suite.open(SETUP);
      const bytes = Buffer.alloc(BLOCK, 1);
      const hashing = Promise.all([1, 2, 3, 4, 5, 6].map(() => other.hash(bytes, BLOCK)));
      await Promise.all([other.close(), other.close()]);
      for (const { ids } of await hashing) assert.equal(ids.toString("hex"), idOf(bytes));
      await assert.rejects(other.hash(bytes, BLOCK), { code: ErrorCode.Internal });
    });

    it("with the keys of a reader hashes and does nothing else", async () => {
      const reader = suite.open({ hash: { hash: KEYS.hash, dedupKey: KEYS.dedupKey } });
      try {
        assert.equal(
          (await reader.hash(Buffer.from("x"), BLOCK)).ids.toString("hex"),
          idOf(Buffer.from("x")),
        );
        await assert.rejects(reader.seal([], new Uint8Array(0)), { name: "InvariantError" });
        await assert.rejects(reader.open([], new Uint8Array(0)), { name: "InvariantError" });
      } finally {
        await reader.close();
      }
    });

    it("gives the same ids as the tasks on their own", async () => {
      const bytes = randomBytes(10 * BLOCK);
      const { ids } = await compute.hash(bytes, BLOCK);
      assert.deepEqual(ids, createTasks(SETUP).hash(bytes, BLOCK).ids);
    });
  });
}
