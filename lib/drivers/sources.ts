// The kinds of sources. Adding one is a file and a line here.
import { createReadStream, fstatSync } from "node:fs";
import type { Readable } from "node:stream";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockSource } from "#lib/ports/block-device.ts";
import { parseLocation } from "./location.ts";
import { openFileSource } from "./file/file-source.ts";
import { streamSource } from "./file/stream-source.ts";

/** How a source is opened. */
export interface OpenSourceOptions {
  /** The user says that it is a snapshot, which cannot change. */
  readonly frozen: boolean;
}

const FILE_PIECE_BYTES = 1024 * 1024;

/** Opens a source of one kind. */
type Opener = (url: string, rest: string, options: OpenSourceOptions) => Promise<BlockSource>;

const KINDS: Readonly<Record<string, Opener>> = {
  file: openFileSource,
  "-": async (url) => streamSource(url, standardInput()),
};

/** Opens `file:PATH`, a bare path, a block device, or `-` (stdin). Usage for a scheme that nobody knows. */
export async function openSource(url: string, options: OpenSourceOptions): Promise<BlockSource> {
  const { kind, rest } = parseLocation(url, "source", KINDS);
  return kind(url, rest, options);
}

function standardInput(): Readable {
  const { stdin } = process;
  if (stdin.isTTY) {
    throw new AshlarError(
      ErrorCode.Usage,
      "the source is - (the standard input), which is a terminal",
      { remedy: "pipe a stream into it: `rbd export IMAGE - | ashlar backup - VOLUME`" },
    );
  }
  // A file is read in larger pieces than process.stdin would.
  const { fd } = stdin;
  if (!fstatSync(fd).isFile()) return stdin;
  return createReadStream("", { fd, autoClose: false, highWaterMark: FILE_PIECE_BYTES });
}
