// Where objects lie in the folder of a file storage. Blocks and nodes are spread over 4096 folders by the first three digits
// of their names: 16 million blocks are 4096 in each, which file systems find as fast as one. More folders would cost more
// than they save: with 65 536 of them nearly every put of a new storage had to make one (a quarter more CPU time per put).
// The rest lies flat.
// Whatever else is found in the folder belongs to somebody else: it is never listed, so never deleted.
import path from "node:path";
import { assert } from "#lib/core/assert.ts";
import { isBlobName } from "#lib/drivers/blob-name.ts";

/** The folders of objects. */
export const OBJECT_FOLDERS: Readonly<Record<string, "spread" | "flat">> = {
  blocks: "spread",
  nodes: "spread",
  heads: "flat",
  keys: "flat",
  stamps: "flat",
};

/** Unfinished objects. */
export const TEMPORARY_FOLDER = "tmp";
/** The space kept back. */
export const RESERVE_FILE = "reserve";
/** Where a spread folder keeps names that do not begin with three digits in hex. */
const REST_FOLDER = "other";

const SPREAD_NAME = /^[0-9a-f]{3}/;
const SPREAD_FOLDER = /^(?:[0-9a-f]{3}|other)$/;

/** The place of an object within the storage. */
export interface ObjectPlace {
  readonly file: string;
  /** The folder of the file and those around it, the outermost first, without the storage's own. */
  readonly folders: readonly string[];
}

/** Where the object of that name lies. */
export function placeOf(name: string): ObjectPlace {
  const parts = name.split("/");
  const leaf = parts.at(-1) ?? "";
  const [top = ""] = parts;
  const kind = OBJECT_FOLDERS[top];
  assert(kind !== undefined && parts.length > 1, `a file storage has no folder for ${name}`);
  assert(kind === "flat" || parts.length === 2, `${top} has no folders of its own: ${name}`);
  const steps = kind === "flat" ? parts.slice(0, -1) : [top, spreadFolderOf(leaf)];
  const folders = steps.map((_, index) => steps.slice(0, index + 1).join("/"));
  return { file: [...steps, leaf].join("/"), folders };
}

/** The name of the object that lies in `folder` (within the storage) as `leaf`; undefined where none may lie. */
export function nameAt(folder: string, leaf: string): string | undefined {
  const [top = ""] = folder.split("/");
  const kind = OBJECT_FOLDERS[top];
  const name = kind === "spread" ? `${top}/${leaf}` : path.posix.join(folder, leaf);
  if (kind === undefined || !isBlobName(name)) return undefined;
  return kind === "flat" || placeOf(name).file === `${folder}/${leaf}` ? name : undefined;
}

/** Whether a folder of that name within `folder` may hold objects. */
export function isObjectFolder(folder: string, leaf: string): boolean {
  const [top = "", ...inner] = folder.split("/");
  if (OBJECT_FOLDERS[top] === "flat") return isBlobName(leaf);
  return inner.length === 0 && SPREAD_FOLDER.test(leaf);
}

function spreadFolderOf(leaf: string): string {
  return SPREAD_NAME.exec(leaf)?.[0] ?? REST_FOLDER;
}
