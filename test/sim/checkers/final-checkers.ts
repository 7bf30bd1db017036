// What must hold once everything has healed and drained: I4, I6, I7, marks, and that nothing is left open.
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import { isLeaving } from "#lib/repository/block-record.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import { createSealer } from "#lib/repository/sealing.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { runFsck } from "#services/coordinator/fsck/fsck.ts";
import type { SimStorage } from "../engine/sim-storage.ts";
import { BLOCK_BYTES, type World } from "../world/world.ts";
import { checkNothingOpen } from "./nothing-open.ts";
import { LonelyReader } from "./restore-alone.ts";
import { demand } from "./violation.ts";
import { healthy } from "../workload/drain.ts";
import { restoreAndCompare } from "../workload/operations.ts";

/** Checks a world at rest. */
export async function checkConverged(world: World): Promise<void> {
  for (const storage of world.storages) checkObjects(world, storage);
  for (const storage of world.storages) checkLocks(world, storage);
  checkAskedFor(world);
  checkForgotten(world);
  checkMarks(world);
  checkLosses(world);
  checkAcknowledged(world);
  checkRemoved(world);
  const lonely = world.storages.map((storage) => new LonelyReader(storage, world.keys));
  for (const version of world.mirror.versions.values()) {
    await checkVersion(world, version, lonely);
  }
  checkNothingOpen(world);
  const slot = world.slots.find(({ roles }) => roles.includes("coordinator"));
  if (slot === undefined) return;
  const { findings } = await healthy(world, "fsck", slot, ({ repo }) =>
    runFsck(repo, { storages: true }),
  );
  demand(findings.length === 0, "I2", () => `fsck: ${JSON.stringify(findings.slice(0, 3))}`);
}

/** I4: a storage holds every object that a record names as placed, and none that no record names. */
function checkObjects({ mirror }: World, storage: SimStorage): void {
  const named = new Set<string>();
  for (const [id, { kind, copies }] of mirror.blocks) {
    for (const { storage: at, state, generation } of copies) {
      if (at !== storage.id) continue;
      const name = objectName(kind, id, generation);
      named.add(name);
      demand(
        state !== "placed" || storage.objects.has(name),
        "I4",
        () => `${storage.name} lacks ${name}, which is placed there`,
      );
    }
  }
  for (const [at, generation] of mirror.renewals) {
    const [id, block] = splitOnce(at) as [string, BlockId];
    const kind = mirror.blocks.get(block)?.kind;
    if (id === storage.id && kind !== undefined) {
      named.add(objectName(kind, block, generation as Generation));
    }
  }
  for (const [at, { state }] of mirror.heads) {
    const [id, name] = splitOnce(at);
    if (id === storage.id && state !== "trash") named.add(name);
  }
  // Where listings may lag, nothing is deleted.
  if (storage.lagging) return;
  for (const name of storage.objects.keys()) {
    const isOurs = name.startsWith("stamps/") || name.startsWith("keys/");
    demand(
      isOurs || named.has(name),
      "I4",
      () => `${storage.name} has ${name}, which nothing names`,
    );
  }
}

/** What was given up the metadata do not name any more, but as the only place of what is lost. */
function checkForgotten({ mirror, lostStorages }: World): void {
  const isLost = (storage: StorageId): boolean => lostStorages.some(({ id }) => id === storage);
  for (const { id } of lostStorages) {
    for (const [block, { copies }] of mirror.blocks) {
      demand(
        !copies.some(({ storage }) => storage === id),
        "I4",
        () => `${block} is named at ${id}`,
      );
    }
    for (const { uid, state, policy } of mirror.versions.values()) {
      const isForgotten = !policy.storages.includes(id) || policy.storages.every(isLost);
      demand(isForgotten || state === "removed", "I4", () => `${uid} is to be at ${id}`);
    }
  }
}

/** A storage has copies of just what the versions need whose policy names it, but for last good ones. */
function checkAskedFor({ mirror, storages }: World): void {
  const isAt = (id: BlockId, storage: StorageId): boolean =>
    mirror.blocks.get(id)?.copies.some((copy) => copy.storage === storage) === true;
  for (const [id, { copies }] of mirror.blocks) {
    for (const { storage: at } of copies) {
      if (storages.find((storage) => storage.id === at)?.lagging === true) continue;
      if (!copies.some((copy) => copy.state === "placed" && copy.storage !== at)) continue;
      const parents = [...(mirror.references.get(id)?.values() ?? [])];
      const isAskedFor = parents.some((parent) => {
        if (parent.kind === "node") return isAt(parent.id, at);
        if (parent.kind === "hold") return true;
        return mirror.versions.get(parent.uid)?.policy.storages.includes(at);
      });
      demand(isAskedFor, "I4", () => `no policy asks for the copy of ${id} at ${at}`);
    }
  }
}

function splitOnce(text: string): [string, string] {
  const at = text.indexOf("/");
  return [text.slice(0, at), text.slice(at + 1)];
}

