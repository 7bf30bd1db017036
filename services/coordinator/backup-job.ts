// A backup, from its request to its acknowledgement: session, reader, finish, heads (DESIGN §4.1–4.6, 4.10).
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { checkVolumeName } from "#lib/core/uid.ts";
import { untilAborted } from "#lib/core/until-aborted.ts";
import type { BlockId, SessionId, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Policy, VersionRecord } from "#lib/repository/records.ts";
import { finishVersion, readVersion } from "#lib/repository/transactions/version.ts";
import { listHolds } from "#lib/repository/transactions/session.ts";
import type { Requests } from "#proto/messages.ts";
import { askReader, releaseReader } from "./ask-reader.ts";
import {
  finishedBefore,
  leaveResumable,
  startBackup,
  takeOver,
  type StartedBackup,
} from "./backup-session.ts";
import { catchUp } from "./catch-up.ts";
import { choosePolicy } from "./choose-policy.ts";
import type { CoordinatorContext } from "./context.ts";
import { endDead, noticeDead, settle } from "./dead-sessions.ts";
import type { BackupJob, BackupResult, JobOptions, StorageOutcome } from "./jobs.ts";
import { showVersion } from "./listing.ts";
import { PhaseClock } from "./phases.ts";
import { watchReader, type WatchedJob } from "./watch-reader.ts";

/** Rounds of a refused finish, and of a session that was taken for dead while it worked. */
const FINISH_ROUNDS_MAX = 20;
const FENCED_ROUNDS_MAX = 3;
/** How long a backup waits at its end for storages that are slower than the quorum, in ms. */
const DRAIN_MS = 10_000;

/** Runs a backup; resolves when a quorum of its storages can restore it alone. */
export async function runBackup(
  context: CoordinatorContext,
  job: BackupJob,
  options: JobOptions = {},
): Promise<BackupResult> {
  checkVolumeName(job.volume);
  const finished = await finishedBefore(context);
  const phases = new PhaseClock(context.repo.clock);
  if (finished !== undefined) {
    return acknowledge(context, job, { version: finished, phases }, options.signal);
  }
  const policy = await choosePolicy(context, job);
  await checkStorages(context, policy, job);
  const startedMs = context.repo.clock.monotonic();
  let started = await startBackup(context, job, policy);
  phases.end("start");
  for (let round = 1; ; round += 1) {
    try {
      const version = await runSession(context, job, { ...started, phases }, startedMs, options);
      return {
        ...(await acknowledge(
          context,
          job,
          { version, phases, session: started.session },
          options.signal,
        )),
        resumed: started.resumed,
      };
    } catch (error) {
      if (!isErrorCode(error, ErrorCode.Fenced) || round === FENCED_ROUNDS_MAX) throw error;
      context.repo.log.warn("the session was taken for dead; going on with it", {
        uid: started.uid,
      });
      started = await takeOver(context, started);
    }
  }
}

async function checkStorages(
  context: CoordinatorContext,
  policy: Policy,
  job: BackupJob,
): Promise<void> {
  const { repo, upkeep } = context;
  const away = policy.storages.filter((storage) => !repo.storages.isAvailable(storage));
  const needed = job.requireComplete === true ? policy.storages.length : policy.quorum;
  const reasons = away.map((storage) => awayReason(context, storage));
  if (policy.storages.length - away.length < needed) {
    const wanted =
      job.requireComplete === true ? "every storage is required" : `the quorum is ${policy.quorum}`;
    throw new AshlarError(ErrorCode.Unavailable, `${reasons.join("; ")}: ${wanted}`, {
      remedy: "mount the storage or make it reachable, or back up to others with --storage",
    });
  }
  for (const reason of reasons) {
    repo.log.warn(`${reason}: the backup goes on without it, and what it lacks is owed to it`);
  }
  await upkeep.guard(policy.storages);
}

function awayReason(context: CoordinatorContext, storage: StorageId): string {
  const attached = context.repo.storages.list().find(({ id }) => id === storage);
  const reason =
    attached?.store instanceof AshlarError ? attached.store.message : "it is not configured";
  return `storage ${attached?.name ?? storage} is away (${reason})`;
}

/** Reads and finishes; on a failure the session is left dead: resumable. */
async function runSession(
  context: CoordinatorContext,
  job: BackupJob,
  started: StartedBackup & { readonly phases: PhaseClock },
  startedMs: number,
  options: JobOptions,
): Promise<VersionRecord> {
  const { repo } = context;
  const { session, token } = started;
  const readerHost = job.host ?? context.host;
  const watch = watchReader(context, readerHost, started, options);
  try {
    const request = await readerRequest(context, job, started, watch);
    repo.log.debug("reading", {
      uid: started.uid,
      session,
      source: job.source,
      base: job.base,
      resumed: started.resumed,
      placedNodes: request.placed.length,
      policy: request.policy,
    });
    const body = await askReader(context, readerHost, "backup", request, options.signal);
    started.phases.endReader(body.stages);
    repo.log.debug("everything is read and placed", { uid: started.uid, ...body });
    const version = await finish(context, job, started, body, startedMs, options.signal);
    started.phases.end("finish");
    return version;
  } catch (error) {
    await leaveResumable(context, started).catch(() => undefined);
    throw error;
  } finally {
    await releaseReader(context, readerHost, { session, token }, options.signal);
    await watch.stop();
  }
}

