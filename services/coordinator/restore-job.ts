// A restore: a session of its own holds the root while a reader writes the version onto its target (DESIGN §4.4).
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { SessionId, Token, VersionUid } from "#lib/core/ids.ts";
import { newSessionId, newToken } from "#lib/repository/repository.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import { endSession, startSession } from "#lib/repository/transactions/session.ts";
import { requireVersion } from "#lib/repository/transactions/version.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import type { Requests } from "#proto/messages.ts";
import { askReader, releaseReader } from "./ask-reader.ts";
import { requireReachable } from "./reachable-storages.ts";
import { ownerOf, type CoordinatorContext } from "./context.ts";
import { settle } from "./dead-sessions.ts";
import type { JobOptions, RestoreJob, RestoreResult } from "./jobs.ts";
import { PhaseClock } from "./phases.ts";
import { watchReader, type WatchedJob } from "./watch-reader.ts";

/** Restores a version onto a target. */
export async function runRestore(
  context: CoordinatorContext,
  job: RestoreJob,
  options: JobOptions = {},
): Promise<RestoreResult> {
  const { repo } = context;
  const readerHost = job.host ?? context.host;
  const version = await repo.kv.read((reader) => requireVersion(reader, job.uid));
  if (version.root === undefined) {
    throw new AshlarError(ErrorCode.NotFound, `version ${job.uid} was never finished`, {
      remedy: "run its backup again",
    });
  }
  const part = checkRange(version, job);
  const startedMs = repo.clock.monotonic();
  const phases = new PhaseClock(repo.clock);
  const session = newSessionId(repo.random);
  const token = newToken(repo.random);
  await startReading(context, version, session, token);
  const watch = watchReader(context, readerHost, { session, token }, options);
  try {
    // Before the target is touched: what is away is no reason to overwrite it.
    await requireReachable(repo, version, job.storage);
    repo.log.debug("restoring", { uid: version.uid, session, target: job.target, part });
    const request = readerRequest(context, job, version, { session, token, part, watch });
    phases.end("start");
    const { stages, ...body } = await askReader(
      context,
      readerHost,
      "restore",
      request,
      options.signal,
    );
    phases.endReader(stages);
    return {
      uid: version.uid,
      ...body,
      stages: phases.totals(),
      damagedCount: body.damagedCount ?? body.damaged.length,
      durationMs: Math.round(repo.clock.monotonic() - startedMs),
    };
  } catch (error) {
    throw withVersion(error, version.uid);
  } finally {
    await watch.stop();
    await endSession(repo.kv, session, token, repo.clock.now());
    // A request that was repeated on its way may have begun the restore anew: nobody writes to the target from here on.
    await releaseReader(context, readerHost, { session, token }, options.signal);
    await settle(context, session);
    // Copies that were found bad while reading are told to the versions that need them.
    await drainRechecks(repo.kv);
  }
}

function readerRequest(
  { repo, run }: CoordinatorContext,
  job: RestoreJob,
  version: VersionRecord,
  how: {
    readonly session: SessionId;
    readonly token: Token;
    readonly part: { readonly offset: number; readonly length: number };
    readonly watch: WatchedJob;
  },
): Requests["restore"]["request"] {
  const { session, token, part, watch } = how;
  return {
    session,
    token,
    job: watch.job,
    target: job.target,
    restore: run?.job ?? session,
    root: version.root as string,
    levels: version.levels,
    sizeBytes: version.sizeBytes,
    blockBytes: version.blockBytes,
    offset: part.offset,
    length: part.length,
    force: job.force ?? false,
    sparse: job.sparse ?? false,
    differential: job.differential ?? false,
    keepGoing: job.keepGoing ?? false,
    storage: job.storage === undefined ? null : repo.storages.byName(job.storage).id,
    heartbeatMs: watch.heartbeatMs,
  };
}

/** What cannot be read is named by its version, too, which the reader does not know. */
function withVersion(error: unknown, uid: VersionUid): unknown {
  if (!(error instanceof AshlarError)) return error;
  const isOfVersion = error.code === ErrorCode.Damaged || error.details["id"] !== undefined;
  if (!isOfVersion) return error;
  const { code, message, remedy, details } = error;
  return new AshlarError(code, `version ${uid}: ${message}`, {
    cause: error,
    ...(remedy === undefined ? {} : { remedy }),
    details: { uid, ...details },
  });
}

function checkRange(
  version: VersionRecord,
  job: RestoreJob,
): { readonly offset: number; readonly length: number } {
  if (job.range === undefined) return { offset: 0, length: version.sizeBytes };
  const { offset, length } = job.range;
  if (offset + length > version.sizeBytes) {
    throw new AshlarError(
      ErrorCode.Usage,
      `the range ends at byte ${offset + length}, but version ${version.uid} has ${version.sizeBytes} bytes`,
    );
  }
  return { offset, length };
}

function startReading(
  context: CoordinatorContext,
  version: VersionRecord,
  session: ReturnType<typeof newSessionId>,
  token: ReturnType<typeof newToken>,
): Promise<void> {
  const { repo } = context;
  const nowMs = repo.clock.now();
  return startSession(repo.kv, {
    session,
    record: {
      kind: "restore",
      state: "live",
      token,
      startedMs: nowMs,
      endedMs: undefined,
      uid: version.uid,
      volume: version.volume,
      source: "",
      policy: version.policy,
      ...ownerOf(context),
    },
    nowMs,
    reads: version.uid,
  });
}
