// Removing versions that a user named: all of them are looked at before the first one goes.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { VersionUid } from "#lib/core/ids.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import { removeVersion, requireVersion } from "#lib/repository/transactions/version.ts";

/** A version that could not be removed, and why. */
export interface FailedRemoval {
  readonly uid: VersionUid;
  readonly error: AshlarError;
}

/** Refuses what {@link removeVersion} would refuse, before anything is removed. */
export async function checkRemovable(
  kv: Kv,
  uids: readonly VersionUid[],
): Promise<VersionRecord[]> {
  const versions: VersionRecord[] = [];
  for (const uid of uids) {
    versions.push(await kv.read((reader) => requireVersion(reader, uid)));
  }
  const kept = versions.filter((version) => version.protected).map((version) => version.uid);
  if (kept.length > 0) {
    throw new AshlarError(
      ErrorCode.Refused,
      kept.length === 1
        ? `version ${kept[0]} is protected; nothing was removed`
        : `versions ${kept.join(", ")} are protected; nothing was removed`,
      { remedy: `\`ashlar unprotect ${kept.join(" ")}\` first`, details: { uids: kept } },
    );
  }
  const unfinished = versions.find((version) => version.state === "incomplete");
  if (unfinished !== undefined) {
    throw new AshlarError(ErrorCode.TryAgain, `version ${unfinished.uid} is being made`, {
      remedy: "`ashlar gc --abandon` drops unfinished versions that nobody works on",
      details: { uid: unfinished.uid },
    });
  }
  return versions;
}

/**
 * Removes versions one by one. What was protected or removed by somebody else meanwhile is told, and does not keep the
 * others; other errors end it. Heads are owed afterwards: the caller has them put.
 */
export async function removeVersions(
  kv: Kv,
  uids: readonly VersionUid[],
  signal?: AbortSignal,
): Promise<{ readonly removed: VersionUid[]; readonly failed: FailedRemoval[] }> {
  const removed: VersionUid[] = [];
  const failed: FailedRemoval[] = [];
  for (const uid of uids) {
    signal?.throwIfAborted();
    try {
      await removeVersion(kv, uid);
      removed.push(uid);
    } catch (error) {
      if (!(error instanceof AshlarError) || !isAboutVersion(error)) throw error;
      failed.push({ uid, error });
    }
  }
  return { removed, failed };
}

function isAboutVersion({ code }: AshlarError): boolean {
  return code === ErrorCode.Refused || code === ErrorCode.NotFound || code === ErrorCode.TryAgain;
}
