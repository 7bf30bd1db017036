// Lists the objects in the folder of a file storage: one folder at a time, never all names in memory.
import { lstat, opendir } from "node:fs/promises";
import type { Dir } from "node:fs";
import path from "node:path";
import type { BlobEntry } from "#lib/ports/blob-store.ts";
import { errnoOf } from "./file-calls.ts";
import { isObjectFolder, nameAt, OBJECT_FOLDERS } from "./storage-layout.ts";

/** Entries read from a folder at once, and files looked at in parallel. */
const BATCH_COUNT = 64;

/** What a listing needs to know. */
export interface ListingOptions {
  /** The storage's folder. */
  readonly root: string;
  readonly prefix: string;
  /** Called when a folder is missing: throws when that is so because the storage is away. */
  readonly checkPresent: () => Promise<void>;
  readonly signal: AbortSignal | undefined;
}

/** The objects whose names begin with the prefix. */
export async function* listObjects(options: ListingOptions): AsyncGenerator<BlobEntry> {
  const { prefix } = options;
  const [top = ""] = prefix.split("/");
  if (prefix === "") {
    for (const folder of Object.keys(OBJECT_FOLDERS)) yield* listFolder(folder, options);
  } else if (OBJECT_FOLDERS[top] === "flat" || prefix === `${top}/`) {
    yield* listFolder(prefix.slice(0, -1), options);
  }
}

async function* listFolder(folder: string, options: ListingOptions): AsyncGenerator<BlobEntry> {
  if (OBJECT_FOLDERS[folder.split("/")[0] ?? ""] === undefined) return;
  const directory = await openFolder(folder, options);
  if (directory === undefined) return;
  const inner: string[] = [];
  let leaves: string[] = [];
  // Iterating closes it, also when the caller stops early.
  for await (const entry of directory) {
    options.signal?.throwIfAborted();
    if (entry.isDirectory()) {
      if (isObjectFolder(folder, entry.name)) inner.push(entry.name);
      continue;
    }
    if (entry.isFile()) leaves.push(entry.name);
    if (leaves.length < BATCH_COUNT) continue;
    yield* await entriesOf(folder, leaves, options.root);
    leaves = [];
  }
  yield* await entriesOf(folder, leaves, options.root);
  for (const name of inner) yield* listFolder(`${folder}/${name}`, options);
}

async function openFolder(folder: string, options: ListingOptions): Promise<Dir | undefined> {
  try {
    return await opendir(path.join(options.root, folder), { bufferSize: BATCH_COUNT });
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    await options.checkPresent();
    return undefined;
  }
}

async function entriesOf(
  folder: string,
  leaves: readonly string[],
  root: string,
): Promise<BlobEntry[]> {
  const entries = await Promise.all(
    leaves.map(async (leaf) => {
      const name = nameAt(folder, leaf);
      if (name === undefined) return undefined;
      const sizeBytes = await sizeOf(path.join(root, folder, leaf));
      return sizeBytes === undefined ? undefined : { name, sizeBytes };
    }),
  );
  return entries.filter((entry) => entry !== undefined);
}

/** Undefined when it was deleted meanwhile. */
async function sizeOf(file: string): Promise<number | undefined> {
  try {
    return (await lstat(file)).size;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
