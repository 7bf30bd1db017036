// What goes wrong around the actors: processes die and stand still, storages go away, fill up, rot and change their state,
// clocks jump, streams are lost. Each blow is drawn from the seed, at moments drawn from the seed.
import { setStorageState } from "#lib/repository/transactions/storage.ts";
import type { Fault } from "../engine/faults.ts";
import { flipBit, type SimStorage } from "../engine/sim-storage.ts";
import type { ProcessSlot, World } from "../world/world.ts";

/** Time between two blows, in ms, at most. */
const EVERY_MS_MAX = 1500;
const RESTART_MS_MAX = 20_000;
const PAUSE_MS_MIN = 1000;
const PAUSE_MS_MAX = 240_000;
const AWAY_MS_MAX = 60_000;
const WEEK_MS = 7 * 86_400_000;
const CLOCK_JUMP_MS_MAX = 3_600_000;
/** A full storage has room for so many bytes more. */
const ROOM_BYTES_MAX = 2000;

type Blow = (world: World) => boolean;

/** The blows; each returns whether it took effect. */
const BLOWS: Readonly<Partial<Record<Fault, Blow>>> = {
  kill: killOne,
  pause: pauseOne,
  "streams-lost": loseStreams,
  "storage-away": takeAway,
  "storage-full": fillUp,
  "storage-state": changeState,
  "object-corrupt": (world) => harmOne(world, corrupted),
  "object-truncated": (world) =>
    harmOne(world, (bytes) => bytes.subarray(0, world.random.below(bytes.length))),
  "object-swapped": (world) =>
    harmOne(world, (_, storage) => world.random.pick([...dataObjects(storage).values()])),
  "object-lost": (world) => harmOne(world, () => undefined),
  "clock-jump": jumpClock,
  "week-passes": passWeek,
};

/** Strikes blows until `isOver`. */
export async function rage(world: World, isOver: () => boolean): Promise<void> {
  const kinds = Object.keys(BLOWS).filter((kind) => world.faults.isPlanned(kind as Fault));
  while (kinds.length > 0 && !isOver()) {
    await world.pass(world.random.below(EVERY_MS_MAX));
    if (isOver()) return;
    const kind = world.random.pick(kinds) as Fault;
    if (!world.faults.draws(kind)) continue;
    if (BLOWS[kind]?.(world) === true) {
      world.trace.add(`blow ${kind}`);
      world.faults.count(kind);
    }
  }
}

function pickRunning(world: World): ProcessSlot | undefined {
  const running = world.slots.filter((slot) => slot.running !== undefined);
  return running.length === 0 ? undefined : world.random.pick(running);
}

function killOne(world: World): boolean {
  const slot = pickRunning(world);
  if (slot === undefined) return false;
  world.kill(slot);
  const ms = world.random.below(RESTART_MS_MAX);
  world.scheduler.after(ms, undefined, `start ${slot.name}`, () => world.start(slot));
  return true;
}

/**
 * A process that stands still past its lease, and wakes up as a zombie. Another one may take its place meanwhile; but for the
 * agent of a host, of which there is one only.
 */
function pauseOne(world: World): boolean {
  const slot = pickRunning(world);
  if (slot === undefined) return false;
  slot.running?.process.pause(PAUSE_MS_MIN + world.random.below(PAUSE_MS_MAX));
  if (!slot.roles.includes("reader") && world.random.chance(0.3)) world.abandonZombie(slot);
  return true;
}

function takeAway(world: World): boolean {
  const storage = world.random.pick(world.storages);
  if (storage.away) return false;
  storage.away = true;
  const ms = world.random.below(AWAY_MS_MAX);
  world.scheduler.after(ms, undefined, `back ${storage.name}`, () => (storage.away = false));
  return true;
}

function fillUp(world: World): boolean {
  const storage = world.random.pick(world.storages);
  storage.capacityBytes = storage.usedBytes + world.random.below(ROOM_BYTES_MAX);
  const ms = world.random.below(AWAY_MS_MAX);
  world.scheduler.after(ms, undefined, `room ${storage.name}`, () => {
    storage.capacityBytes = Infinity;
  });
  // Counted where a put meets it.
  return false;
}

/** Takes a storage out of use, and puts it back later, under the same name. */
function changeState(world: World): boolean {
  const storage = world.random.pick(world.storages);
  const record = world.mirror.storages.get(storage.id);
  if (record?.state !== "in-use") return false;
  const state = world.random.chance(0.5) ? "readonly" : "disabled";
  setState(world, storage, state);
  const ms = world.random.below(AWAY_MS_MAX);
  world.scheduler.after(ms, undefined, `use ${storage.name}`, () =>
    setState(world, storage, "in-use"),
  );
  return true;
}

function setState(
  world: World,
  storage: SimStorage,
  state: "in-use" | "readonly" | "disabled",
): void {
  // By the operator's hand, beside all processes.
  void setStorageState(world.kv, storage.id, state).catch((error: unknown) => {
    // It was given up meanwhile.
    if (!world.lostStorages.includes(storage)) world.fail(error);
  });
}

function dataObjects(storage: SimStorage): Map<string, Buffer> {
  return new Map(
    [...storage.objects].filter(
      ([name]) => name.startsWith("blocks/") || name.startsWith("nodes/"),
    ),
  );
}

/** Harms an object of a storage that may be harmed. Heads and stamps are another matter: their loss means that a storage went back. */
function harmOne(
  world: World,
  how: (bytes: Buffer, storage: SimStorage, world: World) => Buffer | undefined,
): boolean {
  const storage = world.random.pick(world.storages);
  if (!storage.unreliable) return false;
  const objects = dataObjects(storage);
  if (objects.size === 0) return false;
  const [name, bytes] = world.random.pick([...objects]);
  // What was truncated to nothing cannot be harmed any more.
  if (bytes.length === 0) return false;
  const harmed = how(bytes, storage, world);
  if (harmed !== undefined && harmed.equals(bytes)) return false;
  storage.harm(name, harmed);
  return true;
}

function corrupted(bytes: Buffer, _: SimStorage, world: World): Buffer {
  const copy = Buffer.from(bytes);
  flipBit(copy, world.scheduler);
  return copy;
}

function jumpClock(world: World): boolean {
  const slot = pickRunning(world);
  if (slot?.running === undefined) return false;
  slot.running.process.skewMs += world.random.below(2 * CLOCK_JUMP_MS_MAX) - CLOCK_JUMP_MS_MAX;
  return true;
}

/** A week passes while a storage is away: everybody's clock says so, and the storage comes back after it. */
function passWeek(world: World): boolean {
  if (!takeAway(world)) return false;
  world.wallOffsetMs += WEEK_MS;
  return true;
}

/** Counted where a message is lost with them. */
function loseStreams(world: World): boolean {
  world.network.loseStreams();
  return false;
}
