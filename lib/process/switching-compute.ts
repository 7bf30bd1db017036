// Compute whose keys change while it works: a process that runs for long goes on under the repository keys of its time.
import type { Compute } from "#lib/ports/compute.ts";
import type { Log } from "#lib/ports/log.ts";

/** A Compute that can be put in the place of another. */
export interface SwitchingCompute extends Compute {
  /** What comes from now on goes to `next`; the other one is closed when what it has begun is done. */
  switchTo(next: Compute): void;
}

/**
 * Makes it. `refresh` is asked when an object is sealed under an unknown key; true: it has switched to newer keys. Where it
 * fails, nothing is known of the object, and opening fails with its error.
 */
export function createSwitchingCompute(
  first: Compute,
  refresh: () => Promise<boolean>,
  log: Log,
): SwitchingCompute {
  let current = first;
  const closing = new Set<Promise<void>>();
  return {
    concurrency: first.concurrency,
    pool: (slotBytes, slotCount) => current.pool(slotBytes, slotCount),
    hash: (bytes, blockBytes) => current.hash(bytes, blockBytes),
    seal: (requests, out) => current.seal(requests, out),
    async open(requests, out) {
      const used = current;
      const opened = await used.open(requests, out);
      const hasUnknown = opened.some((one) => !one.ok && one.isKeyUnknown === true);
      if (!hasUnknown) return opened;
      const hasOthers = await refresh();
      // Somebody else may have changed over while this one was under way.
      return hasOthers || used !== current ? current.open(requests, out) : opened;
    },
    switchTo(next) {
      const before = current;
      current = next;
      const closed = before
        .close()
        .catch((error: unknown) => log.warn("threads with old keys did not end", { error }))
        .finally(() => closing.delete(closed));
      closing.add(closed);
    },
    async close() {
      await Promise.all([current.close(), ...closing]);
    },
  };
}
