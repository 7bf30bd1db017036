// Names that users give or see: volumes, snapshots, version uids, labels, and the ways to refer to a version.
import { AshlarError, ErrorCode } from "./errors.ts";
import type { VersionUid } from "./ids.ts";

/** Longest name of a volume, a snapshot or a version. */
export const NAME_LENGTH_MAX = 255;
/** How much of a volume's name its versions' uids begin with. */
const UID_VOLUME_LENGTH_MAX = 248;
const UID_RANDOM_LENGTH = 6;
const UID_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789";

// Without blanks, quotes and wildcards, so that names can stand in filters and shell lines. No hyphen at either end: it
// would look like an option, or like the removal of a label.
const NAME = /^(?!-)[-a-zA-Z0-9_.:/@+]+(?<!-)$/;
const NAME_RULE = "letters, digits and - _ . : / @ + only, with no hyphen at either end";

function checkName(name: string, what: string): string {
  if (name.length > NAME_LENGTH_MAX) {
    throw new AshlarError(
      ErrorCode.Usage,
      `${what} has ${name.length} characters; at most ${NAME_LENGTH_MAX} are allowed`,
    );
  }
  if (!NAME.test(name)) {
    throw new AshlarError(
      ErrorCode.Usage,
      `${what} ${JSON.stringify(name)} is not allowed: it must consist of ${NAME_RULE}`,
    );
  }
  return name;
}

/** Ends a reference to a volume's youngest version, and so no name. */
const LATEST = "@latest";

/** Checks the name of a volume and returns it. */
export function checkVolumeName(name: string): string {
  if (name.endsWith(LATEST)) {
    throw new AshlarError(
      ErrorCode.Usage,
      `volume name ${JSON.stringify(name)} is not allowed: VOLUME${LATEST} means the youngest version of VOLUME`,
    );
  }
  return checkName(name, "volume name");
}

/** Checks the name of a snapshot and returns it; an empty one means none. */
export function checkSnapshotName(name: string): string {
  return name === "" ? name : checkName(name, "snapshot name");
}

/** Checks a version's uid and brands it. */
export function asVersionUid(text: string): VersionUid {
  return checkName(text, "version uid") as VersionUid;
}

/** A new uid for a version of `volume`. Whether it is taken already is for the transaction that uses it to see. */
export function createVersionUid(
  volume: string,
  random: { below(limit: number): number },
): VersionUid {
  let suffix = "";
  for (let index = 0; index < UID_RANDOM_LENGTH; index += 1) {
    suffix += UID_DIGITS.charAt(random.below(UID_DIGITS.length));
  }
  return asVersionUid(`${checkVolumeName(volume).slice(0, UID_VOLUME_LENGTH_MAX)}-${suffix}`);
}

/** What one argument of `label` asks for. */
export type LabelChange =
  | { readonly kind: "set"; readonly name: string; readonly value: string }
  | { readonly kind: "remove"; readonly name: string };