/** The round of upkeep that has just ended has extended what was due; the rest had a quarter of a period left. */
function checkLocks(world: World, storage: SimStorage): void {
  const { lockMs, locks } = storage;
  if (lockMs === undefined || world.mirror.storages.get(storage.id)?.lockMs === undefined) return;
  const leastMs = world.wallMs() + lockMs / 8;
  const demandLock = (name: string): void =>
    demand(
      (locks.get(name) ?? 0) >= leastMs,
      "locks",
      () => `${name} at ${storage.name} is locked until ${locks.get(name)}, now is ${leastMs}`,
    );
  for (const [id, { kind, copies, condemnedEpoch }] of world.mirror.blocks) {
    const isReferenced = (world.mirror.references.get(id)?.size ?? 0) > 0;
    if (!isReferenced || condemnedEpoch !== undefined) continue;
    for (const copy of copies) {
      if (copy.storage !== storage.id || copy.state !== "placed" || isLeaving(copy)) continue;
      demandLock(objectName(kind, id, copy.generation));
    }
  }
  for (const [at, { state }] of world.mirror.heads) {
    const [id, name] = splitOnce(at);
    if (id === storage.id && state === "confirmed") demandLock(name);
  }
}

/** Damaged exactly where there is no good copy, or a child is marked; invalid exactly where the root is. */
function checkMarks({ mirror }: World): void {
  const isMarked = (id: BlockId): boolean => mirror.blocks.get(id)?.damaged !== false;
  for (const [id, record] of mirror.blocks) {
    const children = mirror.nodes.get(id) ?? [];
    const isDamaged =
      !record.copies.some((copy) => copy.state === "placed") || children.some(isMarked);
    demand(
      record.damaged === isDamaged,
      "marks",
      () => `${record.kind} ${id} is ${record.damaged ? "" : "not "}marked as damaged`,
    );
  }
  for (const { uid, state, root } of mirror.versions.values()) {
    if (root === undefined || (state !== "valid" && state !== "invalid")) continue;
    demand((state === "invalid") === isMarked(root), "marks", () => `${uid} is ${state}`);
  }
}

/** Nothing is given up that is there: of what has no good copy, no copy that was judged to be bad opens. */
function checkLosses({ mirror, storages, keys }: World): void {
  const sealer = createSealer(keys, { compression: keys.compression });
  for (const [id, { kind, copies }] of mirror.blocks) {
    if (copies.some((copy) => copy.state === "placed")) continue;
    for (const { storage: at, state, generation } of copies) {
      // One that is owed may be there, and wait for what it names.
      if (state !== "bad") continue;
      const name = objectName(kind, id, generation);
      const sealed = storages.find((storage) => storage.id === at)?.objects.get(name);
      let isWhole = sealed !== undefined;
      try {
        if (sealed !== undefined) sealer.open({ kind, id, sealed });
      } catch {
        isWhole = false;
      }
      demand(!isWhole, "I7", () => `${name} at ${at} is whole, and counts as lost`);
    }
  }
}

/** A removed version leaves no head: each storage has had its last revision, which went last. */
function checkRemoved({ mirror, storages }: World): void {
  for (const [at, { uid, state }] of mirror.heads) {
    const [id] = splitOnce(at);
    if (storages.some((storage) => storage.lagging && storage.id === id)) continue;
    demand(
      mirror.versions.get(uid)?.state !== "removed" || state === "trash",
      "progress",
      () => `${uid} was removed, and its head ${at} is ${state}`,
    );
  }
}

/** Whether storages have lost anything. */
function hasLost({ storages, lostStorages }: World): boolean {
  return lostStorages.length > 0 || storages.some(({ harmed }) => harmed.size > 0);
}

/** I7: what was acknowledged is there, and valid unless storages have lost it. */
function checkAcknowledged(world: World): void {
  const { mirror, oracle } = world;
  const hasLosses = hasLost(world);
  for (const uid of oracle.acknowledged) {
    const state = mirror.versions.get(uid)?.state;
    demand(
      state === "valid" || (state === "invalid" && hasLosses),
      "I7",
      () => `${uid} was acknowledged, and is ${state ?? "gone"}`,
    );
  }
}

/** I6: a valid version restores exactly, through the actors and from each storage that has it whole, with the keys alone. */
async function checkVersion(
  world: World,
  version: VersionRecord,
  lonely: readonly LonelyReader[],
): Promise<void> {
  if (version.state !== "valid" || version.root === undefined) return;
  const slot = world.slots.find(({ roles }) => roles.includes("coordinator"));
  if (slot !== undefined) {
    // By hand of `until`: the restore runs in the world.
    await world.until(restoreAndCompare(world, slot, version, {}));
  }
  const root = world.mirror.blocks.get(version.root);
  for (const [index, storage] of world.storages.entries()) {
    const isWhole = root?.copies.some(
      (copy) => copy.storage === storage.id && copy.state === "placed",
    );
    if (!version.policy.storages.includes(storage.id)) continue;
    if (isWhole !== true) {
      // What was lost cannot be copied; but where nothing was, every storage of the policy gets all of it.
      demand(hasLost(world), "progress", () => `${version.uid} is not whole at ${storage.name}`);
      continue;
    }
    const image = lonely[index]?.read(version.uid) ?? "";
    if (typeof image === "string") {
      demand(
        hasBadCopies(world, storage),
        "I6",
        () => `${version.uid} at ${storage.name}: ${image}`,
      );
      continue;
    }
    const problem = world.oracle.compare(version.uid, image, BLOCK_BYTES);
    demand(
      problem === undefined,
      "I6",
      () => `${version.uid} from ${storage.name} alone is wrong: ${problem ?? ""}`,
    );
  }
}

/** A storage with copies that are known to be bad may lack parts. */
function hasBadCopies({ mirror }: World, storage: SimStorage): boolean {
  for (const { copies } of mirror.blocks.values()) {
    if (copies.some((copy) => copy.storage === storage.id && copy.state === "bad")) return true;
  }
  return false;
}
