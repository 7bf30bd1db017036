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

/** By what a storage is known without its marker being read: two disks may have the same device number and root folder. */
interface Identity {
  /** Of the folder. */
  readonly dev: bigint;
  readonly ino: bigint;
  /** Of the marker. */
  readonly marker: {
    readonly ino: bigint;
    readonly mtimeNs: bigint;
    readonly ctimeNs: bigint;
  };
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

/** The storage at a path, by its folder and its marker. */
export class StoragePresence {
  readonly marker: StorageMarker;
  readonly #folder: string;
  #identity: Identity;

  private constructor(folder: string, marker: StorageMarker, identity: Identity) {
    this.#folder = folder;
    this.marker = marker;
    this.#identity = identity;
  }

  /** Looks at the storage for the first time; Refused when it is not the expected one. */
  static async open(folder: string, expected?: StorageId): Promise<StoragePresence> {
    // First: of a marker that is replaced meanwhile the identity differs, and it is read again.
    const identity = await identityOf(folder);
    const marker = await readMarker(folder);
    if (expected !== undefined && marker.identity !== expected) {
      throw new AshlarError(
        ErrorCode.Refused,
        `${folder} holds the storage ${marker.identity}, not ${expected}`,
        { remedy: "mount the right disk there, or correct the storage's URL in the configuration" },
      );
    }
    return new StoragePresence(folder, marker, identity);
  }

  /** Throws Unavailable unless the storage is still there. Two calls to the system where nothing has changed. */
  async check(): Promise<void> {
    const identity = await identityOf(this.#folder);
    if (!isSame(identity, this.#identity)) await this.#read(identity);
  }

  /** {@link check} that reads the marker whatever it looks like: whether the storage can be read at all. */
  async checkByReading(): Promise<void> {
    await this.#read(await identityOf(this.#folder));
  }

  /** @param identity as it was before the marker was read */
  async #read(identity: Identity): Promise<void> {
    const { identity: found } = await readMarker(this.#folder);
    if (found !== this.marker.identity) {
      throw new AshlarError(
        ErrorCode.Unavailable,
        `the storage ${this.#folder} is away: ${found} is there instead of ${this.marker.identity}`,
        { remedy: "mount the right disk there" },
      );
    }
    // Mounted anew, perhaps under another device number; or the marker was put back from a copy.
    this.#identity = identity;
  }
}

function isSame(one: Identity, other: Identity): boolean {
  return (
    one.dev === other.dev &&
    one.ino === other.ino &&
    one.marker.ino === other.marker.ino &&
    one.marker.mtimeNs === other.marker.mtimeNs &&
    one.marker.ctimeNs === other.marker.ctimeNs
  );
}

async function identityOf(folder: string): Promise<Identity> {
  try {
    const [{ dev, ino }, marker] = await Promise.all([
      stat(folder, { bigint: true }),
      stat(path.join(folder, MARKER_NAME), { bigint: true }),
    ]);
    return {
      dev,
      ino,
      marker: { ino: marker.ino, mtimeNs: marker.mtimeNs, ctimeNs: marker.ctimeNs },
    };
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
