// A folder that keeps objects of one storage as they were read. Nothing rests on it: what is damaged or cannot be read is as good
// as not there, what cannot be written is left out, and a process that dies leaves at most litter that is removed later.
import { closeSync, constants, futimes } from "node:fs";
import { rename, unlink } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import {
  closeFile,
  errnoOf,
  openFile,
  readAt,
  statOpenFile,
  writeAllAt,
} from "#lib/drivers/file/file-calls.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Log } from "#lib/ports/log.ts";
import type { Random } from "#lib/ports/random.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";
import { ENTRY_HEADER_BYTES, entryFileName, entryHeader, isWhole } from "./cache-entry.ts";
import { CacheSpace } from "./cache-space.ts";

/** Options of {@link ObjectCache}. */
export interface ObjectCacheOptions {
  /** Of this storage alone; several processes may use it. Made when it is needed. */
  readonly folder: string;
  /** What all that lies in it may take on the disk, in bytes. */
  readonly sizeBytes: number;
  /** The storage's name, for messages and metrics. */
  readonly storage: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly telemetry: Telemetry;
  readonly log: Log;
}

/** After a failure nothing is written for so long, in ms: a disk that was full often still is. */
const PAUSE_MS = 60_000;

const touch = promisify(futimes);

type Outcome = "hit" | "miss" | "damaged";

/** Keeps objects. No method ever fails. */
export class ObjectCache {
  readonly #options: ObjectCacheOptions;
  readonly #space: CacheSpace;
  #pausedUntilMs = -Infinity;
  #hasWarned = false;

  constructor(options: ObjectCacheOptions) {
    this.#options = options;
    this.#space = new CacheSpace(options);
  }

  /** The object as it was written, in `into` where that is given; undefined where it is not there whole, or does not fit. */
  async read(name: string, into?: Uint8Array): Promise<Uint8Array | undefined> {
    const { telemetry, storage } = this.#options;
    let outcome: Outcome = "miss";
    try {
      const found = await this.#read(name, into);
      if (found === "damaged") await this.remove([name]);
      outcome = typeof found === "string" ? found : "hit";
      return typeof found === "string" ? undefined : found;
    } catch (error) {
      this.#warn("read", error);
      return undefined;
    } finally {
      telemetry.count("ashlar.cache.reads", 1, { storage, outcome });
    }
  }

  async #read(name: string, into: Uint8Array | undefined): Promise<Uint8Array | Outcome> {
    let fd: number;
    try {
      fd = await openFile(this.#place(name), constants.O_RDONLY);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return "miss";
      throw error;
    }
    try {
      const length = (await statOpenFile(fd)).size - ENTRY_HEADER_BYTES;
      if (length < 0) return "damaged";
      // The storage says what is wrong with an object that is larger than the caller thinks.
      if (into !== undefined && into.length < length) return "miss";
      const header = Buffer.alloc(ENTRY_HEADER_BYTES);
      const bytes = into?.subarray(0, length) ?? Buffer.allocUnsafeSlow(length);
      await readAt(fd, header, 0, header.length, 0);
      const count = length === 0 ? 0 : await readAt(fd, bytes, 0, length, ENTRY_HEADER_BYTES);
      if (count < length || !isWhole(header, name, bytes)) return "damaged";
      await this.#use(fd).catch(() => undefined);
      return bytes;
    } finally {
      // In place: closing what was only read waits for nothing.
      closeSync(fd);
    }
  }

  /** Keeps the object, in the place of what was used least recently. Resolves when the caller may use its memory again. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    if (this.#options.clock.monotonic() < this.#pausedUntilMs) return;
    try {
      if (!(await this.#space.take(ENTRY_HEADER_BYTES + bytes.length))) return;
      await this.#write(name, bytes);
    } catch (error) {
      this.#pausedUntilMs = this.#options.clock.monotonic() + PAUSE_MS;
      // The folder may have gone; it is made together with the next allowance.
      await this.#space.giveBack();
      this.#warn("written", error);
    }
  }

  async #write(name: string, bytes: Uint8Array): Promise<void> {
    const unfinished = this.#space.unfinished();
    const { O_WRONLY, O_CREAT, O_EXCL } = constants;
    const fd = await openFile(unfinished, O_WRONLY | O_CREAT | O_EXCL, 0o600);
    try {
      try {
        await writeAllAt(fd, entryHeader(name, bytes), 0);
        await writeAllAt(fd, bytes, ENTRY_HEADER_BYTES);
        await this.#use(fd);
      } finally {
        await closeFile(fd);
      }
      // Never flushed: what a power failure leaves of it does not fit its checksum.
      await rename(unfinished, this.#place(name));
    } catch (error) {
      await unlink(unfinished).catch(() => undefined);
      throw error;
    }
  }

  /** Forgets objects; those that are not there, too. */
  async remove(names: readonly string[]): Promise<void> {
    for (const name of names) {
      try {
        await unlink(this.#place(name));
      } catch (error) {
        if (errnoOf(error) !== "ENOENT") this.#warn("changed", error);
      }
    }
  }

  /** What is kept stays. */
  async close(): Promise<void> {
    await this.#space.giveBack();
  }

  #place(name: string): string {
    return path.join(this.#options.folder, entryFileName(name));
  }

  /** Whichever way the file system is mounted: times of access are often not kept. */
  async #use(fd: number): Promise<void> {
    const nowS = this.#options.clock.now() / 1000;
    await touch(fd, nowS, nowS);
  }

  #warn(what: string, error: unknown): void {
    const { log, storage, folder } = this.#options;
    if (this.#hasWarned) return;
    this.#hasWarned = true;
    const reason = error instanceof Error ? error.message : String(error);
    log.warn(
      `the cache of storage ${storage} at ${folder} cannot be ${what} (${reason}): reads go on without it`,
    );
  }
}
