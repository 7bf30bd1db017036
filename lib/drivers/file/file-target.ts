// BlockTarget over image files and block devices.
import { type BigIntStats, constants } from "node:fs";
import { stat, unlink } from "node:fs/promises";
import path from "node:path";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { formatSize } from "#lib/core/size.ts";
import { usesOfBlockDevice, usesOfFile } from "#lib/drivers/linux/device-users.ts";
import { usesByQemu } from "#lib/drivers/linux/image-locks.ts";
import {
  blockDeviceSize,
  getAttribute,
  isReadOnlyDevice,
  sectorSize,
  setAttribute,
} from "#lib/drivers/linux/system-calls.ts";
import type { BlockTarget, Extent } from "#lib/ports/block-device.ts";
import { dataExtents } from "./data-extents.ts";
import {
  closeFile,
  errnoOf,
  flushFile,
  openFile,
  readAt,
  truncateOpenFile,
  writeAllAt,
} from "./file-calls.ts";
import { flushFolder } from "./flusher.ts";
import { refuseAmongDevices, refuseOwn, refuseTooSmall, refuseUsed } from "./target-checks.ts";
import { Zeroing } from "./zeroing.ts";

/** What a target is opened for. */
export interface FileTargetOptions {
  readonly url: string;
  readonly file: string;
  /** Bytes that will be restored. */
  readonly sizeBytes: number;
  /** Overwrite what is there. */
  readonly force: boolean;
  /** Folders and files of the repository itself: nothing is ever restored onto or into them. */
  readonly forbid: readonly string[];
  /** The restore that it is for: a file that an earlier try of the same restore has made is gone on with. */
  readonly restore?: string | undefined;
}

/** A BlockTarget with what the user should know about it. */
export interface RestoreTarget extends BlockTarget {
  /** Sentences, e.g. that a larger device keeps what lies behind the version. */
  readonly warnings: readonly string[];
}

/** The open target. */
interface Opened {
  readonly fd: number;
  readonly kind: "new" | "file" | "device";
  /** Everything not written reads as zero. */
  readonly blank: boolean;
  readonly warnings: readonly string[];
}

/**
 * Opens a target: a new file, or with `force` an existing file or a block device that nobody uses.
 * @throws AlreadyExists without `force`; Refused for a target in use, too small, or of the repository; Usage for a folder
 */
export async function openFileTarget(options: FileTargetOptions): Promise<RestoreTarget> {
  const { file } = options;
  refuseOwn(file, options.forbid);
  try {
    const found = await statIfThere(file);
    if (found === undefined) return new FileTarget(options, await openNew(options));
    if (!(await isOwnTry(options, found))) refuseUnlessForced(options, found);
    const opened = found.isFile() ? await openPresent(options) : await openDevice(options, found);
    return new FileTarget(options, opened);
  } catch (error) {
    throw fromSystemError(error, `opening the target ${file}`);
  }
}

