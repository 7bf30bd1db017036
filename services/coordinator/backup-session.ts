// The session of a backup: a new one, or an interrupted one that is gone on with (DESIGN §4.6).
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { SessionId, Token, VersionUid } from "#lib/core/ids.ts";
import { asVersionUid, createVersionUid } from "#lib/core/uid.ts";
import type { Policy, VersionRecord } from "#lib/repository/records.ts";
import { newSessionId, newToken } from "#lib/repository/repository.ts";
import {
  endSession,
  hasBrought,
  markDead,
  resumeSession,
  startSession,
  type SessionEntry,
} from "#lib/repository/transactions/session.ts";
import { listVersions, readVersion } from "#lib/repository/transactions/version.ts";
import { ownerOf, type CoordinatorContext } from "./context.ts";
import { endDead, noticeDead, settle } from "./dead-sessions.ts";
import type { BackupJob } from "./jobs.ts";

/** A backup's session, under a token that is ours. */
export interface StartedBackup {
  readonly session: SessionId;
  readonly token: Token;
  readonly uid: VersionUid;
  readonly version: VersionRecord;
  readonly base: VersionRecord | undefined;
  readonly resumed: boolean;
  /** What was read when the session's nodes were brought. */
  readonly reading: string | undefined;
}

/** Starts a session for a backup, or goes on with the one that an interrupted run of the same backup has left. */
export async function startBackup(
  context: CoordinatorContext,
  job: BackupJob,
  policy: Policy,
): Promise<StartedBackup> {
  const { repo } = context;
  const blockBytes = job.blockBytes ?? repo.config.blockBytes;
  const base = await findBase(context, job, blockBytes);
  const sessions = await noticeDead(context);
  for (const entry of sessions) {
    const resumed = await tryResume(context, job, policy, blockBytes, base, entry);
    if (resumed !== undefined) return resumed;
  }
  // What an earlier try of this job has left, and cannot be gone on with, is in the way of this one: it has the version's uid.
  const { run } = context;
  if (run !== undefined) {
    await endDead(context, sessions, ({ record }) => record.run?.job === run.job);
  }
  const session = newSessionId(repo.random);
  const token = newToken(repo.random);
  const uid =
    job.uid === undefined ? createVersionUid(job.volume, repo.random) : asVersionUid(job.uid);
  const nowMs = repo.clock.now();
  const version: VersionRecord = {
    uid,
    volume: job.volume,
    snapshot: job.snapshot ?? "",
    createdMs: nowMs,
    sizeBytes: 0,
    blockBytes,
    levels: 1,
    root: undefined,
    state: "incomplete",
    protected: false,
    labels: job.labels ?? {},
    policy,
    source: job.source,
    warnings: [],
    statistics: undefined,
    sampleRound: job.hints === undefined ? 0 : await nextSampleRound(context, job.volume),
    revision: 0,
    session,
    ...(context.run === undefined ? {} : { job: context.run.job }),
  };
  await startSession(repo.kv, {
    session,
    record: {
      kind: "backup",
      state: "live",
      token,
      startedMs: nowMs,
      endedMs: undefined,
      uid,
      volume: job.volume,
      source: job.source,
      policy,
      ...ownerOf(context),
    },
    nowMs,
    version,
    ...(base === undefined ? {} : { reads: base.uid }),
  });
  return { session, token, uid, version, base, resumed: false, reading: undefined };
}

/**
 * The version that an earlier try of this job has finished: its coordinator may have gone before the job's end was recorded, and
 * the same disk would otherwise be stored once more, as another version.
 */
export async function finishedBefore({
  repo,
  run,
  attempt,
}: CoordinatorContext): Promise<VersionRecord | undefined> {
  if (run === undefined || attempt === 1) return undefined;
  for await (const version of listVersions(repo.kv, { removed: true })) {
    if (version.job !== run.job || version.state === "incomplete") continue;
    if (version.state !== "invalid") return version;
    throw new AshlarError(
      ErrorCode.Damaged,
      `version ${version.uid}, which this job had stored, has been found damaged since`,
      { remedy: "submit the backup anew" },
    );
  }
  return undefined;
}

/**
 * The round of the rotating sample: each run of a volume takes another one, also when several name the same base, so that
 * within as many runs as there are rounds every unchanged block is checked.
 */
