// The writing half of a file storage: puts and deletes, made durable in groups.
import { link, mkdir, rename, unlink } from "node:fs/promises";
import path from "node:path";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { Semaphore } from "#lib/core/semaphore.ts";
import { blobExists, readOnlyError } from "#lib/drivers/blob-errors.ts";
import { renameExclusive } from "#lib/drivers/linux/system-calls.ts";
import type { PutOptions } from "#lib/ports/blob-store.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import { CommitGroup } from "./commit-group.ts";
import { errnoOf } from "./file-calls.ts";
import { Flusher } from "./flusher.ts";
import { ObjectWriter } from "./object-writer.ts";
import { isFull, SpaceReserve } from "./space-reserve.ts";
import { storageError } from "./storage-errors.ts";
import { type ObjectPlace, placeOf, RESERVE_FILE, TEMPORARY_FOLDER } from "./storage-layout.ts";
import type { StoragePresence } from "./storage-presence.ts";
import { TemporaryFiles } from "./temporary-files.ts";

/** What a writer needs. */
export interface StorageWriterOptions {
  /** The storage's folder. */
  readonly root: string;
  readonly presence: StoragePresence;
  readonly reserveBytes: number;
  readonly readOnly: boolean;
  readonly clock: Clock;
  readonly random: Random;
}

/** Puts under way at once: each may hold a descriptor. */
const PUTS_MAX = 64;
/** Files deleted in one group, and at once within it. */
const DELETE_GROUP_COUNT = 256;
const DELETES_MAX = 16;
/** How long to wait before the reserve is filled up again: a disk that was full often still is. */
const REFILL_PAUSE_MS = 30_000;

/** Changes the objects of a file storage. */
export class StorageWriter {
  readonly #root: string;
  readonly #presence: StoragePresence;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #flusher: Flusher;
  readonly #group: CommitGroup;
  readonly #reserve: SpaceReserve;
  readonly #writer = new ObjectWriter();
  readonly #putTurns = new Semaphore(PUTS_MAX);
  readonly #deleteTurns = new Semaphore(DELETES_MAX);
  readonly #underWay = new Set<Promise<unknown>>();
  #temporaries: TemporaryFiles | undefined;
  #refill: Promise<void> = Promise.resolve();
  #refillAtMs = -Infinity;

  private constructor(options: StorageWriterOptions) {
    this.#root = options.root;
    this.#presence = options.presence;
    this.#clock = options.clock;
    this.#random = options.random;
    this.#flusher = new Flusher(options.root, options.clock);
    this.#group = new CommitGroup(this.#flusher, () => options.presence.check());
    this.#reserve = new SpaceReserve(path.join(options.root, RESERVE_FILE), options.reserveBytes);
  }

  /** Makes ready for writing. */
  static async open(options: StorageWriterOptions): Promise<StorageWriter> {
    if (options.readOnly) throw readOnlyError(options.root);
    // Before anything is made: nothing may be left in the folder that a file system is to be mounted on.
    await options.presence.check();
    const writer = new StorageWriter(options);
    // Without a reserve it works as well, for as long as there is room.
    await writer.#reserve.fill().catch(() => undefined);
    return writer;
  }

  /** Puts an object as the port says. */
  put(name: string, bytes: Uint8Array, options: PutOptions): Promise<void> {
    return this.#track(this.#put(name, bytes, options));
  }

  /** Deletes objects; the result names those that could not be. */
  delete(names: readonly string[]): Promise<Map<string, Error>> {
    return this.#track(this.#delete(names));
  }

