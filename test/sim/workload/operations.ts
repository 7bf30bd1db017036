// What operators do: the jobs of the command line, each as one operation of the workload, checked against the oracle where it
// gives something back.
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { parseRetentionRules } from "#lib/core/retention.ts";
import type { VersionUid } from "#lib/core/ids.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { headPrefix } from "#lib/repository/head-names.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import { narrowPolicy, widenPolicy } from "#lib/repository/transactions/policy.ts";
import { changeVersion } from "#lib/repository/transactions/version.ts";
import { runBackup } from "#services/coordinator/backup-job.ts";
import type { CoordinatorContext } from "#services/coordinator/context.ts";
import { decideRetention } from "#services/coordinator/enforce-job.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import type { BackupJob, DamagedBlock, RestoreJob } from "#services/coordinator/jobs.ts";
import { removeVersions } from "#services/coordinator/remove-job.ts";
import { runRestore } from "#services/coordinator/restore-job.ts";
import { readStatus } from "#services/coordinator/status.ts";
import { renewCopy } from "#services/writer/renew.ts";
import { demand } from "../checkers/violation.ts";
import { imageOf } from "../engine/sim-device.ts";
import { drawHints } from "./hints.ts";
import { isStream, snapshotUrl, urlOf, type Volume } from "../world/volumes.ts";
import { BLOCK_BYTES, type ProcessSlot, type World } from "../world/world.ts";

/** One operation, run by a coordinator. Resolves when it is done; rejects as the command would fail. */
export type Operation = (world: World, slot: ProcessSlot) => Promise<void>;

/** All operations with how often each is drawn, relative to the others. */
export const OPERATIONS: Readonly<
  Record<string, { readonly weight: number; readonly run: Operation }>
> = {
  backup: { weight: 11, run: backupVolume },
  "backup-snapshot": { weight: 6, run: backupSnapshot },
  "backup-with-hints": { weight: 7, run: backupWithHints },
  "backup-stream": { weight: 3, run: backupStream },
  change: { weight: 30, run: changeVolume },
  restore: { weight: 6, run: restoreVersion },
  "read-range": { weight: 24, run: readRange },
  remove: { weight: 7, run: removeVersion },
  enforce: { weight: 1, run: enforce },
  gc: { weight: 3, run: (world, slot) => gc(world, slot, {}) },
  "gc-sweep": { weight: 2, run: (world, slot) => gc(world, slot, { sweep: true }) },
  "gc-abandon": { weight: 1, run: (world, slot) => gc(world, slot, { abandon: true }) },
  scrub: { weight: 1, run: (world, slot) => scrubAll(world, slot, true) },
  "scrub-shallow": { weight: 1, run: (world, slot) => scrubAll(world, slot, false) },
  replicate: { weight: 1, run: replicate },
  label: { weight: 8, run: label },
  protect: { weight: 3, run: protect },
  status: { weight: 6, run: status },
  // In scenarios that name it.
  widen: { weight: 0, run: widen },
  narrow: { weight: 0, run: narrow },
  lose: { weight: 0, run: lose },
  renew: { weight: 0, run: renew },
  "gc-trim": { weight: 0, run: (world, slot) => gc(world, slot, { trim: true }) },
};

/** A quiet volume is one that nobody reads: only such a one changes. */
async function changeVolume(world: World): Promise<void> {
  const quiet = world.volumes.list.filter((volume) => volume.readers === 0);
  if (quiet.length === 0) return;
  const volume = world.random.pick(quiet);
  const from = world.random.pick(world.volumes.list);
  if (volume !== from && world.random.chance(0.15)) world.volumes.clone(from, volume);
  else world.volumes.change(volume);
  await Promise.resolve();
}

function backupVolume(world: World, slot: ProcessSlot): Promise<void> {
  const volume = world.random.pick(world.volumes.list);
  return backup(world, slot, volume, { source: urlOf(volume), volume: volume.name });
}

function backupSnapshot(world: World, slot: ProcessSlot): Promise<void> {
  const volume = world.random.pick(world.volumes.list);
  // The latest one again, as after a failure, or a new one.
  const isNew = volume.snapshots === 0 || world.random.chance(0.6);
  const snapshot = isNew ? world.volumes.snapshot(volume) : `snap${volume.snapshots}`;
  const source = snapshotUrl(volume, snapshot);
  return backup(world, slot, volume, { source, volume: volume.name, snapshot });
}

/** A stream is read once: whatever others remove or collect meanwhile, it must not have to be read again. */
function backupStream(world: World, slot: ProcessSlot): Promise<void> {
  const volume = world.random.pick(world.volumes.list);
  return backup(world, slot, volume, {
    source: world.volumes.stream(volume),
    volume: volume.name,
  });
}

