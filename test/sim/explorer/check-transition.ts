// What holds between a snapshot and the next: names are used once (I3), and versions turn valid at a quorum (I1).
import type { Generation } from "#lib/core/ids.ts";
import type { MetadataView } from "./metadata-view.ts";
import { FRESH_GENERATION_FIRST } from "./machine.ts";
import { generationNumber } from "./universe.ts";
import { violated, type Violation } from "./violation.ts";

/** The first violation of a transition. */
export function checkTransition(before: MetadataView, after: MetadataView): Violation | undefined {
  return checkFreshNames(before, after) ?? checkTurnedValid(before, after);
}

/** A name that a record has now, and had not before, was drawn in this very transaction: nobody can have used it. */
function checkFreshNames(before: MetadataView, after: MetadataView): Violation | undefined {
  for (const name of after.names) {
    if (before.names.has(name)) continue;
    const generation = name.slice(name.indexOf(".") + 1) as Generation;
    if (generationNumber(generation) < FRESH_GENERATION_FIRST) {
      return violated("I3", `${name} is named again`);
    }
  }
  return undefined;
}

function checkTurnedValid(before: MetadataView, after: MetadataView): Violation | undefined {
  for (const [uid, { state, root, policy }] of after.versions) {
    if (state !== "valid" || before.versions.get(uid)?.state !== "incomplete") continue;
    const record = root === undefined ? undefined : after.records.get(root);
    const placed = (record?.copies ?? []).filter(
      ({ state: copyState, storage }) =>
        copyState === "placed" &&
        policy.storages.includes(storage) &&
        after.storagesInUse.has(storage),
    );
    if (placed.length < policy.quorum) {
      return violated(
        "I1",
        `version ${uid} turned valid with its root at ${placed.length} storages`,
      );
    }
    if (record?.damaged === true) {
      return violated("I1", `version ${uid} turned valid with a damaged root`);
    }
  }
  return undefined;
}
