// How people name devices and storages: a URL, a path, or - for a stream.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

// Two letters at least, so that a path with a drive's letter or the like stays a path.
const SCHEME = /^([a-z][a-z0-9+.-]+):/;

/** A location, taken apart. */
export interface Location<Kind> {
  readonly kind: Kind;
  /** For files the path; for others what follows the scheme. */
  readonly rest: string;
}

/**
 * Finds the kind of a location. `kinds` are by scheme, with `-` for streams; a bare path is a file.
 * @param what what it is for, as the error names it
 * @throws Usage for a scheme that nobody knows
 */
export function parseLocation<Kind>(
  location: string,
  what: string,
  kinds: Readonly<Record<string, Kind>>,
): Location<Kind> {
  const scheme = location === "-" ? "-" : SCHEME.exec(location)?.[1];
  const kind = kinds[scheme ?? "file"];
  if (kind === undefined || location === "") throw unknown(location, what, kinds);
  if (scheme === undefined || scheme === "-") return { kind, rest: location };
  const rest = location.slice(scheme.length + 1);
  return { kind, rest: scheme === "file" ? filePath(location, rest, what) : rest };
}

/** `file:PATH` is taken as it stands; `file:///PATH` is a URL, with `%20` for a space. */
function filePath(location: string, rest: string, what: string): string {
  if (rest === "") throw notAPath(location, what);
  if (!rest.startsWith("//")) return rest;
  const slash = rest.indexOf("/", 2);
  const host = rest.slice(2, Math.max(2, slash));
  if (slash < 0 || (host !== "" && host !== "localhost")) throw notAPath(location, what);
  try {
    return decodeURIComponent(rest.slice(slash));
  } catch (error) {
    throw notAPath(location, what, error);
  }
}

function notAPath(location: string, what: string, cause?: unknown): AshlarError {
  return new AshlarError(
    ErrorCode.Usage,
    `${what} ${location}: that is not the URL of a file here`,
    {
      cause,
      remedy: "write file:PATH, or file:///PATH with % codes for special characters",
    },
  );
}

function unknown(
  location: string,
  what: string,
  kinds: Readonly<Record<string, unknown>>,
): AshlarError {
  const known = Object.keys(kinds).map((scheme) =>
    scheme === "-" ? "- (a stream)" : `${scheme}:`,
  );
  return new AshlarError(ErrorCode.Usage, `${what} ${location}: there is no such kind of ${what}`, {
    remedy: `use ${known.join(", ")} or a path; a path with a colon is written ./${location}`,
  });
}
