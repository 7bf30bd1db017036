// BlockSource over image files and block devices.
import { type BigIntStats, constants, fstat } from "node:fs";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { deviceIdentity, fileIdentity } from "#lib/drivers/linux/device-identity.ts";
import {
  type DeviceUse,
  sectorsChanged,
  usesOfBlockDevice,
  usesOfFile,
} from "#lib/drivers/linux/device-users.ts";
import { usesByQemu } from "#lib/drivers/linux/image-locks.ts";
import {
  adviseSequential,
  blockDeviceSize,
  isReadOnlyDevice,
} from "#lib/drivers/linux/system-calls.ts";
import type { BlockSource, Extent } from "#lib/ports/block-device.ts";
import { dataExtents } from "./data-extents.ts";
import { closeFile, openFile, readAt } from "./file-calls.ts";

/**
 * Opens an image file or block device for reading. `frozen`: the user says that it is a snapshot.
 * @throws NotFound, Refused (permissions), Usage (a folder or another kind of file)
 */
export async function openFileSource(
  url: string,
  file: string,
  options: { readonly frozen: boolean },
): Promise<BlockSource> {
  let fd: number | undefined;
  try {
    // Without waiting: opening a pipe would last until somebody writes to it.
    fd = await openFile(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const stat = await statFile(fd);
    if (!stat.isFile() && !stat.isBlockDevice()) throw notADevice(file, stat);
    adviseSequential(fd);
    return new FileSource(url, file, fd, stat, options.frozen);
  } catch (error) {
    if (fd !== undefined) await closeFile(fd);
    throw fromSystemError(error, `opening the source ${file}`);
  }
}

function notADevice(file: string, stat: BigIntStats): AshlarError {
  const kind = stat.isDirectory() ? "a folder" : "neither a file nor a block device";
  return new AshlarError(ErrorCode.Usage, `the source ${file} is ${kind}`, {
    remedy: "name a disk image or a block device, or - for a stream on the standard input",
  });
}

/** A file's state to the nanosecond, so that every write shows. */
function statFile(fd: number): Promise<BigIntStats> {
  const { promise, resolve, reject } = Promise.withResolvers<BigIntStats>();
  fstat(fd, { bigint: true }, (error, stat) => (error === null ? resolve(stat) : reject(error)));
  return promise;
}

class FileSource implements BlockSource {
  readonly url: string;
  readonly sizeBytes: number;
  readonly seekable = true;
  readonly frozen: boolean;
  readonly identity: string | undefined;
  readonly warnings: readonly string[];
  readonly #file: string;
  readonly #fd: number;
  readonly #opened: BigIntStats;
  readonly #isDevice: boolean;
  readonly #sectorsAtOpen: number | undefined;

  constructor(url: string, file: string, fd: number, stat: BigIntStats, frozen: boolean) {
    this.url = url;
    this.#file = file;
    this.#fd = fd;
    this.#opened = stat;
    this.#isDevice = stat.isBlockDevice();
    this.sizeBytes = this.#size(stat);
    this.frozen = frozen || (this.#isDevice && isReadOnlyDevice(fd));
    this.identity = this.#isDevice ? deviceIdentity(stat, this.sizeBytes) : fileIdentity(stat);
    this.warnings = this.#writers().map(
      (use) => `${file} ${use.sentence}: it may change while it is read`,
    );
    this.#sectorsAtOpen = this.#isDevice ? sectorsChanged(stat.rdev) : undefined;
  }

  async *extents(range: Extent): AsyncGenerator<Extent> {
    const length = Math.min(range.offset + range.length, this.sizeBytes) - range.offset;
    if (length <= 0) return;
    const within = { offset: range.offset, length };
    // A device does not tell.
    if (this.#isDevice) yield within;
    else yield* dataExtents(this.#fd, this.#file, within);
  }

  async read(into: Uint8Array, offset: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const at = offset + done;
      let count: number;
      try {
        count = await readAt(this.#fd, into, done, into.length - done, at);
      } catch (error) {
        throw fromSystemError(error, `reading ${this.#file} at offset ${at}`, {
          details: { offset: at },
        });
      }
      if (count === 0) throw this.#endedAt(at);
      done += count;
    }
    return done;
  }

  async changed(): Promise<string | undefined> {
    const stat = await statFile(this.#fd);
    const sizeBytes = this.#size(stat);
    if (sizeBytes !== this.sizeBytes) {
      return `the size of ${this.#file} changed from ${this.sizeBytes} to ${sizeBytes} bytes while it was read`;
    }
    return this.#isDevice ? this.#deviceChanged(stat) : this.#fileChanged(stat);
  }

  async close(): Promise<void> {
    await closeFile(this.#fd);
  }

  #size(stat: BigIntStats): number {
    return this.#isDevice ? blockDeviceSize(this.#fd) : Number(stat.size);
  }

  #fileChanged(stat: BigIntStats): string | undefined {
    const { mtimeNs, ctimeNs } = this.#opened;
    const isSame = stat.mtimeNs === mtimeNs && stat.ctimeNs === ctimeNs;
    return isSame ? undefined : `${this.#file} was written to while it was read`;
  }

  #deviceChanged(stat: BigIntStats): string | undefined {
    const sectors = sectorsChanged(stat.rdev);
    if (
      sectors !== undefined &&
      this.#sectorsAtOpen !== undefined &&
      sectors !== this.#sectorsAtOpen
    ) {
      return `${sectors - this.#sectorsAtOpen} sectors of ${this.#file} were written while it was read`;
    }
    if (this.warnings.length > 0) return undefined;
    const [writer] = this.#writers();
    return writer === undefined
      ? undefined
      : `${this.#file} ${writer.sentence} since it was opened`;
  }

  /** Who may write to it at this moment. */
  #writers(): DeviceUse[] {
    const uses = this.#isDevice
      ? usesOfBlockDevice(this.#opened.rdev)
      : [...usesOfFile(this.#file), ...usesByQemu(this.#fd)];
    // What merely stands on it need not be in use.
    const isWriting = new Set(["mounted", "swap", "opened"]);
    return uses.filter((use) => use.writable && isWriting.has(use.kind));
  }

  #endedAt(offset: number): AshlarError {
    return new AshlarError(
      ErrorCode.Io,
      `reading ${this.#file}: it ends at offset ${offset}, but had ${this.sizeBytes} bytes when it was opened`,
      {
        remedy: "back up a snapshot, or stop what is changing the source",
        details: { offset },
      },
    );
  }
}
