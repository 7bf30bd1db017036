// Makes parts of a file or block device read as zero, giving the space back where that is wished for and possible.
//
// Discarding (BLKDISCARD) is not used: what a device gives back after it is not promised to be zero. A hole is: on a block
// device the kernel punches one only where the device promises zeros, and says so where it does not.
import { fromSystemError } from "#lib/core/errors.ts";
import { punchHole, zeroRange } from "#lib/drivers/linux/system-calls.ts";
import type { Extent } from "#lib/ports/block-device.ts";
import { errnoOf, writeAllAt } from "./file-calls.ts";

/** One call covers at most this much: a device without such a command writes the zeros one by one. */
const CALL_BYTES_MAX = 256 * 1024 * 1024;

const ZEROS = Buffer.alloc(1024 * 1024);

/** The errors by which file systems and devices say that they cannot. */
const UNSUPPORTED: ReadonlySet<string> = new Set([
  "EOPNOTSUPP",
  "ENOTSUP",
  "ENOSYS",
  "EINVAL",
  "ENODEV",
]);

type Method = (fd: number, offset: number, length: number) => Promise<void>;

/** Zeroes parts of one open file or device. */
export class Zeroing {
  readonly #fd: number;
  readonly #file: string;
  readonly #alignment: number;
  readonly #unsupported = new Set<Method>();

  /** @param alignment of what the kernel zeroes: 1 for a file, a sector for a device */
  constructor(fd: number, file: string, alignment: number) {
    this.#fd = fd;
    this.#file = file;
    this.#alignment = alignment;
  }

  /** Makes the extent read as zero; with `discard` by a hole where possible. */
  async zero({ offset, length }: Extent, discard: boolean): Promise<void> {
    const end = offset + length;
    const alignedBegin = Math.ceil(offset / this.#alignment) * this.#alignment;
    const alignedEnd = Math.floor(end / this.#alignment) * this.#alignment;
    if (alignedBegin >= alignedEnd) {
      await this.#write(offset, end);
      return;
    }
    await this.#write(offset, alignedBegin);
    const methods = discard ? [punchHole, zeroRange] : [zeroRange];
    for (let at = alignedBegin; at < alignedEnd; at += CALL_BYTES_MAX) {
      await this.#call(methods, at, Math.min(alignedEnd, at + CALL_BYTES_MAX));
    }
    await this.#write(alignedEnd, end);
  }

  /** Tries the methods in their order, and writes zeros where none works. */
  async #call(methods: readonly Method[], offset: number, end: number): Promise<void> {
    for (const method of methods) {
      if (this.#unsupported.has(method)) continue;
      try {
        await method(this.#fd, offset, end - offset);
        return;
      } catch (error) {
        if (!UNSUPPORTED.has(errnoOf(error) ?? "")) throw this.#failure(error, offset);
        this.#unsupported.add(method);
      }
    }
    await this.#write(offset, end);
  }

  async #write(offset: number, end: number): Promise<void> {
    for (let at = offset; at < end; at += ZEROS.length) {
      try {
        await writeAllAt(this.#fd, ZEROS.subarray(0, Math.min(ZEROS.length, end - at)), at);
      } catch (error) {
        throw this.#failure(error, at);
      }
    }
  }

  #failure(error: unknown, offset: number): Error {
    return fromSystemError(error, `zeroing ${this.#file} at offset ${offset}`, {
      details: { offset },
    });
  }
}
