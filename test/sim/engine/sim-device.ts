// Devices of the simulated hosts: volumes with snapshots, as sources, and images that are restored onto, as targets. Contents
// never change in place, so what a source has opened is known for ever.
import { createHash } from "node:crypto";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { SeededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { BlockSource, BlockTarget } from "#lib/ports/block-device.ts";
import type { FaultPlan } from "./faults.ts";
import type { SimProcess } from "./sim-process.ts";

/** A content of a volume: one letter a block, `undefined` for zeros. */
export type Content = readonly (string | undefined)[];

/** The bytes of one block. */
export function blockBytesOf(letter: string | undefined, blockBytes: number): Buffer {
  if (letter === undefined) return Buffer.alloc(blockBytes);
  // Text that compresses somewhat, and starts with the letter for whoever reads a dump.
  return Buffer.alloc(blockBytes, `${letter}.${letter}/`);
}

/** The bytes of a content. */
export function imageOf(content: Content, blockBytes: number): Buffer {
  return Buffer.concat(content.map((letter) => blockBytesOf(letter, blockBytes)));
}

/** How long one read of a slow source takes at most, in ms. */
const SLOW_READ_MS_MAX = 8000;

/**
 * How long each read of a slow source takes, drawn anew each time; undefined for one that is not slow. Only where some blocks
 * of a leaf come seconds later than others does anything else happen, such as a removal and a collection, between the claim of
 * a block and the commit that names it.
 */
export function drawSlowReads(random: SeededRandom, share: number): (() => number) | undefined {
  if (share === 0 || !random.chance(share)) return undefined;
  return () => random.below(SLOW_READ_MS_MAX);
}

/** Opens a content as a source. */
export function openSimSource(
  process: SimProcess,
  faults: FaultPlan,
  device: {
    readonly url: string;
    readonly content: Content;
    readonly frozen: boolean;
    /** It is read once, forwards, and its size shows at its end. */
    readonly isStream: boolean;
    readonly blockBytes: number;
    /** How long the next read takes, in ms, where it takes longer than a step of the process. */
    readonly slowReads: (() => number) | undefined;
    readonly onClose: () => void;
  },
): BlockSource {
  const { url, content, frozen, isStream, blockBytes, slowReads } = device;
  const sizeBytes = content.length * blockBytes;
  const identity = frozen
    ? createHash("sha256").update(JSON.stringify(content)).digest("hex")
    : undefined;
  return {
    url,
    sizeBytes: isStream ? undefined : sizeBytes,
    seekable: !isStream,
    frozen,
    identity,
    warnings: [],
    async *extents(range) {
      await process.turn("extents");
      const last = Math.min(content.length, Math.ceil((range.offset + range.length) / blockBytes));
      for (let block = Math.floor(range.offset / blockBytes); block < last; block += 1) {
        if (content[block] === undefined) continue;
        const first = block;
        while (block + 1 < last && content[block + 1] !== undefined) block += 1;
        const from = Math.max(range.offset, first * blockBytes);
        const to = Math.min(range.offset + range.length, (block + 1) * blockBytes);
        yield { offset: from, length: to - from };
      }
    },
    async read(into, offset) {
      await process.turn("read source");
      if (slowReads !== undefined) await process.until(slowReads(), "slow source");
      if (faults.strikes("source-error")) {
        throw new AshlarError(ErrorCode.Io, `reading ${url} at offset ${offset}`, {
          details: { offset },
        });
      }
      const length = Math.min(into.length, Math.max(0, sizeBytes - offset));
      for (let done = 0; done < length;) {
        const at = offset + done;
        const block = blockBytesOf(content[Math.floor(at / blockBytes)], blockBytes);
        const part = block.subarray(at % blockBytes, (at % blockBytes) + length - done);
        into.set(part, done);
        done += part.length;
      }
      return length;
    },
    changed: () => Promise.resolve(undefined),
    close: () => {
      device.onClose();
      return Promise.resolve();
    },
  };
}

/** An image that is restored onto: it stays when a restore is stopped, and another one may open it again. */
export interface SimImage {
  readonly data: Buffer;
  /** A restore has come to its end on it. */
  isFinished: boolean;
}

/** An opening of an image; what is not written shows. */
export class SimTarget implements BlockTarget {
  readonly url: string;
  readonly seekable = true;
  readonly blank = false;
  touched = false;
  readonly #image: SimImage;
  readonly #process: SimProcess;
  readonly #onClose: () => void;

  constructor(process: SimProcess, url: string, image: SimImage, onClose: () => void) {
    this.#process = process;
    this.url = url;
    this.#image = image;
    this.#onClose = onClose;
  }

  async *extents(range: { readonly offset: number; readonly length: number }) {
    await this.#process.turn("extents");
    yield range;
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    await this.#process.turn("write target");
    this.touched = true;
    this.#image.data.set(bytes, offset);
  }

  async zero({ offset, length }: { readonly offset: number; readonly length: number }) {
    await this.#process.turn("zero target");
    this.touched = true;
    this.#image.data.fill(0, offset, offset + length);
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    await this.#process.turn("read target");
    into.set(this.#image.data.subarray(offset, offset + into.length));
  }

  async finish(): Promise<void> {
    await this.#process.turn("finish target");
    this.#image.isFinished = true;
  }

  close(): Promise<void> {
    this.#onClose();
    return Promise.resolve();
  }
}
