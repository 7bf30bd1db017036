// Names for unfinished objects, and the removal of those that a process left behind when it died. The names of one open
// storage begin with a random word, under which it holds a lock; no lock, nobody at work.
import { readdir, rm, stat, statfs } from "node:fs/promises";
import path from "node:path";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { takeProcessLock, type ProcessLock } from "#lib/drivers/system/process-lock.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";

/** On file systems where a lock may not reach other hosts, only what nobody has touched for so long is left behind. */
const STALE_AGE_MS = 60 * 60 * 1000;

/** `f_type` of file systems that belong to one host: ext, xfs, btrfs, tmpfs, zfs, f2fs, bcachefs, overlay. */
const LOCAL_FILE_SYSTEMS: ReadonlySet<number> = new Set([
  0xef53, 0x58465342, 0x9123683e, 0x01021994, 0x2fc12fc1, 0xf2f52010, 0xca451a4e, 0x794c7630,
]);

const LOCK_SUFFIX = ".lock";
const NAME_ATTEMPTS_MAX = 10;

/** The unfinished objects of one open storage. */
export class TemporaryFiles {
  readonly #folder: string;
  readonly #word: string;
  readonly #lock: ProcessLock | undefined;
  #count = 0;

  private constructor(folder: string, word: string, lock: ProcessLock | undefined) {
    this.#folder = folder;
    this.#word = word;
    this.#lock = lock;
  }

  /** Takes a word and its lock; where the file system has no locks, the word alone must do. */
  static open(folder: string, random: Random): TemporaryFiles {
    for (let attempt = 1; ; attempt++) {
      const word = random.bytes(8).toString("hex");
      try {
        const lock = takeProcessLock(path.join(folder, `${word}${LOCK_SUFFIX}`));
        return new TemporaryFiles(folder, word, lock);
      } catch (error) {
        if (isErrorCode(error, ErrorCode.TryAgain) && attempt < NAME_ATTEMPTS_MAX) continue;
        // As the file system said it: whoever asked for the storage knows what to say about it.
        if (!isLockUnsupported(error)) throw error instanceof AshlarError ? error.cause : error;
        return new TemporaryFiles(folder, word, undefined);
      }
    }
  }

  /** The path of a file that does not exist yet. */
  next(): string {
    this.#count += 1;
    return path.join(this.#folder, `${this.#word}.${this.#count}`);
  }

  close(): void {
    this.#lock?.release();
  }
}

function isLockUnsupported(error: unknown): boolean {
  const errno = error instanceof AshlarError ? error.details["errno"] : undefined;
  return ["ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS", "EINVAL"].includes(String(errno));
}

/** Removes what dead processes left in the folder. */
export async function removeStaleFiles(folder: string, clock: Clock): Promise<void> {
  const byWord = new Map<string, string[]>();
  for (const file of await readdir(folder)) {
    const [word = ""] = file.split(".");
    if (/^[0-9a-f]{16}$/.test(word)) byWord.set(word, [...(byWord.get(word) ?? []), file]);
  }
  if (byWord.size === 0) return;
  const isLocal = LOCAL_FILE_SYSTEMS.has((await statfs(folder)).type);
  for (const [word, files] of byWord) await removeWord(folder, word, files, isLocal, clock);
}

async function removeWord(
  folder: string,
  word: string,
  files: readonly string[],
  isLocal: boolean,
  clock: Clock,
): Promise<void> {
  const paths = files.map((file) => path.join(folder, file));
  if (!isLocal && !(await areOld(paths, clock))) return;
  let lock: ProcessLock;
  try {
    // Taken, not asked for: whoever is about to begin under this word sees that it is not free.
    lock = takeProcessLock(path.join(folder, `${word}${LOCK_SUFFIX}`));
  } catch (error) {
    if (isErrorCode(error, ErrorCode.TryAgain)) return;
    throw error;
  }
  try {
    for (const file of paths) if (file !== lock.path) await rm(file, { force: true });
  } finally {
    lock.release();
  }
}

async function areOld(paths: readonly string[], clock: Clock): Promise<boolean> {
  for (const file of paths) {
    const { mtimeMs } = await stat(file);
    if (clock.now() - mtimeMs < STALE_AGE_MS) return false;
  }
  return true;
}
