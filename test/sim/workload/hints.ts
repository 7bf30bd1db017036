// Hints of the workload: what has changed since a base, as `rbd diff` tells it; sometimes wrong.
import type { VersionUid } from "#lib/core/ids.ts";
import type { Content } from "../engine/sim-device.ts";
import type { Volume } from "../world/volumes.ts";
import { BLOCK_BYTES, type World } from "../world/world.ts";

/** Hints that were made. */
export interface DrawnHints {
  readonly path: string;
  /** To be called when the backup has ended for good. */
  readonly ended: (atMs: number) => void;
}

/** Makes hints from a base's content to what the volume holds. */
export function drawHints(
  world: World,
  volume: Volume,
  url: string,
  base: { readonly uid: VersionUid; readonly content: Content },
): DrawnHints {
  const changed: { offset: number; length: number; exists: string }[] = [];
  const hidden = new Map<number, (string | undefined)[]>();
  for (const [block, letter] of volume.content.entries()) {
    const isNew = block >= base.content.length;
    const isChanged = isNew || letter !== base.content[block];
    if (isChanged && (isNew || !world.faults.strikes("hint-wrong"))) {
      const exists = letter === undefined ? "false" : "true";
      changed.push({ offset: block * BLOCK_BYTES, length: BLOCK_BYTES, exists });
      continue;
    }
    // Not read: it is what the base has, and the base may have been made by wrong hints, too.
    const others = world.oracle.lettersOf(base.uid, block).filter((other) => other !== letter);
    if (others.length > 0) hidden.set(block, others);
  }
  const ended = world.oracle.conceals(url, world.scheduler.nowMs, hidden);
  const path = `hints-${world.hints.size}`;
  world.hints.set(path, JSON.stringify(changed));
  return { path, ended };
}
