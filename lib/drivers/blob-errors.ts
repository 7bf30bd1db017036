// What every BlobStore driver says when an object is not there, or shorter than asked for.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { LockedObject } from "#lib/ports/blob-store.ts";

/** The object is surely not there. */
export function blobNotFound(location: string, name: string): AshlarError {
  return new AshlarError(ErrorCode.NotFound, `${location} has no object ${name}`, {
    details: { name },
  });
}

/** The name is taken. */
export function blobExists(location: string, name: string): AshlarError {
  return new AshlarError(ErrorCode.AlreadyExists, `${location} has an object ${name} already`, {
    details: { name },
  });
}

/** The object has not the size that it must have. */
export function blobSizeWrong(location: string, name: string, problem: string): AshlarError {
  return new AshlarError(ErrorCode.Damaged, `object ${name} at ${location} ${problem}`, {
    details: { name },
  });
}

/** The object cannot be deleted yet. */
export function blobLocked(location: string, name: string, locked: LockedObject): AshlarError {
  const until = new Date(locked.untilMs).toISOString();
  return new AshlarError(
    ErrorCode.Refused,
    `object ${name} at ${location} is locked until ${until}`,
    {
      details: { name, locked },
    },
  );
}

/** The storage was opened for reading only. */
export function readOnlyError(location: string): AshlarError {
  return new AshlarError(ErrorCode.Refused, `the storage ${location} is open for reading only`);
}
