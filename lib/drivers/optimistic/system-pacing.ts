// Waiting between tries of a transaction, in a real process.
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import type { Pacing } from "./retry-queue.ts";

/** A clock's sleep does not keep the process alive, but a transaction that waits its turn must. */
export function systemPacing(ports: { readonly clock: Clock; readonly random: Random }): Pacing {
  return {
    random: ports.random,
    async pause(ms, signal) {
      const hold = setInterval(() => {}, 60_000);
      try {
        await ports.clock.sleep(ms, signal);
      } finally {
        clearInterval(hold);
      }
    },
  };
}
