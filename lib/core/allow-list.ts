// What a host's agent may touch: patterns over locations.
import { matchesGlob, normalize } from "node:path";

/** A location as patterns see it: the path of a file, or the whole URL of anything else. The same for all spellings of one path. */
export function normalizeLocation(location: string): string {
  const scheme = /^([a-z][a-z0-9+.-]+):/.exec(location)?.[1];
  if (scheme === undefined) return normalize(location);
  if (scheme !== "file") return location;
  const rest = location.slice("file:".length);
  const path = rest.startsWith("//") ? decode(rest.slice(rest.indexOf("/", 2))) : rest;
  return normalize(path);
}

function decode(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/**
 * Whether one of the patterns allows the location: `*` stands for a part of a name, `**` for any folders. A path that is not
 * absolute, and a stream, are nobody's.
 */
export function isAllowed(patterns: readonly string[], location: string): boolean {
  const subject = normalizeLocation(location);
  const isFile = !/^[a-z][a-z0-9+.-]+:/.test(subject);
  if (isFile && !subject.startsWith("/")) return false;
  return patterns.some((pattern) => {
    const wanted = normalizeLocation(pattern);
    return isFile ? matchesGlob(subject, wanted) : matchesUrl(subject, wanted);
  });
}

/** In URLs only `*` means something, and it stands for anything but a slash. */
function matchesUrl(subject: string, pattern: string): boolean {
  const parts = pattern.split("*").map((part) => part.replaceAll(/[\\^$.+?()[\]{}|/]/g, "\\$&"));
  return new RegExp(`^${parts.join("[^/]*")}$`).test(subject);
}
