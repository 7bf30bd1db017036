// The room in a cache folder, which several processes share without talking to each other. Each takes an allowance: a file whose
// name says how much its owner may still write. Whoever takes one makes the file first, then counts everything that lies in the
// folder, allowances included, and deletes what was used least recently until all of it fits; only then does it write. So of two
// who take one at the same time at least one sees both, and objects and allowances together keep to the size.
import { readdir, stat, unlink, utimes, writeFile } from "node:fs/promises";
import path from "node:path";
import { Semaphore } from "#lib/core/semaphore.ts";
import { errnoOf } from "#lib/drivers/file/file-calls.ts";
import { makeFolders } from "#lib/drivers/system/make-folders.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import { isEntryFileName } from "./cache-entry.ts";

/** Options of {@link CacheSpace}. */
export interface CacheSpaceOptions {
  /** Made when it is needed, with what is missing above it. */
  readonly folder: string;
  readonly sizeBytes: number;
  readonly clock: Clock;
  readonly random: Random;
}

/** The part of the size that is taken at once: a larger one is counted less often, a smaller one leaves less unused. */
const ALLOWANCE_PART = 1 / 16;
/** An object above this part of the size is not worth what would have to go for it. */
const OBJECT_PART = 1 / 4;
/** Allowances and unfinished files that are so old have lost their process. */
const STALE_MS = 10 * 60_000;
/** A file takes a multiple of it on the disk. */
const DISK_UNIT_BYTES = 4096;
/** Files looked at at once. */
const LOOKS_MAX = 64;

const ALLOWANCE_FILE = /^\.room\.[0-9a-f]+\.(\d+)$/;
const UNFINISHED_FILE = /^\.part\.[0-9a-f]+\.\d+$/;

interface CachedFile {
  readonly path: string;
  readonly bytes: number;
  readonly usedMs: number;
}

interface Allowance {
  readonly file: string;
  /** In ms of the monotonic clock. */
  readonly takenMs: number;
  left: number;
}

/** Says what may be written into a cache folder, and makes room for it. */
export class CacheSpace {
  readonly #options: CacheSpaceOptions;
  readonly #turns = new Semaphore(1);
  readonly #word: string;
  #count = 0;
  #allowance: Allowance | undefined;

  constructor(options: CacheSpaceOptions) {
    this.#options = options;
    this.#word = options.random.bytes(8).toString("hex");
  }

  /** The path of a file that does not exist yet, for what is being written. */
  unfinished(): string {
    this.#count += 1;
    return path.join(this.#options.folder, `.part.${this.#word}.${this.#count}`);
  }

  /**
   * Whether a file of that size may be written now; false where it is too large to be worth it. The folder is there afterwards.
   * @throws the system's error
   */
  async take(fileBytes: number): Promise<boolean> {
    const { sizeBytes, clock } = this.#options;
    const bytes = onDisk(fileBytes);
    if (bytes > sizeBytes * OBJECT_PART) return false;
    return this.#turns.run(async () => {
      const held = this.#allowance;
      // Well before others take it for left behind.
      const isFresh = held !== undefined && clock.monotonic() - held.takenMs < STALE_MS / 2;
      const allowance =
        isFresh && held.left >= bytes
          ? held
          : await this.#renew(Math.max(bytes, Math.floor(sizeBytes * ALLOWANCE_PART)));
      allowance.left -= bytes;
      return true;
    });
  }

  /** Gives back what was taken and not used. */
  async giveBack(): Promise<void> {
    const held = this.#allowance;
    this.#allowance = undefined;
    if (held !== undefined) await unlink(held.file).catch(() => undefined);
  }

  async #renew(bytes: number): Promise<Allowance> {
    const { folder, clock } = this.#options;
    makeFolders(folder, 0o700);
    await this.giveBack();
    this.#count += 1;
    const file = path.join(folder, `.room.${this.#word}${this.#count.toString(16)}.${bytes}`);
    await writeFile(file, "", { flag: "wx", mode: 0o600 });
    const allowance = { file, takenMs: clock.monotonic(), left: bytes };
    this.#allowance = allowance;
    const nowS = clock.now() / 1000;
    await utimes(file, nowS, nowS);
    await this.#makeRoom();
    return allowance;
  }

  async #makeRoom(): Promise<void> {
    const { folder, sizeBytes } = this.#options;
    const names = await readdir(folder);
    const files: CachedFile[] = [];
    let usedBytes = 0;
    for (let at = 0; at < names.length; at += LOOKS_MAX) {
      const looked = await Promise.all(
        names.slice(at, at + LOOKS_MAX).map((name) => this.#look(name)),
      );
      for (const one of looked) {
        usedBytes += one?.bytes ?? 0;
        if (one !== undefined && isEntryFileName(path.basename(one.path))) files.push(one);
      }
    }
    if (usedBytes <= sizeBytes) return;
    for (const file of files.toSorted((a, b) => a.usedMs - b.usedMs)) {
      await removeIfThere(file.path);
      usedBytes -= file.bytes;
      if (usedBytes <= sizeBytes) return;
    }
  }

  /** What a file takes; undefined where it is not ours, is gone, or has lost its process and is removed. */
  async #look(name: string): Promise<CachedFile | undefined> {
    const allowed = ALLOWANCE_FILE.exec(name)?.[1];
    const isPassing = allowed !== undefined || UNFINISHED_FILE.test(name);
    if (!isPassing && !isEntryFileName(name)) return undefined;
    const file = path.join(this.#options.folder, name);
    try {
      const { size, mtimeMs } = await stat(file);
      if (isPassing && this.#options.clock.now() - mtimeMs > STALE_MS) {
        await removeIfThere(file);
        return undefined;
      }
      const bytes = allowed === undefined ? onDisk(size) : Number(allowed);
      return { path: file, bytes, usedMs: mtimeMs };
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }
}

function onDisk(bytes: number): number {
  return Math.ceil(bytes / DISK_UNIT_BYTES) * DISK_UNIT_BYTES;
}

/** Another process may make room at the same time. */
async function removeIfThere(file: string): Promise<void> {
  try {
    await unlink(file);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}
