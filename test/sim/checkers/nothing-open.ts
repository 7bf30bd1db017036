// When nobody works any more, nothing is open: no source is read, no target written.
import type { World } from "../world/world.ts";
import { demand } from "./violation.ts";

/** Jobs that have ended keep nothing open. */
export function checkNothingOpen({ open }: World): void {
  for (const [process, names] of open) {
    demand(names.size === 0, "progress", () => `${process.name} keeps open: ${[...names].join()}`);
  }
}
