import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import { zstdCompressSync } from "node:zlib";
import * as fc from "fast-check";
import { createCompressor, decompressInto } from "./compression.ts";

const METHODS = ["zstd", "lz4"] as const;
const MIB = 1024 * 1024;

function compress(method: "none" | "zstd" | "lz4", plain: Buffer): Buffer | undefined {
  const target = Buffer.alloc(plain.length);
  const length = createCompressor(method).compressInto(plain, target);
  return length === undefined ? undefined : target.subarray(0, length);
}

function decompress(method: "zstd" | "lz4", stored: Buffer, plainBytes: number): Buffer {
  const plain = Buffer.alloc(plainBytes);
  decompressInto(method, stored, plain);
  return plain;
}

/** Compressible to a known share: random bytes, then one byte repeated. */
function mixed(bytes: number, randomShare: number): Buffer {
  const plain = Buffer.alloc(bytes, "text ");
  randomBytes(Math.floor(bytes * randomShare)).copy(plain);
  return plain;
}

for (const method of METHODS) {
  describe(`compression: ${method}`, () => {
    it("comes back as it was, at sizes around its pieces", () => {
      const piece = 256 * 1024;
      for (const size of [100, 65_536, piece - 1, piece, piece + 1, 2 * piece, MIB + 77]) {
        const plain = mixed(size, 0.3);
        const stored = compress(method, plain);
        assert.ok(stored !== undefined && stored.length < size, `${size}`);
        assert.deepEqual(decompress(method, stored, size), plain);
      }
    });

    it("is not kept where it saves less than one part in 32", () => {
      assert.equal(compress(method, randomBytes(300)), undefined);
      assert.equal(compress(method, randomBytes(MIB)), undefined);
      assert.equal(compress(method, Buffer.from([1])), undefined);
      assert.equal(compress(method, mixed(65_536, 0.98)), undefined);
      assert.ok(compress(method, mixed(65_536, 0.9)) !== undefined);
    });

    it("looks at a block in many places before it gives up", () => {
      const plain = randomBytes(4 * MIB);
      for (let at = MIB / 8; at < plain.length; at += MIB / 2) plain.fill(7, at, at + MIB / 4);
      assert.ok(compress(method, plain) !== undefined);
    });

    it("does not look at samples after a block that was worth it", () => {
      const [pieces, pieceBytes] = [16, 4096];
      const plain = Buffer.alloc(4 * MIB, 7);
      for (let index = 0; index < pieces; index += 1) {
        const at = index * Math.floor((plain.length - pieceBytes) / (pieces - 1));
        randomBytes(pieceBytes).copy(plain, at);
      }
      const compressor = createCompressor(method);
      const target = Buffer.alloc(plain.length);
      assert.equal(compressor.compressInto(plain, target), undefined);
      assert.ok(compressor.compressInto(mixed(MIB, 0.5), target) !== undefined);
      assert.ok(compressor.compressInto(plain, target) !== undefined);
    });

    it("goes on compressing after random data", () => {
      const compressor = createCompressor(method);
      const target = Buffer.alloc(MIB);
      const kept = [
        randomBytes(MIB),
        mixed(MIB, 0.5),
        mixed(MIB, 0.5),
        randomBytes(MIB),
        mixed(MIB, 0.5),
      ].map((plain) => compressor.compressInto(plain, target) !== undefined);
      assert.deepEqual(kept, [false, true, true, false, true]);
    });

    it("gives up where there is no room, and writes nothing outside", () => {
      const room = Buffer.alloc(200, 0xaa);
      assert.equal(
        createCompressor(method).compressInto(mixed(5000, 0.5), room.subarray(50, 150)),
        undefined,
      );
      assert.deepEqual(room.subarray(150), Buffer.alloc(50, 0xaa));
    });

    it("refuses data that do not give exactly the size that they should", () => {
      const plain = mixed(600_000, 0.2);
      const stored = compress(method, plain);
      assert.ok(stored !== undefined);
      for (const size of [plain.length - 1, plain.length + 1, 10, 2 * plain.length]) {
        assert.throws(() => decompress(method, stored, size));
      }
      assert.throws(() => decompress(method, stored.subarray(0, -1), plain.length));
      assert.throws(() =>
        decompress(method, Buffer.concat([stored, Buffer.from("tail")]), plain.length),
      );
    });

    it("never does more than throw on garbage", () => {
      const stored = compress(method, mixed(2000, 0.2));
      assert.ok(stored !== undefined);
      const garbage = fc.oneof(
        fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
        fc
          .tuple(fc.nat({ max: stored.length - 1 }), fc.integer({ min: 1, max: 255 }))
          .map(([at, flip]) => {
            const bytes = Buffer.from(stored);
            bytes[at] = (bytes[at] as number) ^ flip;
            return bytes;
          }),
      );
      fc.assert(
        fc.property(garbage, (bytes) => {
          try {
            assert.equal(decompress(method, bytes, 2000).length, 2000);
          } catch (error) {
            assert.ok(error instanceof Error);
          }
        }),
        { numRuns: 500 },
      );
    });
  });
}

describe("compression", () => {
  it("is bounded: a bomb is refused after the bytes that were expected", () => {
    const bomb = zstdCompressSync(Buffer.alloc(64 * MIB));
    assert.ok(bomb.length < 100_000);
    // The runtime stops at the first piece of output that is too much.
    assert.throws(() => decompress("zstd", bomb, MIB), { code: "ERR_BUFFER_TOO_LARGE" });
    const lz4Bomb = Buffer.alloc(100);
    lz4Bomb.writeUInt32LE(92, 0);
    lz4Bomb.writeUInt32LE(0xfffffff0, 4);
    assert.throws(() => decompress("lz4", lz4Bomb, MIB));
  });

  it("none keeps everything as it is", () => {
    assert.equal(compress("none", Buffer.alloc(1000)), undefined);
  });
});