async function backupWithHints(world: World, slot: ProcessSlot): Promise<void> {
  const volume = world.random.pick(world.volumes.list);
  const base = [...world.mirror.versions.values()].findLast(
    (version) => version.volume === volume.name && version.state === "valid",
  );
  const content = base === undefined ? undefined : world.oracle.contentOf(base.uid);
  if (base === undefined || content === undefined) return backupVolume(world, slot);
  const source = urlOf(volume);
  const { uid } = base;
  const { path, ended } = drawHints(world, volume, source, { uid, content });
  await backup(world, slot, volume, { source, volume: volume.name, base: uid, hints: path });
  // One that failed may go on as a zombie.
  ended(world.scheduler.nowMs);
}

async function backup(
  world: World,
  slot: ProcessSlot,
  volume: Volume,
  job: BackupJob,
): Promise<void> {
  volume.readers += 1;
  try {
    const result = await world.job(slot, (context) => runBackup(context, withPolicy(world, job)));
    world.oracle.acknowledged.add(result.uid);
    if (result.resumed) world.branches.hit("nodes-taken-over");
    if (result.warnings.some((warning) => warning.includes("hint")))
      world.branches.hit("hint-caught");
    // A clone has metadata of its own.
    if (!world.slots.includes(slot)) return;
    const state = world.mirror.versions.get(result.uid)?.state;
    if (state === "removed") world.oracle.acknowledged.delete(result.uid);
    demand(
      state !== undefined && state !== "incomplete",
      "I7",
      () => `${result.uid} was acknowledged, and is ${state ?? "gone"}`,
    );
    demandHeads(world, result.uid);
  } finally {
    volume.readers -= 1;
  }
}

/** I7: what was acknowledged can be restored from a quorum of its storages with all metadata gone: they have its head. */
function demandHeads({ mirror, storages, lostStorages }: World, uid: VersionUid): void {
  const version = mirror.versions.get(uid);
  if (version === undefined || version.state === "removed") return;
  const having = storages.filter(({ id, objects }) =>
    [...mirror.heads].some(
      ([at, head]) =>
        head.uid === uid &&
        !head.removed &&
        at.startsWith(id) &&
        objects.has(at.slice(id.length + 1)),
    ),
  );
  // Any that was given up may have had it.
  const needed = version.policy.quorum - lostStorages.length;
  demand(
    having.length >= needed,
    "I7",
    () => `${uid} was acknowledged with its head at ${having.length} of ${needed}`,
  );
}

/** All storages and a quorum of one or two; or some of them. */
function withPolicy({ random, storages }: World, job: BackupJob): BackupJob {
  const count = storages.length;
  // A stream cannot be read again for storages that its policy's quorum does not need: that may fail, and says so.
  const requireComplete = random.chance(0.15) && !isStream(job.source);
  if (random.chance(0.6)) {
    return { ...job, requireComplete, quorum: Math.min(count, 1 + random.below(2)) };
  }
  const some = random.shuffle(storages.map(({ name }) => name)).slice(0, 1 + random.below(count));
  const quorum = 1 + random.below(Math.min(2, some.length));
  return { ...job, requireComplete, storages: some.toSorted(), quorum };
}

function versions(world: World, which: (version: VersionRecord) => boolean): VersionRecord[] {
  return [...world.mirror.versions.values()].filter(which);
}

function pickVersion(
  world: World,
  which: (version: VersionRecord) => boolean,
): VersionRecord | undefined {
  const all = versions(world, which);
  return all.length === 0 ? undefined : world.random.pick(all);
}

const isThere = ({ state }: VersionRecord): boolean => state === "valid" || state === "invalid";

function restoreVersion(world: World, slot: ProcessSlot): Promise<void> {
  const version = pickVersion(world, isThere);
  if (version === undefined) return Promise.resolve();
  const keepGoing = world.random.chance(0.3);
  const sparse = world.random.chance(0.5);
  const differential = world.random.chance(0.3);
  return restoreAndCompare(world, slot, version, { keepGoing, sparse, differential });
}

function readRange(world: World, slot: ProcessSlot): Promise<void> {
  const version = pickVersion(world, (one) => isThere(one) && one.sizeBytes > 0);
  if (version === undefined) return Promise.resolve();
  const count = version.sizeBytes / BLOCK_BYTES;
  const first = world.random.below(count);
  const length = (1 + world.random.below(Math.min(8, count - first))) * BLOCK_BYTES;
  const range = { offset: first * BLOCK_BYTES, length };
  return restoreAndCompare(world, slot, version, { range });
}