async function readerRequest(
  context: CoordinatorContext,
  job: BackupJob,
  started: StartedBackup,
  watch: WatchedJob,
): Promise<Requests["backup"]["request"]> {
  const { settings, repo } = context;
  const { base, version } = started;
  const frozen = version.snapshot !== "";
  return {
    session: started.session,
    token: started.token,
    job: watch.job,
    source: job.source,
    frozen,
    blockBytes: version.blockBytes,
    policy: { storages: version.policy.storages, quorum: version.policy.quorum },
    ...(version.policy.compression === undefined
      ? {}
      : { compression: version.policy.compression }),
    base:
      base === undefined
        ? null
        : { root: base.root as string, levels: base.levels, sizeBytes: base.sizeBytes },
    hints: job.hints ?? null,
    strictHints: job.strictHints ?? false,
    sampleRate: settings.hintSample,
    sampleRound: version.sampleRound,
    placed: started.resumed && frozen ? await listHolds(repo.kv, started.session) : [],
    placedOf: started.reading ?? null,
    heartbeatMs: watch.heartbeatMs,
    patienceMs: settings.patienceMs,
  };
}

type Read = Requests["backup"]["reply"];

/** Turns the version valid; while its root is in the way, the reader brings it to where it is wanted. */
async function finish(
  context: CoordinatorContext,
  job: BackupJob,
  started: StartedBackup,
  read: Read,
  startedMs: number,
  signal: AbortSignal | undefined,
): Promise<VersionRecord> {
  const { repo, upkeep } = context;
  const { session, token } = started;
  const readerHost = job.host ?? context.host;
  await upkeep.drain(job.requireComplete === true ? DRAIN_MS * 6 : DRAIN_MS, signal);
  if (job.requireComplete === true) await catchUp(context, started.version.policy, signal);
  signal?.throwIfAborted();
  let { root, sizeBytes, levels }: Requests["ensureRoot"]["reply"] = read;
  for (let round = 0; round < FINISH_ROUNDS_MAX; round += 1) {
    const result = await finishVersion(repo.kv, repo.random, {
      session,
      token,
      nowMs: repo.clock.now(),
      root: root as BlockId,
      sizeBytes,
      levels,
      statistics: { ...read.counts, durationMs: Math.round(repo.clock.monotonic() - startedMs) },
      labels: read.labels,
      warnings: read.warnings,
      requireComplete: job.requireComplete ?? false,
    });
    if (result.kind === "valid") return result.version;
    const policy = { storages: result.storages, quorum: result.storages.length };
    ({ root, sizeBytes, levels } = await askReader(
      context,
      readerHost,
      "ensureRoot",
      { session, token, policy },
      signal,
    ));
  }
  throw new AshlarError(ErrorCode.TryAgain, "the backup could not be placed at its storages", {
    remedy: "run it again: it goes on where it stopped",
  });
}

/** Heads, stamps, and only then the answer. */
async function acknowledge(
  context: CoordinatorContext,
  job: BackupJob,
  done: {
    readonly version: VersionRecord;
    readonly phases: PhaseClock;
    readonly session?: SessionId;
  },
  signal: AbortSignal | undefined,
): Promise<BackupResult> {
  const { repo, upkeep } = context;
  const { version, phases, session } = done;
  const { uid, policy } = version;
  const options = signal === undefined ? {} : { signal };
  const heads = await untilAborted(upkeep.putHeads({ uid }, options), signal);
  // The stamps are listed between putting a head and acknowledging it: a clone of the metadata may have been at work.
  // Somebody else may have changed its labels since: then a newer head is owed, and this one still makes it count.
  const withHead = heads.filter((head) => head.hasHead).map(({ storage }) => storage);
  const counting = await untilAborted(upkeep.checkStamps(withHead), signal);
  repo.log.debug("the version is valid", { uid, heads, counting });
  await requireThere(context, uid);
  const needed = job.requireComplete === true ? policy.storages.length : policy.quorum;
  if (policy.storages.filter((storage) => counting.includes(storage)).length < needed) {
    const reasons = heads.flatMap(({ storage, reason }) =>
      counting.includes(storage)
        ? []
        : [`${repo.storages.nameOf(storage)}: ${reason ?? "it could not be listed"}`],
    );
    throw new AshlarError(
      ErrorCode.Unavailable,
      `version ${uid} is stored, but too few storages took its head: ${reasons.join("; ")}`,
      { remedy: "it is completed by the next backup or `ashlar gc`" },
    );
  }
  phases.end("heads");
  if (session !== undefined) await settle(context, session);
  await endDead(
    context,
    await noticeDead(context),
    ({ record }) => record.volume === version.volume && record.kind === "backup",
  );
  await catchUp(context, policy, signal);
  const storages = await outcomes(context, version);
  phases.end("settle");
  return {
    uid,
    sizeBytes: version.sizeBytes,
    statistics: version.statistics as BackupResult["statistics"],
    warnings: version.warnings,
    storages,
    resumed: true,
    stages: phases.totals(),
  };
}

/** A version that somebody has removed again is not acknowledged as stored. */
async function requireThere({ repo }: CoordinatorContext, uid: VersionUid): Promise<void> {
  const version = await repo.kv.read((reader) => readVersion(reader, uid));
  if (version !== undefined && version.state !== "removed") return;
  throw new AshlarError(
    ErrorCode.NotFound,
    `version ${uid} was removed by somebody else when it had just been stored`,
    { remedy: "run the backup again if it is wanted" },
  );
}

async function outcomes(
  context: CoordinatorContext,
  version: VersionRecord,
): Promise<StorageOutcome[]> {
  const { repo } = context;
  const { completeAt } = await showVersion(repo.kv, version.uid);
  return version.policy.storages.map((storage) => {
    const complete = completeAt.includes(storage);
    return {
      storage: repo.storages.nameOf(storage),
      complete,
      reason: complete
        ? undefined
        : repo.storages.isAvailable(storage)
          ? "owed"
          : awayReason(context, storage),
    };
  });
}
