// What each kind of job does, what it must not do beside another one, and which host's agent it needs.
import { normalizeLocation } from "#lib/core/allow-list.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { parseRetentionRules } from "#lib/core/retention.ts";
import { asVersionUid, checkSnapshotName, checkVolumeName } from "#lib/core/uid.ts";
import type { VersionUid } from "#lib/core/ids.ts";
import { keepCycle, type LockWish } from "#lib/repository/transactions/job.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { JobRun } from "#lib/repository/records.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { runBackup } from "../backup-job.ts";
import { requireLevels } from "../choose-policy.ts";
import type { CoordinatorContext } from "../context.ts";
import { decideRetention } from "../enforce-job.ts";
import { runFsck } from "../fsck/fsck.ts";
import { collectGarbage } from "../gc-job.ts";
import type { JobOptions, Progress } from "../jobs.ts";
import { resolveVersion } from "../listing.ts";
import { checkRemovable, removeVersions } from "../remove-job.ts";
import { runRestore } from "../restore-job.ts";
import { compileSelection } from "../selection.ts";
import { knownKind, readSpec, type JobKind, type JobSpec } from "./job-spec.ts";

/** How many jobs may be under way at once. */
export interface JobLimits {
  readonly perHost: number;
  readonly perStorage: number;
  /** Names of the storages that a backup goes to unless it names others. */
  readonly storages: readonly string[];
}

/** A device of a host that a job reads or writes. */
export interface DeviceWish {
  readonly use: "source" | "target";
  readonly url: string;
  /** The host that was asked for. */
  readonly host: string | undefined;
}

type Result = Readonly<Record<string, unknown>>;

/** A kind of job. */
interface Kind<K extends JobKind> {
  /** Something must fit together that no single field tells. */
  readonly check?: (spec: JobSpec<K>) => void;
  readonly device?: (spec: JobSpec<K>) => DeviceWish;
  /** @param host whose device it is */
  readonly locks: (
    spec: JobSpec<K>,
    host: string | undefined,
    limits: JobLimits,
  ) => readonly LockWish[];
  readonly run: (
    context: CoordinatorContext,
    spec: JobSpec<K>,
    options: JobOptions & { readonly host: string | undefined },
  ) => Promise<Result>;
}

type Kinds = { readonly [K in JobKind]: Kind<K> };

const KINDS: Kinds = {
  backup: {
    check: (spec) => {
      checkVolumeName(spec.volume);
      if (spec.uid !== undefined) asVersionUid(spec.uid);
      if (spec.snapshot !== undefined) checkSnapshotName(spec.snapshot);
      requireLevels(spec.compression ?? "zstd", spec.compressionLevel);
      if (spec.source === "-") throw noStream("source");
    },
    device: ({ source, host }) => ({ use: "source", url: source, host }),
    // Two versions of one volume at once would each send what the other sends.
    locks: ({ volume, storages }, _, limits) => [
      { name: `volume/${volume}`, places: 1 },
      ...storageLocks(storages ?? limits.storages, limits),
    ],
    run: backup,
  },
  restore: {
    check: (spec) => {
      if (spec.target === "-") throw noStream("target");
    },
    device: ({ target, host }) => ({ use: "target", url: target, host }),
    locks: ({ target }, host) => [
      { name: `target/${host ?? ""}/${normalizeLocation(target)}`, places: 1 },
    ],
    run: restore,
  },
  remove: {
    // A job may be begun again: what "the youngest" means would then be another version than was meant.
    check: ({ versions }) => versions.forEach((version) => requireUid(version)),
    locks: () => [],
    run: remove,
  },
  enforce: {
    check: ({ rules }) => void parseRetentionRules(rules),
    locks: () => [{ name: "enforce", places: 1 }],
    run: enforce,
  },
  gc: { locks: () => [{ name: "gc", places: 1 }], run: gc },
  scrub: { locks: () => [{ name: "scrub", places: 1 }], run: scrub },
  replicate: {
    locks: ({ storages }, _, limits) => [
      { name: "replicate", places: 1 },
      ...storageLocks(storages ?? [], limits),
    ],
    run: replicate,
  },
  fsck: { locks: () => [{ name: "fsck", places: 1 }], run: fsck },
};

/** In the order of their names: of two jobs that want the same ones neither has half of them. */
function storageLocks(names: readonly string[], { perStorage }: JobLimits): LockWish[] {
  return [...new Set(names)]
    .sort()
    .map((name) => ({ name: `storage/${name}`, places: perStorage }));
}

