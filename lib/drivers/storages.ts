// The kinds of storages. Adding one is a file and a line here.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import { createFileBlobStore } from "./file/create-file-storage.ts";
import { openFileBlobStore } from "./file/file-blob-store.ts";
import { readMarker } from "./file/storage-presence.ts";
import { parseLocation } from "./location.ts";
import type { StorageMarker } from "./storage-marker.ts";

/** How a storage is opened. */
export interface OpenStorageOptions {
  /** The storage that must be there; without it any is taken. */
  readonly identity?: StorageId;
  /** Nothing in it is ever changed. */
  readonly readOnly?: boolean;
  readonly clock: Clock;
  readonly random: Random;
}

/** One kind of storage. */
interface StorageKind {
  open(place: string, options: OpenStorageOptions): Promise<BlobStore>;
  create(place: string, marker: StorageMarker): Promise<void>;
  marker(place: string): Promise<StorageMarker>;
}

const KINDS: Readonly<Record<string, StorageKind>> = {
  file: {
    open: (path, { identity, ...options }) =>
      openFileBlobStore({ path, ...options, expectIdentity: identity }),
    create: (path, marker) => createFileBlobStore({ path, marker }),
    marker: readMarker,
  },
};

/** Opens a storage; Unavailable when it is not there, Refused when it is another one than expected. */
export function openStorage(url: string, options: OpenStorageOptions): Promise<BlobStore> {
  return at(url, (kind, place) => kind.open(place, options));
}

/** Makes a storage in a new or empty place; AlreadyExists when something is there. */
export function createStorage(url: string, marker: StorageMarker): Promise<void> {
  return at(url, (kind, place) => kind.create(place, marker));
}

/** What a storage says about itself, without opening it; Unavailable when nothing there says anything. */
export function readStorageMarker(url: string): Promise<StorageMarker> {
  return at(url, (kind, place) => kind.marker(place));
}

async function at<T>(
  url: string,
  use: (kind: StorageKind, place: string) => Promise<T>,
): Promise<T> {
  const { kind, rest } = parseLocation(url, "storage", KINDS);
  // A relative path would be another place for every working folder.
  if (kind === KINDS["file"] && !rest.startsWith("/")) {
    throw new AshlarError(ErrorCode.Usage, `storage ${url}: the path is not absolute`);
  }
  return use(kind, rest);
}
