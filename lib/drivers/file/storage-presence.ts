// Whether the storage that was opened is still the one at its path: a file system that is not mounted leaves an empty
// folder behind, and whoever took that for an empty storage would think every backup lost.
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import {
  MARKER_NAME,
  parseStorageMarker,
  type StorageMarker,
} from "#lib/drivers/storage-marker.ts";
import { errnoOf } from "./file-calls.ts";

interface FolderIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
}

/** Reads the marker of the storage at `folder`; Unavailable when there is none. */
export async function readMarker(folder: string): Promise<StorageMarker> {
  const file = path.join(folder, MARKER_NAME);
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) throw markerMissing(folder, error);
    throw fromSystemError(error, `reading ${file}`);
  }
  return parseStorageMarker(text, file);
}

/** The storage at a path, by its marker and its folder. */
export class StoragePresence {
  readonly marker: StorageMarker;
  readonly #folder: string;
  #identity: FolderIdentity;

  private constructor(folder: string, marker: StorageMarker, identity: FolderIdentity) {
    this.#folder = folder;
    this.marker = marker;
    this.#identity = identity;
  }

  /** Looks at the storage for the first time; Refused when it is not the expected one. */
  static async open(folder: string, expected?: StorageId): Promise<StoragePresence> {
    const marker = await readMarker(folder);
    if (expected !== undefined && marker.identity !== expected) {
      throw new AshlarError(
        ErrorCode.Refused,
        `${folder} holds the storage ${marker.identity}, not ${expected}`,
        { remedy: "mount the right disk there, or correct the storage's URL in the configuration" },
      );
    }
    return new StoragePresence(folder, marker, await identityOf(folder));
  }

  /** Throws Unavailable unless the storage is still there. Two calls to the system where nothing has changed. */
  async check(): Promise<void> {
    const [identity, marker] = await Promise.all([
      identityOf(this.#folder),
      stat(path.join(this.#folder, MARKER_NAME)).catch((error: unknown) => error as Error),
    ]);
    const isSame = identity.dev === this.#identity.dev && identity.ino === this.#identity.ino;
    if (isSame && !(marker instanceof Error)) return;
    const { identity: found } = await readMarker(this.#folder);
    if (found !== this.marker.identity) {
      throw new AshlarError(
        ErrorCode.Unavailable,
        `the storage ${this.#folder} is away: ${found} is there instead of ${this.marker.identity}`,
        { remedy: "mount the right disk there" },
      );
    }
    // Mounted anew, perhaps under another device number.
    this.#identity = identity;
  }
}

async function identityOf(folder: string): Promise<FolderIdentity> {
  try {
    const { dev, ino } = await stat(folder, { bigint: true });
    return { dev, ino };
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) throw markerMissing(folder, error);
    throw fromSystemError(error, `looking at the storage ${folder}`);
  }
}

function markerMissing(folder: string, cause: unknown): AshlarError {
  return new AshlarError(
    ErrorCode.Unavailable,
    `there is no storage at ${folder}: its marker ${MARKER_NAME} is missing`,
    {
      cause,
      remedy: `mount the file system that holds it; a new storage is made by \`ashlar init\` or \`ashlar storage add\``,
    },
  );
}