function noStream(field: string): AshlarError {
  return new AshlarError(ErrorCode.Usage, `${field}: a job has no standard input or output`, {
    details: { field },
  });
}

/** A job whose spec was read. */
export interface ReadJob {
  readonly device: DeviceWish | undefined;
  locks(host: string | undefined, limits: JobLimits): LockWish[];
  run(
    context: CoordinatorContext,
    options: JobOptions & { readonly host: string | undefined },
  ): Promise<Result>;
}

/** Reads a job; Usage where its kind is not known here, as of one that a newer coordinator has recorded, or its spec is wrong. */
export function readJob(kind: string, spec: unknown): ReadJob {
  return readKnown(knownKind(kind), spec);
}

function readKnown<K extends JobKind>(kind: K, spec: unknown): ReadJob {
  const { check, device, locks, run } = KINDS[kind] as Kind<K>;
  const read = readSpec(kind, spec);
  check?.(read);
  return {
    device: device?.(read),
    locks: (host, limits) => [
      ...locks(read, host, limits),
      ...(host === undefined ? [] : [{ name: `host/${host}`, places: limits.perHost }]),
    ],
    run: (context, options) => run(context, read, options),
  };
}

async function backup(
  context: CoordinatorContext,
  { blockSize, base, uid, ...spec }: JobSpec<"backup">,
  { host, ...options }: JobOptions & { readonly host: string | undefined },
): Promise<Result> {
  const { kv } = context.repo;
  const result = await runBackup(
    context,
    {
      ...definedOnly(spec),
      volume: spec.volume,
      source: spec.source,
      ...(host === undefined ? {} : { host }),
      ...(uid === undefined ? {} : { uid: asVersionUid(uid) }),
      ...(base === undefined ? {} : { base: await resolveVersion(kv, base) }),
      ...(blockSize === undefined ? {} : { blockBytes: blockSize }),
    },
    options,
  );
  return { ...result };
}

async function restore(
  context: CoordinatorContext,
  { version, offset, length, ...spec }: JobSpec<"restore">,
  { host, ...options }: JobOptions & { readonly host: string | undefined },
): Promise<Result> {
  const uid = await resolveVersion(context.repo.kv, version);
  const range = length === undefined ? undefined : { offset: offset ?? 0, length };
  if (range === undefined && offset !== undefined) {
    throw new AshlarError(ErrorCode.Usage, "offset: it needs length beside it", {
      details: { field: "length" },
    });
  }
  const result = await runRestore(
    context,
    {
      ...definedOnly(spec),
      target: spec.target,
      uid,
      ...(host === undefined ? {} : { host }),
      ...(range === undefined ? {} : { range }),
    },
    options,
  );
  return { ...result };
}

async function remove(
  context: CoordinatorContext,
  { versions }: JobSpec<"remove">,
  { signal }: JobOptions,
): Promise<Result> {
  const { kv } = context.repo;
  const uids: VersionUid[] = [];
  for (const uid of new Set(versions.map(requireUid))) {
    const version = await kv.read((reader) => readVersion(reader, uid));
    // An earlier try has removed it.
    if (version?.state !== "removed") uids.push(uid);
  }
  await checkRemovable(kv, uids);
  return removeAll(context, uids, signal);
}

function requireUid(text: string): VersionUid {
  if (!text.includes("@")) return asVersionUid(text);
  throw new AshlarError(ErrorCode.Usage, `versions: ${JSON.stringify(text)} is no uid`, {
    remedy: "name versions by their whole uids: a removal may be begun again",
    details: { field: "versions" },
  });
}

async function enforce(
  context: CoordinatorContext,
  { rules, filter }: JobSpec<"enforce">,
  { signal }: JobOptions,
): Promise<Result> {
  const { kv, clock, storages } = context.repo;
  const nowMs = clock.now();
  const include = await compileSelection(filter, (storage) => storages.nameOf(storage), nowMs);
  const decisions = await decideRetention(kv, parseRetentionRules(rules), include, nowMs);
  const uids = decisions.filter(({ keep }) => !keep).map(({ uid }) => uid);
  return { kept: decisions.length - uids.length, ...(await removeAll(context, uids, signal)) };
}

async function removeAll(
  context: CoordinatorContext,
  uids: Parameters<typeof removeVersions>[1],
  signal: AbortSignal | undefined,
): Promise<Result> {
  const { removed, failed } = await removeVersions(context.repo.kv, uids, signal);
  if (removed.length > 0) await context.upkeep.putHeads({}, signal === undefined ? {} : { signal });
  if (failed[0] !== undefined) throw failed[0].error;
  return { removed };
}