async function nextSampleRound(context: CoordinatorContext, volume: string): Promise<number> {
  let last = 0;
  for await (const version of listVersions(context.repo.kv, { removed: true })) {
    if (version.volume === volume) last = Math.max(last, version.sampleRound);
  }
  return last + 1;
}

/** The base must be valid, of the same volume and of the same block size. */
async function findBase(
  context: CoordinatorContext,
  job: BackupJob,
  blockBytes: number,
): Promise<VersionRecord | undefined> {
  if (job.base === undefined) return undefined;
  const { base } = job;
  const version = await context.repo.kv.read((reader) => readVersion(reader, base));
  if (version === undefined || version.state === "removed") {
    throw new AshlarError(ErrorCode.NotFound, `there is no version ${base} to take as the base`);
  }
  const problem =
    version.state !== "valid"
      ? `it is ${version.state}`
      : version.volume !== job.volume
        ? `it is of volume ${version.volume}`
        : version.blockBytes !== blockBytes
          ? `its blocks have ${version.blockBytes} bytes, not ${blockBytes}`
          : undefined;
  if (problem === undefined) return version;
  throw new AshlarError(ErrorCode.Usage, `${base} cannot be the base: ${problem}`, {
    remedy: "name a valid version of the same volume and block size, or back up without --base",
  });
}

/** A backup of the same volume and source, to the same storages, that nobody works on any more, is gone on with. */
async function tryResume(
  context: CoordinatorContext,
  job: BackupJob,
  policy: Policy,
  blockBytes: number,
  base: VersionRecord | undefined,
  entry: SessionEntry,
): Promise<StartedBackup | undefined> {
  const { repo } = context;
  const { record } = entry;
  const isSame =
    record.kind === "backup" &&
    record.state === "dead" &&
    record.volume === job.volume &&
    record.source === job.source &&
    record.policy?.quorum === policy.quorum &&
    record.policy.storages.join() === policy.storages.join() &&
    (job.uid === undefined || job.uid === record.uid);
  const isRecent = repo.clock.now() - (record.endedMs ?? 0) <= context.settings.resumeWindowMs;
  if (!isSame || !isRecent) return undefined;
  const version = await repo.kv.read((reader) => readVersion(reader, record.uid));
  if (
    version?.state !== "incomplete" ||
    version.blockBytes !== blockBytes ||
    version.snapshot !== (job.snapshot ?? "") ||
    // Another base would have to be held: a new session does that.
    base !== undefined
  ) {
    return undefined;
  }
  const token = newToken(repo.random);
  const nowMs = repo.clock.now();
  const { labels = {} } = job;
  const owner = { ...ownerOf(context), token, nowMs, labels, dateAnew: true, wishes: policy };
  try {
    await resumeSession(repo.kv, entry.session, owner);
  } catch (error) {
    if (isErrorCode(error, ErrorCode.TryAgain)) return undefined;
    throw error;
  }
  repo.log.info(`going on with the unfinished backup ${record.uid}`);
  return {
    session: entry.session,
    token,
    uid: record.uid,
    // Their storages and quorum are the same.
    version: { ...version, policy, createdMs: nowMs, labels: { ...version.labels, ...labels } },
    base: undefined,
    resumed: true,
    reading: record.reading,
  };
}

/** Takes a session back that others recorded as dead while it worked. */
export async function takeOver(
  context: CoordinatorContext,
  started: StartedBackup,
): Promise<StartedBackup> {
  const { repo } = context;
  const token = newToken(repo.random);
  const owner = { ...ownerOf(context), token, nowMs: repo.clock.now() };
  const { reading } = await resumeSession(repo.kv, started.session, owner);
  return { ...started, token, resumed: true, reading };
}

/** Records the session as dead. One that has brought nothing (a source that is not there) is not worth resuming. */
export async function leaveResumable(
  context: CoordinatorContext,
  started: StartedBackup,
): Promise<void> {
  const { kv, clock } = context.repo;
  const { session, token } = started;
  const isDead = await markDead(kv, session, token, clock.now());
  if (!isDead || (await hasBrought(kv, session))) return;
  await endSession(kv, session, undefined, clock.now());
  await settle(context, session);
}
