// The BlobStore in a folder of a file system: local, or mounted from elsewhere.
import { closeSync, constants } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import { assert } from "#lib/core/assert.ts";
import type { AshlarError } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { blobNotFound, blobSizeWrong } from "#lib/drivers/blob-errors.ts";
import { checkBlobName, checkBlobPrefix } from "#lib/drivers/blob-name.ts";
import type { StorageMarker } from "#lib/drivers/storage-marker.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { BlobEntry, BlobStore, GetOptions, PutOptions } from "#lib/ports/blob-store.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import { errnoOf, openFile, readAt, statOpenFile } from "./file-calls.ts";
import { listObjects } from "./object-listing.ts";
import { storageError } from "./storage-errors.ts";
import { placeOf, TEMPORARY_FOLDER } from "./storage-layout.ts";
import { StoragePresence } from "./storage-presence.ts";
import { StorageWriter } from "./storage-writer.ts";
import { removeStaleFiles } from "./temporary-files.ts";

/** What a file storage keeps back for stamps, heads and keys, in bytes. */
export const DEFAULT_RESERVE_BYTES = 1024 * 1024;

/** Options of {@link openFileBlobStore}. */
export interface FileBlobStoreOptions {
  /** The storage's folder. */
  readonly path: string;
  /** The storage that must be there; without it any is taken. */
  readonly expectIdentity?: StorageId | undefined;
  /** Space kept back for puts with `reserve`; 0 keeps none. Default {@link DEFAULT_RESERVE_BYTES}. */
  readonly reserveBytes?: number | undefined;
  /** Nothing is ever changed: for looking at a storage that may belong to somebody else. */
  readonly readOnly?: boolean | undefined;
  readonly clock?: Clock | undefined;
  readonly random?: Random | undefined;
}

/** A BlobStore that is a folder. */
export interface FileBlobStore extends BlobStore {
  readonly marker: StorageMarker;
  /** The folder's absolute path. */
  readonly path: string;
}

/** Opens the storage at a path; Unavailable when its marker is not there, Refused when it is another one. */
export async function openFileBlobStore(options: FileBlobStoreOptions): Promise<FileBlobStore> {
  const root = path.resolve(options.path);
  const presence = await StoragePresence.open(root, options.expectIdentity);
  const clock = options.clock ?? systemClock();
  if (options.readOnly !== true) {
    // Litter is no reason not to open: the storage may be mounted read-only, or belong to another user.
    await removeStaleFiles(path.join(root, TEMPORARY_FOLDER), clock).catch(() => undefined);
  }
  const openWriter = (): Promise<StorageWriter> =>
    StorageWriter.open({
      root,
      presence,
      reserveBytes: options.reserveBytes ?? DEFAULT_RESERVE_BYTES,
      readOnly: options.readOnly ?? false,
      clock,
      random: options.random ?? systemRandom(),
    });
  return new FolderStore(root, presence, openWriter);
}

class FolderStore implements FileBlobStore {
  readonly capabilities = { createOnly: true, consistentListing: true };
  readonly path: string;
  readonly #presence: StoragePresence;
  readonly #openWriter: () => Promise<StorageWriter>;
  #writer: Promise<StorageWriter> | undefined;

  constructor(root: string, presence: StoragePresence, openWriter: () => Promise<StorageWriter>) {
    this.path = root;
    this.#presence = presence;
    this.#openWriter = openWriter;
  }

  get location(): string {
    return `file:${this.path}`;
  }

  get marker(): StorageMarker {
    return this.#presence.marker;
  }

  async put(name: string, bytes: Uint8Array, options: PutOptions): Promise<void> {
    checkBlobName(name);
    options.signal?.throwIfAborted();
    const writer = await this.#write();
    await writer.put(name, bytes, options);
  }

  async delete(names: readonly string[]): Promise<ReadonlyMap<string, Error>> {
    for (const name of names) checkBlobName(name);
    const writer = await this.#write();
    return writer.delete(names);
  }