// Kubernetes' rules for qualified names: an optional DNS name and a slash, then the name itself.
const LABEL_NAME = /^(?:([^/]*)\/)?([a-zA-Z0-9](?:[-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?)$/;
const LABEL_PREFIX = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/;
const LABEL_PREFIX_LENGTH_MAX = 253;
const LABEL_VALUE = /^[-a-zA-Z0-9_.:/@+]*$/;
const LABEL_VALUE_LENGTH_MAX = 255;

/** Reads `NAME=VALUE` (also `NAME=`, which sets an empty value) or `NAME-` (removes). */
export function parseLabel(text: string): LabelChange {
  const equals = text.indexOf("=");
  if (equals < 0 && text.endsWith("-")) {
    return { kind: "remove", name: checkLabelName(text.slice(0, -1), text) };
  }
  if (equals < 0) {
    throw new AshlarError(
      ErrorCode.Usage,
      `label ${JSON.stringify(text)}: expected NAME=VALUE, or NAME- to remove it`,
    );
  }
  const name = checkLabelName(text.slice(0, equals), text);
  const value = text.slice(equals + 1);
  if (!LABEL_VALUE.test(value) || value.length > LABEL_VALUE_LENGTH_MAX) {
    throw labelError(
      text,
      `a value has at most ${LABEL_VALUE_LENGTH_MAX} letters, digits and - _ . : / @ +`,
    );
  }
  return { kind: "set", name, value };
}

function checkLabelName(name: string, text: string): string {
  const match = LABEL_NAME.exec(name);
  if (match === null) {
    throw labelError(
      text,
      `expected NAME=VALUE or NAME-, a name being 1 to 63 letters, digits and - _ . that begins and ends with a letter or digit`,
    );
  }
  const [, prefix] = match;
  if (
    prefix !== undefined &&
    (prefix.length > LABEL_PREFIX_LENGTH_MAX || !LABEL_PREFIX.test(prefix))
  ) {
    throw labelError(text, "what stands before the slash must be a DNS name in lower case");
  }
  return name;
}

function labelError(text: string, problem: string): AshlarError {
  return new AshlarError(ErrorCode.Usage, `label ${JSON.stringify(text)}: ${problem}`);
}

/** How a user refers to a version. */
export type VersionReference =
  | { readonly kind: "latest"; readonly volume: string }
  /** A uid, or the beginning of one. */
  | { readonly kind: "prefix"; readonly prefix: string };

const LATEST_SUFFIX = "@latest";

/** Reads a uid, a unique beginning of a uid, or `VOLUME@latest`. */
export function parseVersionReference(text: string): VersionReference {
  if (text.endsWith(LATEST_SUFFIX)) {
    return { kind: "latest", volume: checkVolumeName(text.slice(0, -LATEST_SUFFIX.length)) };
  }
  // A prefix may end with the hyphen between volume and random part.
  checkName(text.replace(/-+$/, ""), "version");
  return { kind: "prefix", prefix: text };
}

/** What {@link resolveVersionReference} asks of a version. */
export interface ReferableVersion {
  readonly uid: VersionUid;
  readonly volume: string;
  /** Ms since 1970. */
  readonly date: number;
  readonly status: "incomplete" | "valid" | "invalid";
}

const AMBIGUOUS_SHOWN = 5;

/**
 * Finds the version that is meant; NotFound, or Usage where several begin like that. `latest` is the youngest *valid* one:
 * who restores it wants neither a running backup nor a damaged version.
 * @param candidates at least the versions whose uid begins with the prefix, or those of the volume
 */
export function resolveVersionReference(
  reference: VersionReference,
  candidates: Iterable<ReferableVersion>,
): VersionUid {
  return reference.kind === "latest"
    ? resolveLatest(reference.volume, candidates)
    : resolvePrefix(reference.prefix, candidates);
}

function resolveLatest(volume: string, candidates: Iterable<ReferableVersion>): VersionUid {
  let latest: ReferableVersion | undefined;
  let others = 0;
  for (const version of candidates) {
    if (version.volume !== volume) continue;
    if (version.status !== "valid") others += 1;
    else if (latest === undefined || isYounger(version, latest)) latest = version;
  }
  if (latest !== undefined) return latest.uid;
  throw new AshlarError(
    ErrorCode.NotFound,
    others === 0
      ? `there is no version of volume ${volume}`
      : `there is no valid version of volume ${volume}; ${others === 1 ? "one is" : `${others} are`} incomplete or invalid`,
    { remedy: "`ashlar ls` shows the versions that there are." },
  );
}

function isYounger(a: ReferableVersion, b: ReferableVersion): boolean {
  return a.date === b.date ? a.uid > b.uid : a.date > b.date;
}

function resolvePrefix(prefix: string, candidates: Iterable<ReferableVersion>): VersionUid {
  const found: VersionUid[] = [];
  for (const { uid } of candidates) {
    // A uid that is written in full is meant, even where another one goes on after it.
    if (uid === prefix) return uid;
    if (uid.startsWith(prefix)) found.push(uid);
  }
  const [only] = found;
  if (only === undefined) {
    throw new AshlarError(ErrorCode.NotFound, `there is no version ${prefix}`, {
      remedy: "`ashlar ls` shows the versions that there are.",
    });
  }
  if (found.length === 1) return only;
  const shown = found.sort().slice(0, AMBIGUOUS_SHOWN).join(", ");
  throw new AshlarError(
    ErrorCode.Usage,
    `${prefix} is the beginning of ${found.length} versions: ${shown}${found.length > AMBIGUOUS_SHOWN ? ", …" : ""}`,
    { remedy: "Give more of the uid, or VOLUME@latest." },
  );
}
