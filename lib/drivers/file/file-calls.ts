// Node's file functions as promises over plain descriptors, which cost a third of what FileHandles do.
import * as fs from "node:fs";
import { promisify } from "node:util";

/** Opens a file and gives its descriptor. */
export const openFile = promisify(fs.open);
export const closeFile = promisify(fs.close);
export const statOpenFile = promisify(fs.fstat);
export const flushData = promisify(fs.fdatasync);
export const flushFile = promisify(fs.fsync);
export const truncateOpenFile = promisify(fs.ftruncate);

/** Reads once; resolves with the number of bytes, 0 at the end. */
export function readAt(
  fd: number,
  into: Uint8Array,
  offset: number,
  length: number,
  position: number | null,
): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  fs.read(fd, into, offset, length, position, (error, count) =>
    error === null ? resolve(count) : reject(error),
  );
  return promise;
}

/** Writes all of `bytes`. */
export async function writeAllAt(
  fd: number,
  bytes: Uint8Array,
  position: number | null,
): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const at = position === null ? null : position + done;
    done += await writeAt(fd, bytes, done, bytes.length - done, at);
  }
}

function writeAt(
  fd: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  position: number | null,
): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  fs.write(fd, bytes, offset, length, position, (error, count) =>
    error === null ? resolve(count) : reject(error),
  );
  return promise;
}

/** The errno of an error by name, e.g. "ENOENT". */
export function errnoOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : undefined;
}
