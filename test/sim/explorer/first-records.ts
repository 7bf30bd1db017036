// The records with which storages and sessions begin.
import type { Kv } from "#lib/ports/kv.ts";
import type { SessionRecord, StorageRecord, StorageState } from "#lib/repository/records.ts";
import { startSession } from "#lib/repository/transactions/session.ts";
import { unfinishedVersion } from "#test/fixtures/unfinished-version.ts";
import { tokenOf, type Universe } from "./universe.ts";

/** The record of a storage. */
export function storageRecord(storage: number, state: StorageState): StorageRecord {
  return { name: `s${storage}`, site: "here", state, addedMs: 0 };
}

/** Starts a backup session with its unfinished version. */
export function startBackup(universe: Universe, kv: Kv, session: number): Promise<void> {
  const { storages, quorum, base } = universe.plan(session);
  const policy = universe.policy(storages, quorum);
  const uid = universe.uid(session);
  const record: SessionRecord = {
    kind: "backup",
    state: "live",
    token: tokenOf(session, 1),
    startedMs: 0,
    endedMs: undefined,
    uid,
    volume: `v${session}`,
    source: "s",
    policy,
    host: "h",
    lock: "l",
  };
  return startSession(kv, {
    session: universe.session(session),
    record,
    nowMs: 1,
    version: unfinishedVersion(uid, policy, universe.session(session), record.volume),
    ...(base === undefined ? {} : { reads: universe.uid(base.session) }),
  });
}
