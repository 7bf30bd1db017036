// Which versions a command is about: a uid, or a filter.
import type { Kv } from "#lib/ports/kv.ts";
import type { VersionUid } from "#lib/core/ids.ts";
import { resolveVersion } from "#services/coordinator/listing.ts";
import {
  compileSelection,
  type StorageNames,
  type VersionPredicate,
} from "#services/coordinator/selection.ts";

/** What may be a uid, its beginning, or VOLUME@latest: filters have blanks, operators, quotes or parentheses. */
const REFERENCE = /^[-a-zA-Z0-9_.:/@+]+$/;

/** For commands that take a uid or a filter: one version, or those that the filter matches. */
export async function selectVersions(
  kv: Kv,
  text: string | undefined,
  nameOf: StorageNames,
  nowMs: number,
): Promise<{ readonly uid: VersionUid | undefined; readonly include: VersionPredicate }> {
  if (text === undefined || !REFERENCE.test(text) || (await isFilterWord(text))) {
    return { uid: undefined, include: await compileSelection(text, nameOf, nowMs) };
  }
  const uid = await resolveVersion(kv, text);
  return { uid, include: (version) => version.uid === uid };
}

/** A word alone can be a filter as well: `protected`. */
async function isFilterWord(text: string): Promise<boolean> {
  const { FILTER_IDENTIFIERS } = await import("#lib/core/version-filter/evaluate.ts");
  return FILTER_IDENTIFIERS.includes(text);
}

/** Several uids, each once, in the given order. */
export async function resolveVersions(kv: Kv, texts: readonly string[]): Promise<VersionUid[]> {
  const uids = new Set<VersionUid>();
  for (const text of texts) uids.add(await resolveVersion(kv, text));
  return [...uids];
}
