// Compressions by name; adding one is a codec here and a number in proto/sealed-object.ts.
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import lz4 from "lz4-napi";
import type { Compression } from "#proto/sealed-object.ts";
import { freeMemory } from "./free-memory.ts";

/** A compression. Synchronous, for it runs on worker threads. */
interface Codec {
  /** Writes into `target` and returns how much, or undefined when it has no room for it. */
  compressInto(plain: Buffer, target: Buffer, level: number): number | undefined;
  /** Fills `target`, and never makes more than that; throws whatever it likes on bytes that do not fill it exactly. */
  decompressInto(stored: Buffer, target: Buffer): void;
}

// zstd's output buffer must have room to spare, or it is given a second one and both are joined by a copy.
const SPARE_BYTES = 1024;

/**
 * Level 1 looks back 512 KiB only, for matches of 7 bytes on. In blocks of 4 MiB the whole block, and 5 bytes, save 5 % of what
 * is stored on real data for a tenth of the speed; level 3 saves 7 % for two fifths.
 */
const LEVEL_1: Readonly<Record<number, number>> = {
  [constants.ZSTD_c_windowLog]: 22,
  [constants.ZSTD_c_minMatch]: 5,
};

const zstd: Codec = {
  compressInto(plain, target, level) {
    const output = zstdCompressSync(plain, {
      // Its worst case in one buffer: a quarter faster than the default of 16 KiB pieces that are joined.
      chunkSize: plain.length + (plain.length >>> 8) + SPARE_BYTES,
      pledgedSrcSize: plain.length,
      params: { [constants.ZSTD_c_compressionLevel]: level, ...(level === 1 ? LEVEL_1 : {}) },
    });
    return moveOutput(output, target);
  },
  decompressInto(stored, target) {
    const limits = {
      chunkSize: target.length + SPARE_BYTES,
      maxOutputLength: target.length,
      rejectGarbageAfterEnd: true,
    };
    const length = moveOutput(zstdDecompressSync(stored, limits), target);
    if (length !== target.length) throw new RangeError(`only ${length} bytes came out`);
  },
};

/** lz4 works on pieces of this size: the library's memory for larger ones is slow to get, and slow to be given back. */
const LZ4_PIECE_BYTES = 256 * 1024;
const U32_BYTES = 4;

const lz4Pieces: Codec = {
  compressInto(plain, target) {
    let end = 0;
    for (let from = 0; from < plain.length; from += LZ4_PIECE_BYTES) {
      const output = lz4.compressSync(plain.subarray(from, from + LZ4_PIECE_BYTES));
      if (end + U32_BYTES > target.length) return undefined;
      // Before the piece stands its length, without the plaintext length that the library puts first.
      target.writeUInt32LE(output.length - U32_BYTES, end);
      const length = moveOutput(output, target.subarray(end + U32_BYTES));
      if (length === undefined) return undefined;
      end += U32_BYTES + length;
    }
    return end;
  },
  decompressInto(stored, target) {
    let at = 0;
    for (let to = 0; to < target.length; to += LZ4_PIECE_BYTES) {
      const room = target.subarray(to, to + LZ4_PIECE_BYTES);
      const next = at + U32_BYTES * 2 + stored.readUInt32LE(at);
      // The library allocates what the piece says, so that is checked before.
      if (next > stored.length || stored.readUInt32LE(at + U32_BYTES) !== room.length) {
        throw new RangeError("a piece has a wrong length");
      }
      const length = moveOutput(lz4.uncompressSync(stored.subarray(at + U32_BYTES, next)), room);
      if (length !== room.length) throw new RangeError("a piece gave too little");
      at = next;
    }
    if (at !== stored.length) throw new RangeError("there are bytes behind the last piece");
  },
};

/** Copies a codec's output to where it belongs, when there is room, and frees it. */
function moveOutput(output: Buffer, target: Buffer): number | undefined {
  const { length } = output;
  const fits = length <= target.length;
  if (fits) target.set(output);
  freeMemory(output);
  return fits ? length : undefined;
}

const CODECS: Readonly<Record<Exclude<Compression, "none">, Codec>> = { zstd, lz4: lz4Pieces };

/** zstd level 1: on real data two thirds faster than 3 for 7 % more bytes. */
export const ZSTD_LEVEL_DEFAULT = 1;

// Compression is kept when it saves at least one part in 32 (3 %): less does not pay for unpacking at restore.
const SAVING_SHIFT = 5;
const keptBytesMax = (plainBytes: number): number =>
  Math.min(plainBytes - 1, plainBytes - (plainBytes >>> SAVING_SHIFT));

// A sample tells data that cannot be compressed (encrypted, media) at a fraction of the cost of trying all of a block.
// In 16 pieces, because blocks of disks mix files: measured on system files it misses 0.01 % of what could be saved.
const SAMPLED_BYTES_MIN = 64 * 1024;
const SAMPLE_PIECES = 16;
const SAMPLE_SHARE = 64;
const SAMPLE_BYTES_MIN = 8 * 1024;
const SAMPLE_BYTES_MAX = 64 * 1024;

/** Compresses what is worth it. Keeps a little state, so one per thread. */
export interface Compressor {
  /** Compresses into `target` and returns the length; undefined where the plaintext is to be stored as it is. */
  compressInto(plain: Buffer, target: Buffer): number | undefined;
}

/** Makes a compressor. `level` is zstd's. */
export function createCompressor(compression: Compression, level = ZSTD_LEVEL_DEFAULT): Compressor {
  if (compression === "none") return { compressInto: () => undefined };
  const codec = CODECS[compression];
  const tryInto = (plain: Buffer, target: Buffer): number | undefined =>
    codec.compressInto(plain, target.subarray(0, keptBytesMax(plain.length)), level);
  // Neighbouring blocks are alike: after one that was worth it the next is compressed without a sample, so that
  // compressible data pay nothing for the probe.
  let probe = true;
  const scratch = Buffer.alloc(SAMPLE_BYTES_MAX * 2);
  const looksRandom = (plain: Buffer): boolean => {
    const sample = takeSample(plain, scratch);
    return tryInto(sample, scratch.subarray(SAMPLE_BYTES_MAX)) === undefined;
  };
  return {
    compressInto(plain, target) {
      if (probe && plain.length >= SAMPLED_BYTES_MIN && looksRandom(plain)) return undefined;
      const length = tryInto(plain, target);
      probe = length === undefined;
      return length;
    },
  };
}

/** Copies pieces spread evenly over the block into `scratch` and returns them. */
function takeSample(plain: Buffer, scratch: Buffer): Buffer {
  const share = Math.floor(plain.length / SAMPLE_SHARE);
  const sampleBytes = Math.min(SAMPLE_BYTES_MAX, Math.max(SAMPLE_BYTES_MIN, share));
  const pieceBytes = Math.floor(sampleBytes / SAMPLE_PIECES);
  const strideBytes = Math.floor((plain.length - pieceBytes) / (SAMPLE_PIECES - 1));
  for (let index = 0; index < SAMPLE_PIECES; index += 1) {
    const from = index * strideBytes;
    plain.copy(scratch, index * pieceBytes, from, from + pieceBytes);
  }
  return scratch.subarray(0, pieceBytes * SAMPLE_PIECES);
}

/** Undoes a compression, filling `target`. Throws on anything but data that fill it exactly. */
export function decompressInto(
  compression: Exclude<Compression, "none">,
  stored: Buffer,
  target: Buffer,
): void {
  CODECS[compression].decompressInto(stored, target);
}
