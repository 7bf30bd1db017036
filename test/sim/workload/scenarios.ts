// The scenarios: which world, which faults, how much work. A new one is one entry here.
import type { SeededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { FaultRates } from "../engine/faults.ts";
import { oneProcessPerHost, oneProcessPerRole, type WorldShape } from "../world/shape.ts";

/** A scenario. */
export interface Scenario {
  readonly name: string;
  /** What it is about, for people. */
  readonly about: string;
  readonly operations: number;
  /** Fewer faults than these fired: the run fails, for it proves too little. */
  readonly faultsMin: { readonly fired: number; readonly kinds: number };
  readonly shape: (random: SeededRandom) => WorldShape;
  /** How often each operation is drawn, where other than usual; one that is not named is not drawn. */
  readonly weights?: Readonly<Record<string, number>>;
  /** How often a disaster (disasters.ts) ends the run. */
  readonly disasterShare: number;
}

const SETTINGS = {
  leaseMs: 30_000,
  resumeWindowMs: 86_400_000,
  hintSample: 0.2,
} as const;

/** Faults of everyday: per message, commit, operation of a storage, blow. */
const EVERYDAY: FaultRates = {
  "message-lost": 0.002,
  "message-repeated": 0.01,
  "message-late": 0.005,
  "streams-lost": 0.15,
  kill: 0.5,
  pause: 0.3,
  "kv-conflict": 0.02,
  "kv-too-old": 0.002,
  "kv-unknown-committed": 0.01,
  "kv-unknown-not-committed": 0.01,
  "kv-unknown-late": 0.005,
  "blob-error": 0.003,
  "blob-timeout-after-success": 0.005,
  "blob-late-effect": 0.005,
  "storage-away": 0.3,
  "storage-full": 0.2,
  "storage-state": 0.1,
  "storage-listing-stale": 0.3,
  "clock-jump": 0.2,
  "week-passes": 0.05,
  "hint-wrong": 0.05,
  "source-error": 0.001,
};

/** And those that take something away. */
const LOSSES: FaultRates = {
  "blob-write-lost": 0.002,
  "blob-read-corrupt": 0.003,
  "object-corrupt": 0.2,
  "object-truncated": 0.1,
  "object-swapped": 0.1,
  "object-lost": 0.2,
};

/** Processes that come and go. */
const DYING: FaultRates = {
  "message-repeated": 0.01,
  "message-late": 0.01,
  kill: 0.7,
  pause: 0.7,
  "kv-unknown-committed": 0.01,
  "kv-unknown-late": 0.01,
};

/** Storages that lose things all the time. */
const ROT: FaultRates = {
  "blob-write-lost": 0.01,
  "blob-read-corrupt": 0.01,
  "object-corrupt": 1,
  "object-truncated": 0.5,
  "object-swapped": 0.5,
  "object-lost": 1,
};

function drawShape(random: SeededRandom, faults: FaultRates, patienceMs: number): WorldShape {
  const hosts = 2 + random.below(2);
  // Mostly few: every storage costs time, and four show little that three do not.
  const storages = random.pick([2, 2, 2, 3, 3, 4]);
  return {
    storages,
    reliableStorages: 1,
    laggingStorage:
      (faults["storage-listing-stale"] ?? 0) > 0 && random.chance(0.3) ? storages - 1 : undefined,
    volumes: 2 + random.below(3),
    operators: 2 + random.below(3),
    processes: random.chance(0.5) ? oneProcessPerHost(hosts) : oneProcessPerRole(hosts),
    latency: { stepMs: 2, slowMs: 3000, slowShare: Object.keys(faults).length > 0 ? 0.002 : 0 },
    settings: { ...SETTINGS, patienceMs },
    slowSources: Object.keys(faults).length > 0 ? 0.1 : 0,
    faults,
    hasFaults: Object.keys(faults).length > 0,
    hasLosses: Object.keys(LOSSES).some((fault) => fault in faults),
    isPatient: patienceMs === Infinity,
    eventsMax: 3_000_000,
  };
}

const BASIC: Scenario = {
  name: "basic",
  about: "nothing goes wrong: several hosts, volumes, storages and jobs at once, in any order",
  operations: 20,
  faultsMin: { fired: 0, kinds: 0 },
  disasterShare: 0,
  shape: (random) => drawShape(random, {}, Infinity),
};

const FULL: Scenario = {
  name: "full",
  about: "everything at once goes wrong, and things get lost",
  operations: 200,
  faultsMin: { fired: 20, kinds: 6 },
  disasterShare: 0.2,
  shape: (random) => drawShape(random, { ...EVERYDAY, ...LOSSES }, 2000),
};

const FAULTS_ONLY: Scenario = {
  name: "faults",
  about: "everything goes wrong, but no storage loses anything: so nothing at all may be lost",
  operations: 120,
  faultsMin: { fired: 20, kinds: 6 },
  disasterShare: 0,
  shape: (random) => drawShape(random, EVERYDAY, 2000),
};

/** Elsewhere hardly anything is collected while a backup runs that was told of it. */
const COLLECTION: Scenario = {
  name: "collection",
  about:
    "nothing goes wrong, but versions are removed and collected while slow backups rely on them",
  operations: 80,
  faultsMin: { fired: 0, kinds: 0 },
  disasterShare: 0,
  weights: {
    backup: 10,
    "backup-snapshot": 4,
    "backup-with-hints": 3,
    change: 6,
    restore: 1,
    "read-range": 1,
    remove: 14,
    gc: 12,
    "gc-sweep": 2,
  },
  shape: (random) => ({
    ...drawShape(random, {}, Infinity),
    volumes: 2 + random.below(2),
    operators: 5,
    // Horizons move with the signs of life.
    settings: { ...SETTINGS, leaseMs: 3000, patienceMs: Infinity },
    slowSources: 0.5,
  }),
};

/** Elsewhere few sessions die with something to go on with, and hardly ever is anything collected before they do. */
const DEATHS: Scenario = {
  name: "deaths",
  about:
    "processes die and stand still in the middle of slow backups, which are gone on with or abandoned",
  operations: 80,
  faultsMin: { fired: 5, kinds: 2 },
  disasterShare: 0,
  weights: {
    backup: 6,
    "backup-snapshot": 12,
    "backup-with-hints": 4,
    change: 4,
    restore: 3,
    remove: 9,
    gc: 8,
    "gc-abandon": 3,
  },
  shape: (random) => ({
    ...drawShape(random, DYING, 2000),
    operators: 4,
    settings: { ...SETTINGS, leaseMs: 3000, patienceMs: 2000 },
    slowSources: 0.7,
  }),
};

/** Elsewhere most of what is lost is at another storage as well. */
const DAMAGE: Scenario = {
  name: "damage",
  about:
    "objects are lost and rot, are scrubbed, brought again and restored; nothing else goes wrong",
  operations: 50,
  faultsMin: { fired: 1, kinds: 1 },
  disasterShare: 0,
  weights: {
    backup: 12,
    "backup-with-hints": 3,
    change: 6,
    restore: 4,
    "read-range": 4,
    remove: 4,
    gc: 3,
    "gc-sweep": 1,
    scrub: 8,
    "scrub-shallow": 4,
    replicate: 3,
  },
  shape: (random) => ({
    ...drawShape(random, ROT, 2000),
    storages: 2,
    reliableStorages: 0,
    operators: 3,
    slowSources: 0,
  }),
};

/** Storages that come and go, and versions that are to be at more of them than they were made for. */
const MOVING: FaultRates = {
  ...DYING,
  kill: 0.15,
  pause: 0.15,
  "kv-conflict": 0.02,
  "blob-error": 0.003,
  "blob-timeout-after-success": 0.005,
  "blob-late-effect": 0.005,
  "storage-away": 0.3,
  "storage-full": 0.2,
  "storage-state": 0.5,
};

const SITES: Scenario = {
  name: "sites",
  about:
    "versions get more storages and leave others, which come and go, while others back up, remove and collect",
  operations: 80,
  faultsMin: { fired: 5, kinds: 3 },
  disasterShare: 0,
  weights: {
    backup: 10,
    "backup-snapshot": 3,
    "backup-with-hints": 3,
    change: 10,
    restore: 4,
    "read-range": 3,
    remove: 4,
    gc: 5,
    "gc-sweep": 2,
    scrub: 1,
    replicate: 3,
    label: 3,
    widen: 30,
    narrow: 20,
    "gc-trim": 3,
    lose: 1,
    renew: 8,
  },
  shape: (random) => ({ ...drawShape(random, MOVING, 2000), storages: 3 + random.below(2) }),
};

const DISASTER: Scenario = {
  name: "disaster",
  about: "metadata or a storage are put back, lost or cloned, and rebuilt",
  operations: 40,
  faultsMin: { fired: 1, kinds: 1 },
  disasterShare: 1,
  shape: (random) => drawShape(random, {}, Infinity),
};

/** Minutes: so a lock runs out, or is extended, many times in a run. */
const LOCK_MS = 240_000;

const LOCKED: Scenario = {
  name: "locked",
  about: "storages lock their objects: what is needed stays locked, what is removed waits",
  operations: 80,
  faultsMin: { fired: 5, kinds: 3 },
  disasterShare: 0,
  weights: {
    backup: 10,
    "backup-snapshot": 3,
    "backup-with-hints": 3,
    change: 8,
    restore: 3,
    remove: 10,
    gc: 14,
    "gc-sweep": 3,
    "gc-abandon": 1,
    scrub: 1,
    replicate: 2,
    label: 4,
    widen: 2,
  },
  shape: (random) => ({ ...drawShape(random, MOVING, 2000), lockMs: LOCK_MS }),
};

/** All scenarios by name. */
export const SCENARIOS: ReadonlyMap<string, Scenario> = new Map(
  [BASIC, FAULTS_ONLY, FULL, COLLECTION, DEATHS, DAMAGE, SITES, LOCKED, DISASTER].map(
    (scenario) => [scenario.name, scenario],
  ),
);
