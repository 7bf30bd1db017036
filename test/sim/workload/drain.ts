// After the faults: everything is there again, zombies wake up and see that they are out of date, late requests land, and what
// operators would do anyway (a backup of each volume, gc, replicate, scrub) brings the repository to rest.
import { parse } from "#lib/repository/keyspace.ts";
import { addStorage } from "#lib/repository/transactions/storage.ts";
import { runBackup } from "#services/coordinator/backup-job.ts";
import type { CoordinatorContext } from "#services/coordinator/context.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { checkNothingOpen } from "../checkers/nothing-open.ts";
import { Violation } from "../checkers/violation.ts";
import { urlOf } from "../world/volumes.ts";
import { describe, type ProcessSlot, type World } from "../world/world.ts";

/** Late requests have landed, repeated ones were answered, leases have run out by then. */
const SETTLE_MS = 400_000;
/** Rounds of upkeep after which the queues must be empty. */
const ROUNDS_MAX = 10;
/** A healthy job that takes longer has lost its progress, in ms. */
const JOB_MS_MAX = 1_800_000;

/** Ends all faults. */
export async function heal(world: World): Promise<void> {
  world.faults.isOver = true;
  for (const storage of world.storages) {
    storage.away = false;
    storage.capacityBytes = Infinity;
  }
  await useStorages(world);
  if (!world.shape.hasFaults) return;
  for (const { running } of world.slots) {
    if (running === undefined) continue;
    running.process.pausedUntilMs = 0;
    running.process.skewMs = 0;
  }
  for (const process of world.zombies) process.pausedUntilMs = 0;
  await world.until(world.pass(SETTLE_MS));
  // All operators have gone home: whatever still runs is nobody's.
  checkNothingOpen(world);
  // Zombies have had their say. Their hosts are switched off, as those of processes that nobody needs any more.
  for (const process of world.zombies) world.retire(process);
  for (const slot of world.slots) {
    // Whoever was started while a storage was away opens it now, as the next command would.
    world.kill(slot);
    world.start(slot);
  }
}

/** Puts every storage in use that is not. */
export async function useStorages({ kv, mirror, storages }: World): Promise<void> {
  for (const { id } of storages) {
    const record = mirror.storages.get(id);
    if (record === undefined || record.state === "in-use") continue;
    await addStorage(kv, id, { ...record, state: "in-use" });
  }
}

/** Brings the repository to rest; a {@link Violation} of progress where it does not come to rest. */
export async function drain(world: World): Promise<void> {
  for (const volume of world.volumes.list) {
    await healthy(world, "backup", coordinators(world)[0] as ProcessSlot, async (context) => {
      const job = { source: urlOf(volume), volume: volume.name };
      const { uid } = await runBackup(context, job);
      world.oracle.acknowledged.add(uid);
    });
  }
  const all = coordinators(world);
  let isLooked = false;
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    // Once on every host: whose processes have died there is known there first. Then anybody will do.
    const slots = round === 0 ? all : all.slice(0, 1);
    for (const [index, slot] of slots.entries()) {
      await healthy(world, "gc", slot, (context) => upkeep(context, round + index === 0));
    }
    const { lockMs } = world.shape;
    if (isAtRest(world) && (lockMs === undefined || isLooked)) return;
    if (lockMs === undefined) continue;
    // What is locked waits; and what was needed by nobody, and is again, is looked at within a quarter of a period.
    isLooked = isAtRest(world);
    await world.until(world.pass(isLooked ? lockMs / 4 : lockMs));
  }
  throw new Violation("progress", `after ${ROUNDS_MAX} rounds of gc: ${unrest(world).join("; ")}`);
}

async function upkeep(context: CoordinatorContext, isFirst: boolean): Promise<void> {
  const { repo, upkeep: keep } = context;
  if (isFirst) {
    for (const { id } of repo.storages.list()) await keep.fill(id);
    await keep.scrub({ deep: true });
  }
  const result = await collectGarbage(context, { abandon: true, sweep: true, trim: true });
  const refused = result.storages.find((storage) => storage.refused !== undefined)?.refused;
  if (refused !== undefined) throw refused;
}

function coordinators(world: World): ProcessSlot[] {
  return world.slots.filter(({ roles }) => roles.includes("coordinator"));
}

/** A job that has no excuse any more. */
export async function healthy<T>(
  world: World,
  name: string,
  slot: ProcessSlot,
  work: (context: CoordinatorContext) => Promise<T>,
): Promise<T> {
  let isDone = false;
  const late = world.pass(JOB_MS_MAX).then(() => {
    if (!isDone) world.fail(new Violation("progress", `${name} does not end on ${slot.name}`));
  });
  late.catch(() => undefined);
  try {
    return await world.until(world.job(slot, work));
  } catch (error) {
    if (error instanceof Violation) throw error;
    throw new Violation("progress", `${name} fails after healing: ${describe(error)}`);
  } finally {
    isDone = true;
  }
}

/** Trash of this run's own number stays until the next run; everything else must be gone. */
function isAtRest(world: World): boolean {
  return unrest(world).length === 0;
}

/** What is not at rest. What no storage has a good copy of any more stays owed for ever. */
function unrest(world: World): string[] {
  const { mirror } = world;
  const out: string[] = [];
  for (const [queue, keys] of mirror.queues) {
    if (["owed copies", "owed heads", "trash", "leaving copies", "renewals"].includes(queue))
      continue;
    if (keys.size > 0) out.push(`${keys.size} ${queue}`);
  }
  for (const storage of world.storages) {
    const trash = [...(mirror.queues.get("trash") ?? [])].filter((key) =>
      key.startsWith(`t/${Buffer.from(storage.id, "hex").toString("latin1")}`),
    );
    // Where listings may lag, nothing is deleted.
    if (!storage.lagging && trash.length > 0) out.push(`${trash.length} trash at ${storage.name}`);
  }
  for (const key of mirror.queues.get("leaving copies") ?? []) {
    const { storage: at, id } = parse.leaving(Buffer.from(key, "latin1"));
    const copies = mirror.blocks.get(id)?.copies ?? [];
    // The last good copy stays, and where nothing is deleted, what a head names does.
    const isLast = !copies.some((copy) => copy.state === "placed" && copy.storage !== at);
    const isLagging = world.storages.find((storage) => storage.id === at)?.lagging === true;
    if (!isLast && !isLagging) out.push(`${id} is to leave ${at}`);
  }
  for (const [id, record] of mirror.blocks) {
    const hasGood = record.copies.some((copy) => copy.state === "placed");
    if (record.copies.some((copy) => copy.state === "coming")) out.push(`${id} is coming`);
    if (!record.damaged && hasGood && record.copies.some((copy) => copy.state === "owed")) {
      out.push(`${id} is owed`);
    }
  }
  for (const key of mirror.queues.get("owed heads") ?? []) {
    const { storage, uid } = parse.owedHead(Buffer.from(key, "latin1"));
    const root = mirror.versions.get(uid)?.root;
    const copies = root === undefined ? [] : (mirror.blocks.get(root)?.copies ?? []);
    // What no storage has a good copy of stays owed, and a head waits for its root.
    const isHere = copies.some((copy) => copy.storage === storage && copy.state === "placed");
    if (root === undefined || isHere) out.push(`the head of ${uid} is owed to ${storage}`);
  }
  const sessions = [...mirror.sessions.values()];
  out.push(...sessions.map(({ kind, state, uid }) => `a ${kind} session of ${uid} is ${state}`));
  return out;
}
