// Making folders with those above them.
import { mkdirSync, statSync } from "node:fs";
import path from "node:path";

/**
 * Makes a folder and what is missing above it. Answers the topmost folder that it made, or undefined where nothing was missing.
 *
 * Node's own `mkdir` with `recursive` never returns where a file system answers ENOENT although the parent is there, as /proc
 * does: it makes the parent and tries again, for ever.
 * @param mode of the folders that it makes
 * @throws the system's error
 */
export function makeFolders(folder: string, mode: number): string | undefined {
  const missing: string[] = [];
  for (let at = path.resolve(folder); !isThere(at); at = path.dirname(at)) missing.push(at);
  let first: string | undefined;
  for (const each of missing.toReversed()) {
    if (make(each, mode)) first ??= each;
  }
  return first;
}

function isThere(folder: string): boolean {
  try {
    if (statSync(folder).isDirectory()) return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
  throw Object.assign(new Error(`EEXIST: file already exists, mkdir '${folder}'`), {
    code: "EEXIST",
    path: folder,
    syscall: "mkdir",
  });
}

/** Another process may make the same folder at the same time. */
function make(folder: string, mode: number): boolean {
  try {
    mkdirSync(folder, { mode });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST" && isThere(folder)) return false;
    throw error;
  }
}
