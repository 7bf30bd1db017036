// LMDB's error codes as AshlarErrors.
import { AshlarError, ErrorCode, fromSystemError, isNoSpace } from "#lib/core/errors.ts";

/** LMDB's codes, from lmdb.h; positive ones are the system's errno. */
const Lmdb = {
  NotFound: -30_798,
  PageNotFound: -30_797,
  Corrupted: -30_796,
  Panic: -30_795,
  VersionMismatch: -30_794,
  Invalid: -30_793,
  MapFull: -30_792,
  ReadersFull: -30_790,
  TxnFull: -30_788,
  BadTxn: -30_782,
  BadValueSize: -30_781,
  Problem: -30_779,
} as const;

/** The errno numbers that a write to a file can end in, on every Linux architecture that Node runs on. */
const ERRNO_NAMES: Readonly<Record<number, string>> = {
  1: "EPERM",
  2: "ENOENT",
  5: "EIO",
  12: "ENOMEM",
  13: "EACCES",
  20: "ENOTDIR",
  21: "EISDIR",
  23: "ENFILE",
  24: "EMFILE",
  27: "EFBIG",
  28: "ENOSPC",
  30: "EROFS",
  122: "EDQUOT",
};

/**
 * Seen once, in another process, after a writer was killed: the first look at the list of free pages may fail. The
 * transaction is aborted and nothing is damaged; the next one starts from scratch and succeeds.
 */
const SPURIOUS: ReadonlySet<number> = new Set([
  Lmdb.NotFound,
  Lmdb.BadTxn,
  Lmdb.BadValueSize,
  Lmdb.Problem,
]);

const EINVAL = 22;

const DAMAGED: ReadonlySet<number> = new Set([
  Lmdb.PageNotFound,
  Lmdb.Corrupted,
  Lmdb.VersionMismatch,
  Lmdb.Invalid,
]);

const FULL: ReadonlySet<number> = new Set([28, 122, Lmdb.MapFull]);

/** What to do about a metadata store that cannot be read. */
export const DAMAGED_REMEDY =
  "Restore the folder from a copy made while nothing was running, or recreate it from a storage with `ashlar rebuild`.";

/** The numeric code that the lmdb module puts on its errors. */
export function lmdbCode(error: unknown): number | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return error instanceof Error && typeof code === "number" ? code : undefined;
}

/** Whether the same transaction is to be tried again at once. */
export function isSpurious(error: unknown): boolean {
  return SPURIOUS.has(lmdbCode(error) ?? 0);
}

/** Whether the disk, a quota or the map is full. */
export function isFull(error: unknown): boolean {
  return isNoSpace(error) || FULL.has(lmdbCode(error) ?? 0);
}

/** The error of a full disk or map. */
export function fullError(path: string, what: string, cause?: unknown): AshlarError {
  return new AshlarError(ErrorCode.Io, `the metadata store ${path} is full: ${what}`, {
    cause,
    remedy:
      "Make room on its file system or raise the limit. Restoring, removing versions and collecting still work: " +
      "they use space that is kept back.",
    details: { errno: "ENOSPC", path },
  });
}

/** Turns an error of the lmdb module into an {@link AshlarError}; others pass through. */
export function fromLmdbError(error: unknown, path: string): unknown {
  const code = lmdbCode(error);
  if (code === undefined) return error;
  if (FULL.has(code)) return fullError(path, (error as Error).message, error);
  const what = `the metadata store ${path}`;
  if (DAMAGED.has(code)) {
    const foreign = code === Lmdb.Invalid || code === Lmdb.VersionMismatch;
    return new AshlarError(
      ErrorCode.Damaged,
      foreign ? `${what} is damaged, or its files are not Ashlar's` : `${what} is damaged`,
      { cause: error, remedy: DAMAGED_REMEDY, details: { path, lmdb: code } },
    );
  }
  if (code === Lmdb.ReadersFull || code === Lmdb.TxnFull) {
    return new AshlarError(ErrorCode.TryAgain, `${what}: ${(error as Error).message}`, {
      cause: error,
      details: { path, lmdb: code },
    });
  }
  if (code === EINVAL) {
    // Its mutexes were taken apart by the last one to close, while this process opened it.
    return new AshlarError(ErrorCode.TryAgain, `${what}: its lock file is not set up`, {
      cause: error,
      details: { path },
    });
  }
  if (code > 0) {
    const named = Object.assign(new Error((error as Error).message), { code: ERRNO_NAMES[code] });
    return fromSystemError(named, what, { cause: error, details: { path } });
  }
  return new AshlarError(ErrorCode.Io, `${what}: ${(error as Error).message}`, {
    cause: error,
    remedy: "Start the process again; it opens the store anew.",
    details: { path, lmdb: code },
  });
}
