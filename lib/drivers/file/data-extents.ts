// Where a file has data, as the file system tells: everything else is a hole.
import { fromSystemError } from "#lib/core/errors.ts";
import { seekData, seekHole } from "#lib/drivers/linux/system-calls.ts";
import type { Extent } from "#lib/ports/block-device.ts";
import { errnoOf } from "./file-calls.ts";

/**
 * The extents of an open file that may hold data within `range`, ascending, not touching; what lies beyond the file's end is
 * in none. A file system that knows no holes says that everything is data.
 */
export function* dataExtents(fd: number, file: string, range: Extent): Generator<Extent> {
  const end = range.offset + range.length;
  let at = range.offset;
  // Held back until it is known not to touch the next one.
  let last: Extent | undefined;
  while (at < end) {
    const from = find(seekData, fd, file, at) ?? end;
    if (from >= end) break;
    const to = Math.min(end, find(seekHole, fd, file, from) ?? end);
    if (last !== undefined && last.offset + last.length === from) {
      last = { offset: last.offset, length: to - last.offset };
    } else {
      if (last !== undefined) yield last;
      last = { offset: from, length: to - from };
    }
    at = to;
  }
  if (last !== undefined) yield last;
}

function find(
  seek: (fd: number, offset: number) => number | undefined,
  fd: number,
  file: string,
  offset: number,
): number | undefined {
  try {
    return seek(fd, offset);
  } catch (error) {
    if (["EINVAL", "EOPNOTSUPP", "ENOTSUP"].includes(errnoOf(error) ?? "")) {
      return seek === seekData ? offset : undefined;
    }
    throw fromSystemError(error, `looking for holes in ${file} at offset ${offset}`, {
      details: { offset },
    });
  }
}
