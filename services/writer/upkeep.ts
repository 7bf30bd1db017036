// Upkeep as coordinators ask for it (lib/repository/upkeep.ts); the composition hands one to the other.
import type { Repository } from "#lib/repository/repository.ts";
import type { Upkeep } from "#lib/repository/upkeep.ts";
import { runDeletions } from "./deletion-run.ts";
import { extendLocks } from "./extend-locks.ts";
import { fillOwed } from "./fill.ts";
import { checkStamps, guardStorages } from "./guard.ts";
import { putOwedHeads } from "./heads.ts";
import { scrub } from "./scrub.ts";
import { sweepStorage } from "./sweep.ts";

/** Makes the upkeep of a repository; `drain` is its writer's. */
export function createUpkeep(repo: Repository, drain: Upkeep["drain"]): Upkeep {
  return {
    putHeads: (which, options = {}) =>
      putOwedHeads(repo, { ...which, ...(options.signal && { signal: options.signal }) }),
    guard: async (storages) => {
      await guardStorages(repo, storages);
    },
    checkStamps: async (storages) => (await checkStamps(repo, storages)).ok,
    fill: (storage, options) => fillOwed(repo, storage, options),
    runDeletions: (storage, options) => runDeletions(repo, storage, options),
    extendLocks: (storage, options) => extendLocks(repo, storage, options),
    scrub: (options) => scrub(repo, options),
    sweep: (storage, options) => sweepStorage(repo, storage, options),
    drain,
  };
}
