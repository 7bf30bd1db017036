// What went wrong with a file storage, in the words of the BlobStore port, with what can be done about it.
import { InvariantError } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { errnoOf } from "./file-calls.ts";
import { isFull } from "./space-reserve.ts";

/** The file system, or the way to it, is gone. */
const AWAY_ERRNOS: ReadonlySet<string> = new Set([
  "ESTALE",
  "ENOTCONN",
  "ETIMEDOUT",
  "EHOSTDOWN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ECONNABORTED",
  "ECONNREFUSED",
  "ECONNRESET",
  "ENODEV",
  "ENXIO",
]);

/** Turns an error of a system call on a file storage into an AshlarError; one that is one already passes through. */
export function storageError(error: unknown, root: string, what: string): AshlarError {
  if (error instanceof AshlarError) return error;
  if (error instanceof InvariantError) throw error;
  const errno = errnoOf(error) ?? "";
  if (AWAY_ERRNOS.has(errno)) {
    return new AshlarError(
      ErrorCode.Unavailable,
      `${what}: the storage ${root} is away (${errno})`,
      {
        cause: error,
        remedy: `see whether the file system that holds ${root} is mounted and answers`,
        details: { errno },
      },
    );
  }
  const remedy = remedyOf(error, errno, root);
  return fromSystemError(error, what, remedy === undefined ? {} : { remedy });
}

function remedyOf(error: unknown, errno: string, root: string): string | undefined {
  if (isFull(error)) {
    return `make room on the file system of ${root}, or remove versions and run \`ashlar gc\``;
  }
  if (errno === "EROFS") return `mount the file system of ${root} writable`;
  if (errno === "EACCES" || errno === "EPERM") {
    return `run as the user that owns ${root}, or give this user access to it`;
  }
  if (errno === "EIO") return `look for disk errors in the kernel's log (dmesg) about ${root}`;
  return undefined;
}
