// Sources, targets and files as the user gives them, made independent of the working folder.
import { isAbsolute, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** Matches the scheme of a URL; one letter is none. */
const SCHEME = /^([a-z][a-z0-9+.-]+):/i;

/**
 * A source or target: `-` and URLs as they are, paths absolute, so that a repeated backup is recognised wherever it is
 * started from.
 */
export function absoluteDevice(text: string, cwd: string): string {
  if (text === "-") return text;
  const scheme = SCHEME.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) return resolve(cwd, text);
  if (scheme !== "file") return text;
  const rest = text.slice("file:".length);
  return rest.startsWith("/") || rest === "" ? text : `file:${resolve(cwd, rest)}`;
}

/** A path as the configuration in `folder` names it: relative where it lies within, so that the folder can be moved. */
export function within(file: string, folder: string): string {
  const short = relative(folder, file);
  return short === "" || short.startsWith("..") || isAbsolute(short) ? file : short;
}

/** The same for a storage's URL. */
export function urlWithin(url: string, folder: string): string {
  if (!url.startsWith("file:")) return url;
  const file = fileURLToPath(url);
  const short = within(file, folder);
  return short === file ? url : short;
}
