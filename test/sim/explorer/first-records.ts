// The records with which storages and sessions begin.
import type { Kv } from "#lib/ports/kv.ts";
import type {
  SessionRecord,
  StorageRecord,
  StorageState,
  VersionRecord,
} from "#lib/repository/records.ts";
import { startSession } from "#lib/repository/transactions/session.ts";
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
  const version: VersionRecord = {
    uid,
    volume: `v${session}`,
    snapshot: "",
    createdMs: 0,
    sizeBytes: 0,
    blockBytes: 512,
    levels: 1,
    root: undefined,
    state: "incomplete",
    protected: false,
    labels: {},
    policy,
    source: "s",
    warnings: [],
    statistics: undefined,
    sampleRound: 0,
    revision: 0,
    session: universe.session(session),
  };
  return startSession(kv, {
    session: universe.session(session),
    record,
    nowMs: 1,
    version,
    ...(base === undefined ? {} : { reads: universe.uid(base.session) }),
  });
}
