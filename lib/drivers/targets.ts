// The kinds of restore targets. Adding one is a file and a line here.
import { createWriteStream, fstatSync } from "node:fs";
import type { Writable } from "node:stream";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { openFileTarget, type RestoreTarget } from "./file/file-target.ts";
import { streamTarget } from "./file/stream-target.ts";
import { parseLocation } from "./location.ts";

/** What a target is opened for. */
export interface OpenTargetOptions {
  readonly url: string;
  /** Bytes that will be restored. */
  readonly sizeBytes: number;
  /** Overwrite what is there. */
  readonly force: boolean;
  /** Folders and files of the repository itself: nothing is ever restored onto or into them. */
  readonly forbid: readonly string[];
  /** The restore that it is for, where that may be tried again. */
  readonly restore?: string | undefined;
}

/** Opens a target of one kind. */
type Opener = (options: OpenTargetOptions, rest: string) => Promise<RestoreTarget>;

const KINDS: Readonly<Record<string, Opener>> = {
  file: (options, file) => openFileTarget({ ...options, file }),
  "-": async ({ url }) => Object.assign(streamTarget(url, standardOutput()), { warnings: [] }),
};

/** Opens `file:PATH`, a bare path, a block device, or `-` (stdout). Usage for a scheme that nobody knows. */
export async function openTarget(options: OpenTargetOptions): Promise<RestoreTarget> {
  const { kind, rest } = parseLocation(options.url, "target", KINDS);
  return kind(options, rest);
}

function standardOutput(): Writable {
  if (process.stdout.isTTY) {
    throw new AshlarError(
      ErrorCode.Usage,
      "the target is - (the standard output), which is a terminal",
      {
        remedy: "redirect it to a file, or pipe it to a program",
      },
    );
  }
  // Writing to a file through process.stdout would stop everything else meanwhile.
  const { fd } = process.stdout;
  return fstatSync(fd).isFile() ? createWriteStream("", { fd, autoClose: false }) : process.stdout;
}
