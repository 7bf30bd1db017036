// The one error type for what goes wrong in operation. A broken invariant is not one of these: see assert.ts.

/** Closed set of failure classes. Exit codes and retry decisions are derived from it, never from message text. */
export const ErrorCode = {
  /** The caller asked for something that makes no sense (bad argument, bad filter, bad rules). */
  Usage: "USAGE",
  /** Stored or supplied data is damaged or malformed: an object, a version, a hints file. */
  Damaged: "DAMAGED",
  /** The named thing does not exist. */
  NotFound: "NOT_FOUND",
  /** A storage or service is away, unmounted, or refuses service for now. */
  Unavailable: "UNAVAILABLE",
  /** A defect of Ashlar itself. */
  Internal: "INTERNAL",
  /** Something that must not be overwritten is there. */
  AlreadyExists: "ALREADY_EXISTS",
  /** Input or output failed: EIO, ENOSPC, short read. */
  Io: "IO",
  /** A passing condition: conflict, lease lost, other process busy. The same call may succeed later. */
  TryAgain: "TRY_AGAIN",
  /** Not allowed: wrong key, protected version, mounted target, permissions. */
  Refused: "REFUSED",
  /** The configuration is wrong. */
  Config: "CONFIG",
  /** A transaction lost against another one; the driver or caller retries. */
  Conflict: "CONFLICT",
  /** The session's token is no longer the valid one, or the session is not live. */
  Fenced: "FENCED",
  /** Stopped on request (signal, abort). */
  Cancelled: "CANCELLED",
} as const;
export type ErrorCode = (typeof ErrorCode)[keyof typeof ErrorCode];

/** The code of that name; Internal where a newer Ashlar has one that is not known here. */
export function asErrorCode(code: string): ErrorCode {
  return (Object.values(ErrorCode) as string[]).includes(code)
    ? (code as ErrorCode)
    : ErrorCode.Internal;
}

const RETRYABLE: ReadonlySet<ErrorCode> = new Set([
  ErrorCode.Unavailable,
  ErrorCode.TryAgain,
  ErrorCode.Conflict,
]);

/** What an {@link AshlarError} carries beside its message. */
export interface ErrorOptions {
  /** The error underneath; always kept. */
  readonly cause?: unknown;
  /** What the user can do about it: one sentence, shown below the message. */
  readonly remedy?: string;
  /** Machine-readable facts (offset in bytes, name, uid, storage). */
  readonly details?: Readonly<Record<string, unknown>>;
}

/** An operating failure: expected to happen, reported without a stack trace. */
export class AshlarError extends Error {
  override readonly name: string = "AshlarError";
  readonly code: ErrorCode;
  readonly remedy: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.remedy = options.remedy;
    this.details = options.details ?? {};
  }

  /** Whether the same call may succeed later without anybody's doing. */
  get retryable(): boolean {
    return RETRYABLE.has(this.code);
  }
}

/** True when `error` is an {@link AshlarError} of that code. */
export function isErrorCode(error: unknown, code: ErrorCode): error is AshlarError {
  return error instanceof AshlarError && error.code === code;
}

/** Whether an error says that something is full: a disk, a quota, the metadata. */
export function isNoSpace(error: unknown): error is AshlarError {
  return error instanceof AshlarError && error.details["errno"] === "ENOSPC";
}

const ERRNO_CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: ErrorCode.NotFound,
  ENOTDIR: ErrorCode.NotFound,
  ENXIO: ErrorCode.NotFound,
  EACCES: ErrorCode.Refused,
  EPERM: ErrorCode.Refused,
  EROFS: ErrorCode.Refused,
  EEXIST: ErrorCode.AlreadyExists,
  ENOTEMPTY: ErrorCode.AlreadyExists,
  EBUSY: ErrorCode.TryAgain,
  EAGAIN: ErrorCode.TryAgain,
  EMFILE: ErrorCode.TryAgain,
  ENFILE: ErrorCode.TryAgain,
  ENOTCONN: ErrorCode.Unavailable,
  EHOSTDOWN: ErrorCode.Unavailable,
  ESTALE: ErrorCode.Unavailable,
};

const ERRNO_WORDS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  EROFS: "the file system is read-only",
  ENOSPC: "no space left on the device",
  EDQUOT: "the disk quota is used up",
  EIO: "input/output error",
  EEXIST: "it exists already",
  EISDIR: "it is a directory",
  ENOTDIR: "a part of the path is not a directory",
  EFBIG: "the file is larger than this file system allows",
};

/** What helps, where the caller does not know better. */
const ERRNO_REMEDIES: Readonly<Record<string, string>> = {
  EACCES: "run as a user who may, or change the permissions",
  EPERM: "run as a user who may, or change the permissions",
  EROFS: "mount it read-write, or copy to where it can be written",
  ENOSPC: "make room on it",
  EDQUOT: "make room, or raise the quota",
  EMFILE: "raise the limit of open files (ulimit -n)",
};

/**
 * Turns an error of a system call into an {@link AshlarError}; one that is an AshlarError already passes through.
 * @param what the action and the thing, e.g. `reading /dev/vg/disk at offset 4096`
 */
export function fromSystemError(
  error: unknown,
  what: string,
  options: ErrorOptions = {},
): AshlarError {
  if (error instanceof AshlarError) return error;
  const errno = (error as { code?: unknown } | null)?.code;
  const code = typeof errno === "string" ? (ERRNO_CODES[errno] ?? ErrorCode.Io) : ErrorCode.Io;
  const remedy = typeof errno === "string" ? ERRNO_REMEDIES[errno] : undefined;
  const words =
    typeof errno === "string"
      ? `${ERRNO_WORDS[errno] ?? wordsOf(error as Error, errno)} (${errno})`
      : error instanceof Error
        ? error.message
        : String(error);
  return new AshlarError(code, `${what}: ${words}`, {
    ...(remedy === undefined ? {} : { remedy }),
    ...options,
    cause: error,
    details: { ...options.details, ...(typeof errno === "string" ? { errno } : {}) },
  });
}

/** Node's messages repeat the code, the call and the path: `ENXIO: no such device or address, open '/dev/tty'`. */
function wordsOf({ message }: Error, errno: string): string {
  const [words = message] = message.startsWith(`${errno}: `)
    ? message.slice(errno.length + 2).split(", ")
    : [message];
  return words;
}