/** I6: exactly the bytes that the backup read, but for what is named as damaged. */
export async function restoreAndCompare(
  world: World,
  slot: ProcessSlot,
  version: VersionRecord,
  how: Omit<RestoreJob, "uid" | "target">,
): Promise<void> {
  const { uid } = version;
  const target = `image-${world.scheduler.eventCount}`;
  const volume = world.volumes.list.find(({ name }) => name === version.volume);
  // Much of it is there already, and some of it is not.
  if (how.differential === true && volume !== undefined) {
    const data = Buffer.alloc(version.sizeBytes);
    imageOf(volume.content, BLOCK_BYTES).copy(data);
    world.images.set(target, { data, isFinished: false });
  }
  try {
    const result = await world.job(slot, (context) => runRestore(context, { uid, target, ...how }));
    const image = world.images.get(target);
    demand(image?.isFinished === true, "I6", () => `the restore of ${uid} left no image`);
    const data = image?.data ?? Buffer.alloc(0);
    const skip = damagedBlocks(world, data, result.damaged);
    const firstBlock = how.range === undefined ? undefined : how.range.offset / BLOCK_BYTES;
    const part = { skip, ...(firstBlock === undefined ? {} : { firstBlock }) };
    const problem = world.oracle.compare(uid, data, BLOCK_BYTES, part);
    demand(problem === undefined, "I6", () => `the restore of ${uid} is wrong: ${problem ?? ""}`);
  } catch (error) {
    // I6: an error says what is damaged, and where.
    demand(
      !isErrorCode(error, ErrorCode.Damaged) || error.details["id"] !== undefined,
      "I6",
      () => `the restore of ${uid} does not say what is damaged: ${String(error)}`,
    );
    throw error;
  } finally {
    world.images.delete(target);
  }
}

/** Blocks that a restore has left out: zeros, and only where something can have been lost. */
function damagedBlocks(
  world: World,
  image: Buffer,
  damaged: readonly DamagedBlock[],
): ReadonlySet<number> {
  const skip = new Set<number>();
  for (const { id, offset = 0, length } of damaged) {
    const isZero = image.subarray(offset, offset + length).every((byte) => byte === 0);
    demand(isZero, "I6", () => `${id} is damaged, and what was restored for it is not zero`);
    for (let at = offset; at < offset + length; at += BLOCK_BYTES) skip.add(at / BLOCK_BYTES);
  }
  demand(
    skip.size === 0 ||
      world.shape.hasLosses ||
      world.lostStorages.length > 0 ||
      world.storages.some(({ harmed }) => harmed.size > 0),
    "I6",
    () => `${skip.size} blocks are called damaged where nothing was lost`,
  );
  return skip;
}

async function removeVersion(world: World, slot: ProcessSlot): Promise<void> {
  const version = pickVersion(world, isThere);
  if (version === undefined) return;
  await removeAll(world, slot, [version.uid]);
}

async function removeAll(
  world: World,
  slot: ProcessSlot,
  uids: readonly VersionUid[],
): Promise<void> {
  await world.job(slot, async ({ repo, upkeep }) => {
    const { failed } = await removeVersions(repo.kv, uids);
    await upkeep.putHeads({});
    if (failed[0] !== undefined) throw failed[0].error;
  });
}

async function enforce(world: World, slot: ProcessSlot): Promise<void> {
  const uids = await world.job(slot, async ({ repo }) => {
    const rules = parseRetentionRules("latest3,hours2");
    const decisions = await decideRetention(repo.kv, rules, () => true, repo.clock.now());
    return decisions.filter(({ keep }) => !keep).map(({ uid }) => uid);
  });
  await removeAll(world, slot, uids);
}

async function gc(
  world: World,
  slot: ProcessSlot,
  how: { readonly sweep?: boolean; readonly abandon?: boolean; readonly trim?: boolean },
): Promise<void> {
  const result = await world.job(slot, (context) => collectGarbage(context, how));
  if (result.storages.some(({ orphans }) => orphans > 0)) world.branches.hit("sweep-found-orphan");
  const refused = result.storages.find((storage) => storage.refused !== undefined)?.refused;
  if (refused !== undefined) throw refused;
}

async function scrubAll(world: World, slot: ProcessSlot, deep: boolean): Promise<void> {
  await world.job(slot, ({ upkeep }) => upkeep.scrub({ deep }));
}

async function replicate(world: World, slot: ProcessSlot): Promise<void> {
  await world.job(slot, async ({ repo, upkeep }: CoordinatorContext) => {
    for (const { id } of repo.storages.list()) {
      await upkeep.fill(id);
      await upkeep.putHeads({ storage: id });
    }
  });
}

