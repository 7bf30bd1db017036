// Keeps the opening and closing of a store apart from commits, and from other openings. LMDB alone does not:
//
// - Who opens reads the number of the last transaction from the file, and a little later writes it into the lock file
//   that all share. A commit in between is undone by that: it is lost, or every process fails with MDB_PROBLEM until
//   all have closed, or crashes as its pages are used again. (A defect of the version in the lmdb module.)
// - Whoever opens first sets the lock file up; others wait for that in the kernel, and then take for granted that it was
//   done. Not so when the first was killed half way. Likewise the last one to close takes the mutexes apart.
//
// So who opens or closes shuts the door, waits for the commits that are under way, and is alone. A commit takes its
// lock at once or not at all: it must not wait, as nothing else runs in a process meanwhile.
import { closeSync, constants, openSync } from "node:fs";
import { join } from "node:path";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { isLocked, lockBytesShared, lockFile } from "#lib/drivers/linux/system-calls.ts";
import type { Pacing } from "#lib/drivers/optimistic/retry-queue.ts";

/** Locked by the one that opens or closes. Without it a store that is always written to could never be opened. */
const DOOR_FILE = "opening";
/** Locked by all that commit, together, and by the one that opens. */
const COMMIT_FILE = "committing";

const POLL_MS_MAX = 10;
const POLLS_MAX = 6000;

/** Runs `work` while no other process opens, closes or commits to the store in the folder `path`. */
export async function whileDoorIsShut<T>(
  path: string,
  pacing: Pacing,
  work: () => T | Promise<T>,
): Promise<T> {
  const locks: number[] = [];
  try {
    for (const name of [DOOR_FILE, COMMIT_FILE]) {
      const fd = openLockFile(join(path, name), constants.O_RDWR | constants.O_CREAT);
      // Where it cannot be written: the lock file of LMDB cannot be either, so nothing can go wrong with it.
      if (fd === undefined) continue;
      locks.push(fd);
      await lockInTime(fd, path, pacing);
    }
    return await work();
  } finally {
    // Closing gives the locks back; the commits' one first.
    for (const fd of locks.toReversed()) closeSync(fd);
  }
}

/** The door of one open store, for its commits. */
export class LmdbDoor {
  readonly #path: string;
  readonly #doorFd: number;

  /** The files are there: this process has opened the store with {@link whileDoorIsShut}. */
  constructor(path: string) {
    this.#path = path;
    this.#doorFd = openLockFile(join(path, DOOR_FILE), constants.O_RDONLY) ?? this.#missing();
  }

  /** Lets a commit in: what it calls afterwards. Undefined while somebody opens or closes the store. */
  enter(): (() => void) | undefined {
    if (isLocked(this.#doorFd)) return undefined;
    const fd = openLockFile(join(this.#path, COMMIT_FILE), constants.O_RDWR) ?? this.#missing();
    if (lockBytesShared(fd, 0, 1)) return () => closeSync(fd);
    closeSync(fd);
    return undefined;
  }

  close(): void {
    closeSync(this.#doorFd);
  }

  #missing(): never {
    throw new AshlarError(
      ErrorCode.Refused,
      `the locks of the metadata store ${this.#path} cannot be used`,
      { remedy: "Give this user the right to write to its folder.", details: { path: this.#path } },
    );
  }
}

async function lockInTime(fd: number, path: string, pacing: Pacing): Promise<void> {
  for (let polls = 1; !lockFile(fd); polls++) {
    if (polls > POLLS_MAX) {
      throw new AshlarError(
        ErrorCode.TryAgain,
        `another process has been opening or writing the metadata store ${path} for a long time`,
        {
          remedy: "See whether a process of Ashlar is stopped, and continue or end it.",
          details: { path },
        },
      );
    }
    await pacing.pause(1 + pacing.random.below(POLL_MS_MAX));
  }
}

function openLockFile(file: string, flags: number): number | undefined {
  try {
    return openSync(file, flags, 0o600);
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (code === "EROFS" || code === "EACCES") return undefined;
    throw fromSystemError(error, `opening ${file}`);
  }
}
