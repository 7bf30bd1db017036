/**
 * The primitives one by one, on one thread, on blocks of an image that are in memory already: MB per
 * second each. They tell whether a machine, now, is the one that the figures of reference were taken on.
 *
 *   node bench/primitives.ts IMAGE BLOCK_BYTES
 */
import { createCipheriv, createSecretKey, randomBytes } from "node:crypto";
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { hashBlock, openObject, sealBlock } from "./limit-object.ts";

const SAMPLE_BYTES = 192 * 1024 * 1024;
const ROUNDS = 3;

/** MB per second of one thread. */
export interface Primitives {
  readonly hash: number;
  readonly compress: number;
  readonly decompress: number;
  readonly encrypt: number;
  /** Zero check, hash, compression, encryption, key wrap. */
  readonly chain: number;
  /** The way back: unwrap, decryption, decompression, hash. */
  readonly open: number;
  readonly ratio: number;
}

/** Blocks from all over the image. */
function sampleBlocks(image: string, blockBytes: number): Buffer[] {
  const { size } = statSync(image);
  const blockCount = Math.floor(size / blockBytes);
  const wanted = Math.min(blockCount, Math.ceil(SAMPLE_BYTES / blockBytes));
  const fd = openSync(image, "r");
  const blocks = Array.from({ length: wanted }, (_, index) => {
    const block = Buffer.alloc(blockBytes);
    readSync(fd, block, 0, blockBytes, Math.floor((index * blockCount) / wanted) * blockBytes);
    return block;
  });
  closeSync(fd);
  return blocks;
}

/** The best of some rounds: what the machine can do, with as little as possible of what disturbs it. */
function rate<T>(items: readonly T[], bytes: number, work: (item: T) => unknown): number {
  let best = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const startedAt = process.hrtime.bigint();
    for (const item of items) work(item);
    best = Math.max(best, bytes / 1e6 / (Number(process.hrtime.bigint() - startedAt) / 1e9));
  }
  return best;
}

function main(): void {
  const [image = "", blockText = ""] = process.argv.slice(2);
  const blockBytes = Number(blockText);
  const blocks = sampleBlocks(image, blockBytes);
  const bytes = blocks.length * blockBytes;
  const zero = Buffer.alloc(blockBytes);
  const compress = (block: Buffer): Buffer =>
    zstdCompressSync(block, {
      chunkSize: block.length + Math.floor(block.length / 256) + 1024,
      pledgedSrcSize: block.length,
      params: { [constants.ZSTD_c_compressionLevel]: 1 },
    });
  const compressed = blocks.map(compress);
  const objects = blocks.map((block, index) =>
    Buffer.concat(sealBlock(block, hashBlock(block), index)),
  );
  const key = createSecretKey(randomBytes(32));
  const nonce = randomBytes(12);
  const result: Primitives = {
    hash: rate(blocks, bytes, hashBlock),
    compress: rate(blocks, bytes, compress),
    decompress: rate(compressed, bytes, (block) =>
      zstdDecompressSync(block, { chunkSize: blockBytes + 64 }),
    ),
    encrypt: rate(blocks, bytes, (block) =>
      createCipheriv("aes-256-gcm", key, nonce).update(block),
    ),
    chain: rate(
      blocks,
      bytes,
      (block) => block.equals(zero) || sealBlock(block, hashBlock(block), 0),
    ),
    open: rate(objects, bytes, openObject),
    ratio: bytes / compressed.reduce((sum, block) => sum + block.length, 0),
  };
  console.log(JSON.stringify(result));
}

main();