  async get(name: string, options: GetOptions = {}): Promise<Uint8Array> {
    checkBlobName(name);
    options.signal?.throwIfAborted();
    const fd = await this.#find(name, (file) => openFile(file, constants.O_RDONLY));
    try {
      options.signal?.throwIfAborted();
      if (options.range !== undefined) return await this.#readRange(fd, name, options);
      if (options.into !== undefined) return await this.#readInto(fd, name, options.into);
      const { size } = await statOpenFile(fd);
      return await this.#readExactly(fd, name, Buffer.allocUnsafeSlow(size), 0);
    } catch (error) {
      options.signal?.throwIfAborted();
      throw this.#failure(error, name);
    } finally {
      // In place: closing what was only read waits for nothing.
      closeSync(fd);
    }
  }

  async stat(name: string): Promise<BlobEntry> {
    checkBlobName(name);
    const { size: sizeBytes } = await this.#find(name, (file) => stat(file));
    return { name, sizeBytes };
  }

  async *list(prefix: string, options: { signal?: AbortSignal } = {}): AsyncIterable<BlobEntry> {
    checkBlobPrefix(prefix);
    const checkPresent = (): Promise<void> => this.#presence.check();
    try {
      await checkPresent();
      yield* listObjects({ root: this.path, prefix, checkPresent, signal: options.signal });
      // A storage that went away meanwhile must not look like one with few objects.
      await checkPresent();
    } catch (error) {
      options.signal?.throwIfAborted();
      throw storageError(error, this.path, `listing ${prefix} of the storage ${this.path}`);
    }
  }

  async check(): Promise<void> {
    try {
      await this.#presence.checkByReading();
    } catch (error) {
      throw storageError(error, this.path, `looking at the storage ${this.path}`);
    }
  }

  async close(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    await (await writer?.catch(() => undefined))?.close();
  }

  /** The writing half, opened by the first change. */
  #write(): Promise<StorageWriter> {
    this.#writer ??= this.#openWriter().catch((error: unknown) => {
      // The next change tries again: the disk may be mounted writable by then.
      this.#writer = undefined;
      throw storageError(error, this.path, `writing to the storage ${this.path}`);
    });
    return this.#writer;
  }

  /** Does something with an object's file; NotFound only when the storage was there while the object was not. */
  async #find<T>(name: string, use: (file: string) => Promise<T>): Promise<T> {
    const file = path.join(this.path, placeOf(name).file);
    try {
      return await use(file);
    } catch (error) {
      if (!isMissing(error)) throw this.#failure(error, name);
    }
    await this.#presence.check();
    try {
      return await use(file);
    } catch (error) {
      throw isMissing(error) ? blobNotFound(this.location, name) : this.#failure(error, name);
    }
  }

  #readRange(fd: number, name: string, options: GetOptions): Promise<Uint8Array> {
    const { offset, length } = options.range ?? { offset: 0, length: 0 };
    assert((options.into?.length ?? length) >= length, "the buffer is as large as the range");
    const buffer = options.into?.subarray(0, length) ?? Buffer.allocUnsafeSlow(length);
    return this.#readExactly(fd, name, buffer, offset);
  }

  async #readExactly(
    fd: number,
    name: string,
    into: Uint8Array,
    offset: number,
  ): Promise<Uint8Array> {
    const count = await readAvailable(fd, into, offset);
    if (count < into.length) {
      throw blobSizeWrong(this.location, name, `has only ${offset + count} bytes`);
    }
    return into;
  }

  async #readInto(fd: number, name: string, into: Uint8Array): Promise<Uint8Array> {
    const count = await readAvailable(fd, into, 0);
    if (count < into.length) return into.subarray(0, count);
    const more = await readAt(fd, new Uint8Array(1), 0, 1, count);
    if (more > 0) throw blobSizeWrong(this.location, name, `has more than ${count} bytes`);
    return into;
  }

  #failure(error: unknown, name: string): AshlarError {
    return storageError(error, this.path, `reading object ${name} of the storage ${this.path}`);
  }
}

/** Reads until the buffer is full or the file ends; one call, for a file gives all that it has. */
async function readAvailable(fd: number, into: Uint8Array, offset: number): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const wanted = into.length - done;
    const count = await readAt(fd, into, done, wanted, offset + done);
    done += count;
    // Linux reads at most 2 GiB at once, so a full read of less is followed by another one.
    if (count < Math.min(wanted, READ_BYTES_MAX)) break;
  }
  return done;
}

const READ_BYTES_MAX = 0x7ffff000;

function isMissing(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "");
}
