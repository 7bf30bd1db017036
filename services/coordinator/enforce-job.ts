// Enforcing retention rules: what stays, what goes, and why, before anything is removed.
import type { VersionUid } from "#lib/core/ids.ts";
import {
  applyRetention,
  type RetentionDecision,
  type RetentionRules,
  type RetentionVersion,
} from "#lib/core/retention.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import { listVersions } from "#lib/repository/transactions/version.ts";

/** What is to become of a version. */
export interface EnforceDecision extends RetentionDecision {
  readonly uid: VersionUid;
  readonly createdMs: number;
}

/** Decides about every version that `include` accepts; the rules count only those. */
export async function decideRetention(
  kv: Kv,
  rules: RetentionRules,
  include: (version: VersionRecord) => boolean,
  nowMs: number,
): Promise<EnforceDecision[]> {
  const versions = new Map<string, VersionRecord>();
  for await (const version of listVersions(kv)) {
    if (include(version)) versions.set(version.uid, version);
  }
  const asked = [...versions.values()].map(asRetentionVersion);
  return applyRetention(rules, asked, { now: nowMs }).map((decision) =>
    Object.assign({}, decision, {
      uid: decision.uid as VersionUid,
      createdMs: versions.get(decision.uid)?.createdMs ?? 0,
    }),
  );
}

function asRetentionVersion(version: VersionRecord): RetentionVersion {
  const { uid, volume, createdMs, state } = version;
  return {
    uid,
    volume,
    date: createdMs,
    // A version that was removed between the listing and here is not listed; the others have these three states.
    status: state === "valid" || state === "invalid" ? state : "incomplete",
    protected: version.protected,
  };
}
