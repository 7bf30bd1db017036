// Upkeep as coordinators ask for it (lib/repository/upkeep.ts); the composition hands one to the other.
import type { Bus } from "#lib/ports/bus.ts";
import type { Requester } from "#lib/actor/requester.ts";
import type { Repository } from "#lib/repository/repository.ts";
import type { Upkeep } from "#lib/repository/upkeep.ts";
import { runDeletions } from "./deletion-run.ts";
import { extendLocks } from "./extend-locks.ts";
import { fillOwed } from "./fill.ts";
import { checkStamps, guardStorages } from "./guard.ts";
import { putOwedHeads } from "./heads.ts";
import { scrub } from "./scrub.ts";
import { sweepStorage } from "./sweep.ts";
import { othersWhoVerify } from "./verify-messages.ts";

/** Makes the upkeep of a repository; `drain` is its writer's. Whom the bus reaches takes a share of scrubs. */
export function createUpkeep(
  repo: Repository,
  { bus, requester }: { readonly bus: Bus; readonly requester: Requester },
  drain: Upkeep["drain"],
): Upkeep {
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
    scrub: (options) => scrub(repo, options, othersWhoVerify(bus, requester)),
    sweep: (storage, options) => sweepStorage(repo, storage, options),
    drain,
  };
}