async function statIfThere(file: string): Promise<BigIntStats | undefined> {
  try {
    return await stat(file, { bigint: true });
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Names the restore that has made a file: it stays with the file, for nobody knows whether the answer has arrived. */
const RESTORE_ATTRIBUTE = "user.ashlar.restore";

async function isOwnTry(
  { file, restore }: FileTargetOptions,
  found: BigIntStats,
): Promise<boolean> {
  if (restore === undefined || !found.isFile()) return false;
  const fd = await openFile(file, constants.O_RDONLY);
  try {
    return getAttribute(fd, RESTORE_ATTRIBUTE) === restore;
  } finally {
    await closeFile(fd);
  }
}

function refuseUnlessForced({ file, force }: FileTargetOptions, found: BigIntStats): void {
  if (!found.isFile() && !found.isBlockDevice()) {
    const kind = found.isDirectory() ? "a folder" : "neither a file nor a block device";
    throw new AshlarError(ErrorCode.Usage, `the target ${file} is ${kind}`, {
      remedy: "name a file or a block device, or - for a stream on the standard output",
    });
  }
  if (force) return;
  const what = found.isFile() ? "exists already" : "is a block device, whose content would be lost";
  throw new AshlarError(ErrorCode.AlreadyExists, `the target ${file} ${what}`, {
    remedy: "--force overwrites it",
  });
}

async function openNew({ file, sizeBytes, restore }: FileTargetOptions): Promise<Opened> {
  refuseAmongDevices(file);
  const fd = await openFile(file, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    if (restore !== undefined) setAttribute(fd, RESTORE_ATTRIBUTE, restore);
    await checkSizePossible(fd, sizeBytes);
  } catch (error) {
    await closeFile(fd);
    await unlink(file).catch(() => undefined);
    throw error;
  }
  return { fd, kind: "new", blank: true, warnings: [] };
}

/** A file system may not take files that large; that is better known now than after hours. */
async function checkSizePossible(fd: number, sizeBytes: number): Promise<void> {
  await truncateOpenFile(fd, sizeBytes);
  // Its size shows how far it got, until it is finished.
  await truncateOpenFile(fd, 0);
}

async function openPresent({ file, sizeBytes }: FileTargetOptions): Promise<Opened> {
  refuseUsed(file, usesOfFile(file));
  const fd = await openFile(file, constants.O_RDWR);
  try {
    refuseUsed(file, usesByQemu(fd));
    const { size } = await stat(file);
    if (size === 0) await checkSizePossible(fd, sizeBytes);
    return { fd, kind: "file", blank: size === 0, warnings: [] };
  } catch (error) {
    await closeFile(fd);
    throw error;
  }
}

async function openDevice(
  { file, sizeBytes }: FileTargetOptions,
  found: BigIntStats,
): Promise<Opened> {
  refuseUsed(file, usesOfBlockDevice(found.rdev));
  const fd = await openExclusively(file);
  try {
    if (isReadOnlyDevice(fd)) {
      throw new AshlarError(ErrorCode.Refused, `the target ${file} is read-only`, {
        remedy: "make it writable: blockdev --setrw",
      });
    }
    const deviceBytes = blockDeviceSize(fd);
    refuseTooSmall(file, deviceBytes, sizeBytes);
    return {
      fd,
      kind: "device",
      blank: false,
      warnings: tailWarnings(file, deviceBytes, sizeBytes),
    };
  } catch (error) {
    await closeFile(fd);
    throw error;
  }
}

/** O_EXCL on a block device: the kernel refuses one that is mounted or held, by whomever (open(2)). */
async function openExclusively(file: string): Promise<number> {
  try {
    return await openFile(file, constants.O_RDWR | constants.O_EXCL);
  } catch (error) {
    if (errnoOf(error) !== "EBUSY") throw error;
    throw new AshlarError(ErrorCode.Refused, `the target ${file} is in use`, {
      cause: error,
      remedy: "unmount it, or take it out of its volume group, array or mapping first",
    });
  }
}

function tailWarnings(file: string, deviceBytes: number, sizeBytes: number): string[] {
  if (deviceBytes === sizeBytes) return [];
  return [
    `${file} has ${formatSize(deviceBytes)}: what it holds behind the first ${formatSize(sizeBytes)} is left as it is`,
  ];
}

class FileTarget implements RestoreTarget {
  readonly url: string;
  readonly seekable = true;
  readonly blank: boolean;
  touched = false;
  readonly warnings: readonly string[];
  #isFinished = false;
  readonly #file: string;
  readonly #sizeBytes: number;
  readonly #fd: number;
  readonly #kind: Opened["kind"];
  readonly #zeroing: Zeroing;

  constructor(options: FileTargetOptions, { fd, kind, blank, warnings }: Opened) {
    this.url = options.url;
    this.blank = blank;
    this.warnings = warnings;
    this.#file = options.file;
    this.#sizeBytes = options.sizeBytes;
    this.#fd = fd;
    this.#kind = kind;
    this.#zeroing = new Zeroing(fd, options.file, kind === "device" ? sectorSize(fd) : 1);
  }

  async *extents(range: Extent): AsyncGenerator<Extent> {
    // A device does not tell.
    if (this.#kind === "device") yield range;
    else yield* dataExtents(this.#fd, this.#file, range);
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    this.touched = true;
    try {
      await writeAllAt(this.#fd, bytes, offset);
    } catch (error) {
      throw this.#failure(error, "writing", offset);
    }
  }

  async zero(extent: Extent, options: { readonly discard: boolean }): Promise<void> {
    // What was never written has no space either: there is nothing to discard.
    if (this.blank && options.discard) return;
    this.touched = true;
    await this.#zeroing.zero(extent, options.discard);
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    let done = 0;
    try {
      while (done < into.length) {
        const count = await readAt(this.#fd, into, done, into.length - done, offset + done);
        if (count === 0) break;
        done += count;
      }
    } catch (error) {
      throw this.#failure(error, "reading", offset + done);
    }
    into.fill(0, done);
  }

  async finish(): Promise<void> {
    try {
      // A file has the version's size then: what lay behind is not part of it.
      if (this.#kind !== "device") await truncateOpenFile(this.#fd, this.#sizeBytes);
      await flushFile(this.#fd);
      if (this.#kind === "new") await flushFolder(path.dirname(path.resolve(this.#file)));
      this.#isFinished = true;
    } catch (error) {
      throw fromSystemError(error, `finishing ${this.#file}`);
    }
  }

  async close(): Promise<void> {
    await closeFile(this.#fd);
    // An empty file would only be in the way of the next attempt.
    if (this.#kind === "new" && !this.#isFinished && !this.touched) {
      await unlink(this.#file).catch(() => undefined);
    }
  }

  #failure(error: unknown, action: string, offset: number): AshlarError {
    const remedy = errnoOf(error) === "ENOSPC" ? "make room, or restore somewhere else" : undefined;
    return fromSystemError(error, `${action} ${this.#file} at offset ${offset}`, {
      details: { offset },
      ...(remedy === undefined ? {} : { remedy }),
    });
  }
}