/** An older version is to be at a storage, too, to which it did not go. */
async function widen(world: World, slot: ProcessSlot): Promise<void> {
  const isNarrow = (version: VersionRecord): boolean =>
    isThere(version) && version.policy.storages.length < world.storages.length;
  const version = pickVersion(world, isNarrow);
  if (version === undefined) return;
  const { id } = world.random.pick(
    world.storages.filter((storage) => !version.policy.storages.includes(storage.id)),
  );
  const fillsAtOnce = world.random.chance(0.5);
  await world.job(slot, async ({ repo, upkeep }) => {
    await widenPolicy(repo.kv, repo.random, version.uid, [id]);
    if (!fillsAtOnce) return;
    await upkeep.fill(id);
    await upkeep.putHeads({ storage: id });
  });
}

/** A version is to be at one storage less. */
async function narrow(world: World, slot: ProcessSlot): Promise<void> {
  const version = pickVersion(
    world,
    ({ state, policy }) => state === "valid" && policy.storages.length > policy.quorum,
  );
  if (version === undefined) return;
  const { uid } = version;
  const storage = world.random.pick(version.policy.storages);
  const leavesAtOnce = world.random.chance(0.5);
  await world.job(slot, async (context) => {
    const { repo } = context;
    const prefix = headPrefix(repo.keys, uid);
    await narrowPolicy(repo.kv, { uid, storage, headPrefix: prefix, isLost: false });
    if (leavesAtOnce) await collectGarbage(context);
  });
}

/** Copies get other objects, as where the repository's key was changed. */
async function renew(world: World, slot: ProcessSlot): Promise<void> {
  const { mirror, random } = world;
  const ids = [...mirror.blocks.keys()];
  if (ids.length === 0) return;
  const chosen = Array.from({ length: 1 + random.below(8) }, () => random.pick(ids));
  await world.job(slot, async ({ repo }) => {
    for (const id of chosen) {
      const record = mirror.blocks.get(id);
      for (const copy of record?.copies ?? []) {
        if (record === undefined || copy.state !== "placed") continue;
        const { storage, generation } = copy;
        const { kind, plainBytes } = record;
        const name = objectName(kind, id, generation);
        const sealed = await repo.storages.get(storage, name);
        await renewCopy(repo, { kind, id, storage, generation, plainBytes }, sealed, 0);
      }
    }
  });
}

/** A storage burns down, and is given up. */
async function lose(world: World): Promise<void> {
  if (world.storages.length <= 2) return;
  await world.loseStorage(world.random.pick(world.storages));
  world.branches.hit("storage-lost");
}

async function label(world: World, slot: ProcessSlot): Promise<void> {
  const version = pickVersion(world, isThere);
  if (version === undefined) return;
  const labels = { note: String(world.random.below(100)) };
  await change(world, slot, version.uid, { labels });
}

async function protect(world: World, slot: ProcessSlot): Promise<void> {
  const version = pickVersion(world, isThere);
  if (version === undefined) return;
  await change(world, slot, version.uid, { protected: !version.protected });
}

async function change(
  world: World,
  slot: ProcessSlot,
  uid: VersionUid,
  how: Parameters<typeof changeVersion>[2],
): Promise<void> {
  await world.job(slot, async ({ repo, upkeep }) => {
    await changeVersion(repo.kv, uid, how);
    await upkeep.putHeads({ uid });
  });
}

async function status(world: World, slot: ProcessSlot): Promise<void> {
  await world.job(slot, async ({ repo, isOwnerAlive, settings }) => {
    await readStatus(repo.kv, isOwnerAlive, settings.resumeWindowMs);
  });
}

/** What an operation may fail with where nothing is broken: somebody else was faster. */
const RACES: ReadonlySet<ErrorCode> = new Set([ErrorCode.NotFound, ErrorCode.Refused]);
/** And where something is. */
const FAILURES: ReadonlySet<ErrorCode> = new Set([
  ErrorCode.Unavailable,
  ErrorCode.TryAgain,
  ErrorCode.Io,
  ErrorCode.Fenced,
]);

/** Whether an operation may fail so. */
export function isExcused(world: World, error: unknown): boolean {
  if (!(error instanceof AshlarError)) return false;
  if (RACES.has(error.code)) return true;
  // A base that has become invalid meanwhile, or whose policy does not fit.
  if (error.code === ErrorCode.Usage) return error.message.includes("cannot be the base");
  if (error.code === ErrorCode.Damaged) {
    return world.shape.hasLosses || world.lostStorages.length > 0;
  }
  return world.shape.hasFaults && FAILURES.has(error.code);
}