  /** Ends when what is under way has ended. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#underWay);
    await this.#refill;
    this.#temporaries?.close();
    this.#flusher.close();
  }

  async #track<T>(work: Promise<T>): Promise<T> {
    this.#underWay.add(work);
    try {
      return await work;
    } finally {
      this.#underWay.delete(work);
    }
  }

  async #put(name: string, bytes: Uint8Array, options: PutOptions): Promise<void> {
    const place = placeOf(name);
    try {
      while (!(await this.#tryPut(place, bytes, options)));
    } catch (error) {
      options.signal?.throwIfAborted();
      if (errnoOf(error) === "EEXIST") throw blobExists(`file:${this.#root}`, name);
      throw await this.#failure(error, `putting object ${name} into the storage ${this.#root}`);
    }
    if (options.reserve !== true) this.#startRefill();
  }

  async #delete(names: readonly string[]): Promise<Map<string, Error>> {
    const failures = new Map<string, Error>();
    for (let at = 0; at < names.length; at += DELETE_GROUP_COUNT) {
      const group = names.slice(at, at + DELETE_GROUP_COUNT);
      try {
        await this.#group.commit({ apply: () => this.#deleteFiles(group, failures) });
      } catch (error) {
        const failure = await this.#failure(error, `deleting from the storage ${this.#root}`);
        for (const name of group) failures.set(name, failure);
      }
    }
    return failures;
  }

  /** False when the disk was full, and some of the reserve was given back for another try. */
  async #tryPut(place: ObjectPlace, bytes: Uint8Array, options: PutOptions): Promise<boolean> {
    try {
      await this.#putTurns.run(() => this.#putOnce(place, bytes, options), options.signal);
      return true;
    } catch (error) {
      if (options.reserve !== true || !isFull(error)) throw error;
      if (!(await this.#reserve.release(bytes.length))) throw error;
      return false;
    }
  }

  async #putOnce(place: ObjectPlace, bytes: Uint8Array, options: PutOptions): Promise<void> {
    const temporary = await this.#temporary();
    try {
      const fd = await this.#writer.write(temporary, bytes);
      // From here on it is done whether or not anybody still wants it: it shares its flush with others.
      const move = (file: string): Promise<void> =>
        options.mode === "create" ? moveExclusive(temporary, file) : rename(temporary, file);
      await this.#group.commit({ fd, apply: () => this.#place(place, move) });
    } catch (error) {
      // After a failed move it is still there; after a failed write perhaps.
      await unlink(temporary).catch(() => undefined);
      throw error;
    }
  }

  /** The path of a new file. Only puts need one: on a full disk, deleting must work without making anything. */
  async #temporary(): Promise<string> {
    if (this.#temporaries === undefined) await this.#presence.check();
    const folder = path.join(this.#root, TEMPORARY_FOLDER);
    this.#temporaries ??= TemporaryFiles.open(folder, this.#random);
    return this.#temporaries.next();
  }

  /** Moves a file to its place, making the folders on the way; gives the folders that have to be flushed. */
  async #place(place: ObjectPlace, move: (file: string) => Promise<void>): Promise<string[]> {
    const file = path.join(this.#root, place.file);
    const folder = path.dirname(file);
    try {
      await move(file);
      return [folder];
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
    }
    const parents = await this.#makeFolders(place.folders);
    await move(file);
    return [folder, ...parents];
  }

  /** Gives the folders around them: also where another process was faster, for it may not have flushed them yet. */
  async #makeFolders(folders: readonly string[]): Promise<string[]> {
    await this.#presence.check();
    const paths = folders.map((folder) => path.join(this.#root, folder));
    for (const folder of paths) {
      try {
        await mkdir(folder, 0o700);
      } catch (error) {
        if (errnoOf(error) !== "EEXIST") throw error;
      }
    }
    return paths.map((folder) => path.dirname(folder));
  }

  async #deleteFiles(names: readonly string[], failures: Map<string, Error>): Promise<string[]> {
    const folders = new Set<string>();
    const deleteOne = async (name: string): Promise<void> => {
      const file = path.join(this.#root, placeOf(name).file);
      try {
        await unlink(file);
        folders.add(path.dirname(file));
      } catch (error) {
        if (["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) return;
        failures.set(name, storageError(error, this.#root, `deleting object ${name}`));
      }
    };
    await Promise.all(names.map((name) => this.#deleteTurns.run(() => deleteOne(name))));
    return [...folders];
  }

  #startRefill(): void {
    const nowMs = this.#clock.monotonic();
    if (this.#reserve.isWhole || nowMs < this.#refillAtMs) return;
    this.#refillAtMs = nowMs + REFILL_PAUSE_MS;
    // What goes wrong with it is seen by the put that needs it.
    this.#refill = this.#refill.then(() => this.#reserve.fill()).catch(() => undefined);
  }

  async #failure(error: unknown, what: string): Promise<AshlarError> {
    if (["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) {
      try {
        await this.#presence.check();
      } catch (absence) {
        return storageError(absence, this.#root, what);
      }
      return new AshlarError(ErrorCode.Io, `${what}: a file or folder of it has disappeared`, {
        cause: error,
        remedy: `see what else changes the files in ${this.#root}`,
      });
    }
    return storageError(error, this.#root, what);
  }
}

/** Gives a file its name unless the name is taken (EEXIST). */
async function moveExclusive(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (!["EPERM", "EOPNOTSUPP", "ENOTSUP", "ENOSYS"].includes(errnoOf(error) ?? "")) throw error;
    // No hard links here (FAT, some network file systems).
    renameExclusive(from, to);
    return;
  }
  // Removed at the next opening if not now.
  await unlink(from).catch(() => undefined);
}
