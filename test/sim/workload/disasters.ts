// Metadata, or a storage, that are put back from an older copy, lost, or cloned and used twice (DESIGN §4.10). Whatever the
// actors do before anybody notices must not cost what was acknowledged; then an operator stops everything and rebuilds.
import type { MemoryKvContents } from "#lib/drivers/memory/memory-kv.ts";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { CoordinatorContext } from "#services/coordinator/context.ts";
import { rebuild } from "#services/coordinator/rebuild/rebuild.ts";
import { checkConverged } from "../checkers/final-checkers.ts";
import { Violation } from "../checkers/violation.ts";
import type { Fault } from "../engine/faults.ts";
import { BLOCK_BYTES, describe, type ProcessSlot, type World } from "../world/world.ts";
import { drain, healthy, useStorages } from "./drain.ts";
import { isExcused, OPERATIONS } from "./operations.ts";

/** Copies of the world's state, taken while it works. */
export interface Copies {
  readonly metadata: MemoryKvContents;
  readonly storages: readonly ReadonlyMap<string, Buffer>[];
}

/** Takes copies, as a backup of the metadata or a mirror of a storage would. */
export function copyWorld(world: World): Copies {
  return {
    metadata: world.kv.snapshot(),
    storages: world.storages.map(({ objects }) => new Map(objects)),
  };
}

/** Late requests have landed by then, in ms. */
const QUIET_MS = 400_000;
/** What is tried before anybody rebuilds. */
const TRIED = ["backup", "change", "backup", "remove", "gc-sweep", "replicate", "gc", "scrub"];

type Disaster = (world: World, copies: Copies) => Promise<"reconcile" | "fresh">;

const DISASTERS: Readonly<Partial<Record<Fault, Disaster>>> = {
  "metadata-restored": async (world, { metadata }) => {
    await replaceMetadata(world, metadata);
    await tryToWork(world, coordinators(world));
    return "reconcile";
  },
  "metadata-lost": async (world) => {
    await replaceMetadata(world, undefined);
    return "fresh";
  },
  "storage-restored": async (world, { storages }) => {
    const index = world.random.below(world.storages.length);
    world.storages[index]?.restore(storages[index] ?? new Map());
    startAll(world);
    await tryToWork(world, coordinators(world));
    return "reconcile";
  },
  "metadata-cloned": async (world) => {
    startAll(world);
    const clone = world.startClone();
    const both = [...coordinators(world), ...coordinators({ slots: clone })];
    await tryToWork(world, both);
    await tryToWork(world, both);
    for (const slot of clone) world.kill(slot);
    return "reconcile";
  },
};

/** The disasters, by the names of their faults. */
export const DISASTER_NAMES = Object.keys(DISASTERS) as readonly Fault[];

/** Lets a disaster happen to a world at rest, and rebuilds. */
export async function strike(world: World, name: Fault, copies: Copies): Promise<void> {
  const disaster = DISASTERS[name];
  if (disaster === undefined) throw new Error(`${name} is no disaster`);
  world.trace.add(`disaster ${name}`);
  await stopAll(world);
  const how = await disaster(world, copies);
  world.faults.count(name);
  await stopAll(world);
  startAll(world);
  await rebuildFromAll(world, how === "fresh");
  await stopAll(world);
  startAll(world);
  // Metadata that were put back may have one out of use.
  await useStorages(world);
  await drain(world);
  await checkConverged(world);
}

function coordinators({ slots }: { readonly slots: readonly ProcessSlot[] }): ProcessSlot[] {
  return slots.filter(({ roles }) => roles.includes("coordinator"));
}

async function stopAll(world: World): Promise<void> {
  for (const slot of world.slots) world.kill(slot);
  await world.until(world.pass(QUIET_MS));
}

function startAll(world: World): void {
  for (const slot of world.slots) world.start(slot);
}

async function replaceMetadata(
  world: World,
  contents: MemoryKvContents | undefined,
): Promise<void> {
  await world.replaceMetadata(contents);
  startAll(world);
}

/** What operators do who have not noticed anything. Nothing may be lost by it, and it may well be refused. */
async function tryToWork(world: World, slots: readonly ProcessSlot[]): Promise<void> {
  for (const name of TRIED) {
    const slot = world.random.pick(slots);
    try {
      await world.until(OPERATIONS[name]?.run(world, slot) ?? Promise.resolve());
      world.trace.add(`done ${name}`);
    } catch (error) {
      world.trace.add(`failed ${name} ${error instanceof Error ? error.message : ""}`);
      if (isErrorCode(error, ErrorCode.Refused)) world.branches.hit("storage-refused");
      if (error instanceof Violation || !(isExcused(world, error) || isDamage(error))) throw error;
    }
  }
}

/** What went back lacks what it had. */
function isDamage(error: unknown): boolean {
  return error instanceof AshlarError && error.code !== ErrorCode.Internal;
}

async function rebuildFromAll(world: World, fresh: boolean): Promise<void> {
  const [slot] = coordinators(world);
  if (slot === undefined) return;
  world.commits.isRebuilding = true;
  const result = await healthy(world, "rebuild", slot, ({ repo }: CoordinatorContext) =>
    rebuild({
      ...repo,
      stores: world.storages.map(({ id, name }) => ({
        identity: id,
        name,
        site: name,
        store: repo.storages.store(id),
      })),
      fresh,
      blockBytes: BLOCK_BYTES,
    }),
  );
  world.endClone();
  world.commits.isRebuilding = false;
  world.commits.reset();
  if (result.versions.some(({ adopted }) => adopted)) world.branches.hit("rebuild-adopted");
  const problem = result.problems[0];
  if (problem !== undefined && !world.shape.hasFaults)
    throw new Violation("progress", `rebuild: ${describe(new Error(problem))}`);
}