async function gc(
  context: CoordinatorContext,
  { sweep = false, abandon = false, trim = false }: JobSpec<"gc">,
  { signal }: JobOptions,
): Promise<Result> {
  const { storages, ...result } = await collectGarbage(context, {
    sweep,
    abandon,
    trim,
    ...(signal === undefined ? {} : { signal }),
  });
  const refused = storages.find((each) => each.refused !== undefined)?.refused;
  if (refused !== undefined) throw refused;
  return { ...result, storages };
}

async function scrub(
  { repo, upkeep, run }: CoordinatorContext,
  { deep = false, storages, samplePercent, budgetTime, budgetBytes }: JobSpec<"scrub">,
  { signal, onProgress }: JobOptions,
): Promise<Result> {
  const { damaged, ...result } = await upkeep.scrub({
    onProgress: (bytesDone) => onProgress?.(verifying(bytesDone)),
    deep,
    // Another try of this job, here or elsewhere, goes on where this one has come to.
    ...(run === undefined ? {} : { keepCycle: (cycleMs) => cycleOf(repo.kv, run, cycleMs) }),
    ...(storages === undefined
      ? {}
      : { storages: storages.map((each) => repo.storages.byName(each).id) }),
    ...(samplePercent === undefined ? {} : { samplePercent }),
    budget: {
      ...(budgetTime === undefined ? {} : { ms: budgetTime }),
      ...(budgetBytes === undefined ? {} : { bytes: budgetBytes }),
    },
    ...(signal === undefined ? {} : { signal }),
  });
  if (damaged.length === 0) return { ...result };
  // Healed or not: something has damaged them.
  const lost = damaged.filter(({ healed }) => !healed).length;
  throw new AshlarError(
    ErrorCode.Damaged,
    `${damaged.length} damaged objects were found, ${damaged.length - lost} of them healed`,
    { details: { ...result, damaged } },
  );
}

/** Sealed bytes; how many there are in all nobody has counted. */
function verifying(bytesDone: number): Progress {
  const none = { bytesTotal: undefined, bytesNew: 0, bytesKnown: 0, bytesSparse: 0 };
  return { phase: "verifying", bytesDone, ...none };
}

async function cycleOf(kv: Kv, { job, token }: JobRun, cycleMs: number): Promise<number> {
  const kept = await keepCycle(kv, job, token, cycleMs);
  if (kept !== undefined) return kept;
  throw new AshlarError(ErrorCode.Fenced, `job ${job} is somebody else's by now`);
}

async function replicate(
  context: CoordinatorContext,
  { storages }: JobSpec<"replicate">,
  { signal }: JobOptions,
): Promise<Result> {
  const { repo, upkeep } = context;
  const options = signal === undefined ? {} : { signal };
  const names = storages ?? repo.storages.list().map(({ name }) => name);
  const outcomes: { name: string; filled: number; owed: number; headsOwed: number }[] = [];
  for (const name of names) {
    const { id } = repo.storages.byName(name);
    const { filled, owed } = await upkeep.fill(id, options);
    const [heads] = await upkeep.putHeads({ storage: id }, options);
    outcomes.push({ name, filled, owed, headsOwed: heads?.owed ?? 0 });
  }
  const behind = outcomes.filter(({ owed, headsOwed }) => owed + headsOwed > 0);
  if (behind.length === 0) return { storages: outcomes };
  throw new AshlarError(
    ErrorCode.Unavailable,
    `still owed: ${behind.map(({ name }) => name).join(", ")}`,
    { details: { storages: outcomes } },
  );
}

async function fsck(
  { repo }: CoordinatorContext,
  { repair = false, storages = true }: JobSpec<"fsck">,
  { signal }: JobOptions,
): Promise<Result> {
  const options = { repair, storages, ...(signal === undefined ? {} : { signal }) };
  const result = await runFsck(repo, options);
  if (result.unrepairedCount === 0) return { ...result };
  throw new AshlarError(ErrorCode.Damaged, `${result.unrepairedCount} problems were found`, {
    details: { ...result, findings: result.findings.slice(0, 100) },
  });
}

type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> };

/** Without the fields that were left out. */
function definedOnly<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(
    Object.entries(value).filter(([, each]) => each !== undefined),
  ) as Defined<T>;
}
