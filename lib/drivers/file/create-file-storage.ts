// Makes a new file storage: the folder, its marker, the folders of its objects.
import { randomBytes } from "node:crypto";
import { link, open, readdir, rm } from "node:fs/promises";
import path from "node:path";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import {
  encodeStorageMarker,
  MARKER_NAME,
  type StorageMarker,
} from "#lib/drivers/storage-marker.ts";
import { makeFolders } from "#lib/drivers/system/make-folders.ts";
import { DEFAULT_RESERVE_BYTES } from "./file-blob-store.ts";
import { errnoOf } from "./file-calls.ts";
import { flushFolder } from "./flusher.ts";
import { SpaceReserve } from "./space-reserve.ts";
import { storageError } from "./storage-errors.ts";
import { OBJECT_FOLDERS, RESERVE_FILE, TEMPORARY_FOLDER } from "./storage-layout.ts";
import { readMarker } from "./storage-presence.ts";

/** Options of {@link createFileBlobStore}. */
export interface CreateFileBlobStoreOptions {
  /** The folder; it is made with those around it. */
  readonly path: string;
  readonly marker: StorageMarker;
  /** As in the options of opening. */
  readonly reserveBytes?: number | undefined;
}

/** How markers begin before they have their name; a creation that was cut short leaves one behind. */
const NEW_MARKER_PREFIX = `${MARKER_NAME}.new-`;
/** What a fresh file system may hold. */
const FRESH_FOLDER = "lost+found";

/** Makes a storage; AlreadyExists when the folder holds another one, or anything else. Repeating it is fine. */
export async function createFileBlobStore(options: CreateFileBlobStoreOptions): Promise<void> {
  const root = path.resolve(options.path);
  try {
    await makeRoot(root);
    await checkUsable(root, options.marker);
    await writeMarker(root, options.marker);
    for (const folder of [...Object.keys(OBJECT_FOLDERS), TEMPORARY_FOLDER]) {
      makeFolders(path.join(root, folder), 0o700);
    }
    await flushFolder(root);
    const reserveBytes = options.reserveBytes ?? DEFAULT_RESERVE_BYTES;
    await new SpaceReserve(path.join(root, RESERVE_FILE), reserveBytes).fill();
  } catch (error) {
    throw storageError(error, root, `making the storage ${root}`);
  }
}

/** Makes the folder, durably. */
async function makeRoot(root: string): Promise<void> {
  const first = makeFolders(root, 0o700);
  if (first === undefined) return;
  for (let folder = root; folder.length >= first.length; folder = path.dirname(folder)) {
    await flushFolder(path.dirname(folder));
  }
}

async function checkUsable(root: string, marker: StorageMarker): Promise<void> {
  const entries = await readdir(root);
  if (entries.includes(MARKER_NAME)) {
    const { identity } = await readMarker(root);
    if (identity === marker.identity) return;
    throw new AshlarError(
      ErrorCode.AlreadyExists,
      `${root} holds the storage ${identity} already`,
      {
        remedy: "choose another folder; `ashlar rebuild --from` reads a storage that is there",
      },
    );
  }
  const found = entries.find(
    (entry) => entry !== FRESH_FOLDER && !entry.startsWith(NEW_MARKER_PREFIX),
  );
  if (found === undefined) return;
  throw new AshlarError(ErrorCode.AlreadyExists, `${root} is not empty: it holds ${found}`, {
    remedy: "choose an empty folder for the storage",
  });
}

/** Under another name first, so that there is never half a marker; linked, so that of two makers one wins. */
async function writeMarker(root: string, marker: StorageMarker): Promise<void> {
  const word = randomBytes(8).toString("hex");
  const temporary = path.join(root, `${NEW_MARKER_PREFIX}${word}`);
  const file = await open(temporary, "wx", 0o600);
  try {
    await file.writeFile(encodeStorageMarker(marker));
    await file.sync();
  } finally {
    await file.close();
  }
  try {
    await link(temporary, path.join(root, MARKER_NAME));
  } catch (error) {
    if (errnoOf(error) !== "EEXIST") throw error;
    await checkUsable(root, marker);
  } finally {
    await rm(temporary, { force: true });
  }
}
