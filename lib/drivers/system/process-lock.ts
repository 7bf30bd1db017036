// A lock that the kernel gives back when its process ends, however it ends: so a dead process is noticed at once, and
// no lock is ever left behind. Locks belong to an open file (F_OFD_SETLK): another opening in the same process counts as
// someone else, and whether one is held can be asked without taking it, which with flock would get in a taker's way.
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  statSync,
  unlinkSync,
} from "node:fs";
import path from "node:path";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { isLocked, lockFile } from "#lib/drivers/linux/system-calls.ts";

/** A lock that is held until it is released or the process ends. */
export interface ProcessLock {
  readonly path: string;
  /** Gives it back and removes its file. Further calls do nothing. */
  release(): void;
}

/** Somebody may remove the file between its opening and its locking; that often in a row nobody does. */
const ATTEMPTS_MAX = 100;

/** Takes the lock that `file` stands for, making the file and (not those around it) its folder; TryAgain when a live process holds it. */
export function takeProcessLock(file: string): ProcessLock {
  try {
    makeFolder(path.dirname(file));
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const fd = tryToLock(file);
      if (fd !== undefined) return heldLock(file, fd);
    }
  } catch (error) {
    throw fromSystemError(error, `locking ${file}`);
  }
  assert(false, `the lock file ${file} stays where it is for a moment`);
}

/** Whether some live process, this one included, holds the lock. */
export function isLockHeld(file: string): boolean {
  let fd: number;
  try {
    fd = openSync(file, constants.O_RDONLY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw fromSystemError(error, `looking at the lock ${file}`);
  }
  try {
    return isLocked(fd);
  } catch (error) {
    throw fromSystemError(error, `looking at the lock ${file}`);
  } finally {
    closeSync(fd);
  }
}

/** The descriptor that holds the lock; undefined when the file was removed meanwhile, so that its lock is worth nothing. */
function tryToLock(file: string): number | undefined {
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT, 0o600);
  let locked = false;
  try {
    if (!lockFile(fd)) {
      throw new AshlarError(ErrorCode.TryAgain, `${file} is locked by another process`);
    }
    locked = isStillThere(file, fd);
  } finally {
    if (!locked) closeSync(fd);
  }
  return locked ? fd : undefined;
}

function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, 0o700);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

function isStillThere(file: string, fd: number): boolean {
  const mine = fstatSync(fd, { bigint: true });
  const there = statSync(file, { bigint: true, throwIfNoEntry: false });
  return there?.ino === mine.ino && there.dev === mine.dev;
}

function heldLock(file: string, fd: number): ProcessLock {
  let held = true;
  return {
    path: file,
    release: () => {
      if (!held) return;
      held = false;
      try {
        // While the lock is still held: who opens the file before this notices that it is gone, and makes a new one.
        unlinkSync(file);
      } catch {
        // A file that stays behind is an unlocked lock.
      }
      closeSync(fd);
    },
  };
}
