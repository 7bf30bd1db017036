// Looks at a store's files before LMDB does: the lmdb module crashes the process when LMDB refuses to open them.
import {
  accessSync,
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fromSystemError } from "#lib/core/errors.ts";
import { makeFolders } from "#lib/drivers/system/make-folders.ts";
import { assertRoots } from "./lmdb-root.ts";

/** Name of the data file within the store's folder; LMDB gives it. */
export const DATA_FILE = "data.mdb";
/** Name of the lock file within the store's folder; LMDB gives it. */
export const LOCK_FILE = "lock.mdb";
/** Reader slots, over all processes: every running body holds one, and every process that writes. */
export const READERS_MAX = 2047;

/** The lock file's header and its slots. */
const LOCK_BYTES = 64 * (READERS_MAX + 4);
/** Address space for the map. It is sparse, so it costs nothing, and a map that is too small would be left behind. */
const MAP_BYTES_WANTED = 2 ** 40;
const MAP_BYTES_MIN = 2 ** 30;

/** Makes the folder; for reading only it must be there, with a store in it. */
export function prepareFolder(path: string, readOnly: boolean): void {
  try {
    if (readOnly) {
      // The lmdb module would make the folder also for reading.
      statSync(join(path, DATA_FILE));
      return;
    }
    const first = makeFolders(path, 0o700);
    if (first === undefined) return;
    // So that a power failure does not take away the folder, with all that is flushed within it.
    const top = dirname(resolve(first));
    for (let folder = dirname(resolve(path)); ; folder = dirname(folder)) {
      flushFolder(folder);
      if (folder === top) break;
    }
  } catch (error) {
    throw fromSystemError(error, `opening the metadata store ${path}`);
  }
}

/** Makes the names in a folder durable. */
export function flushFolder(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Throws where LMDB would fail. While nobody else opens the store, and this process does not have it open. */
export function prepareFiles(path: string, readOnly: boolean): void {
  try {
    const mode = readOnly ? constants.R_OK : constants.R_OK | constants.W_OK;
    accessSync(path, mode | constants.X_OK);
    const data = statSync(join(path, DATA_FILE), { throwIfNoEntry: false });
    if (data !== undefined) {
      accessSync(join(path, DATA_FILE), mode);
      // An empty one is as good as none: the machine went down when it had just been made.
      if (data.size > 0) checkData(path);
    }
    if (!readOnly) allocateLockFile(join(path, LOCK_FILE));
  } catch (error) {
    throw fromSystemError(error, `opening the metadata store ${path}`);
  }
}

/** How much address space to map. */
export function chooseMapBytes(): number {
  const limits = /^Max address space +(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"));
  if (limits === null) return MAP_BYTES_WANTED;
  // A limit, which most of what a process maps counts against. LMDB maps more when the data needs it.
  const size = /^VmSize:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"));
  const free = Number(limits[1]) - Number(size?.[1] ?? 0) * 1024;
  return Math.max(MAP_BYTES_MIN, 4096 * Math.floor(free / 2 / 4096));
}

function checkData(path: string): void {
  const fd = openSync(join(path, DATA_FILE), "r");
  try {
    assertRoots(fd, path);
  } finally {
    closeSync(fd);
  }
}

/**
 * Gives the lock file all its blocks. LMDB leaves it sparse and writes it through a map, so that on a full disk the
 * process that uses a slot for the first time would be killed (SIGBUS).
 */
function allocateLockFile(file: string): void {
  const fd = openSync(file, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    const { size } = fstatSync(fd);
    if (size >= LOCK_BYTES) return;
    // Behind what is there: another process may use it.
    writeSync(fd, Buffer.alloc(LOCK_BYTES - size), 0, undefined, size);
    fdatasyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
