// What the storages must have (I3): every object that a record names as placed, whole, but for what a storage has lost.
import { sameName, type LocalState } from "./local-state.ts";
import type { MetadataView } from "./metadata-view.ts";
import { generationNumber, type Name, type Universe } from "./universe.ts";
import { violated, type Violation } from "./violation.ts";

/** The first placed copy whose object is not there. */
export function checkObjects(
  universe: Universe,
  view: MetadataView,
  local: LocalState,
): Violation | undefined {
  for (const [id, { copies }] of view.records) {
    for (const { state, storage, generation } of copies) {
      if (state !== "placed") continue;
      const name: Name = [
        universe.storageOf(storage),
        universe.itemOf(id),
        generationNumber(generation),
      ];
      const isGood = local.objects.some(
        ([other, quality]) => quality === "good" && sameName(other, name),
      );
      if (isGood || local.lost.some((other) => sameName(other, name))) continue;
      return violated("I3", `${universe.describe(name)} is placed, but not there`);
    }
  }
  return undefined;
}
