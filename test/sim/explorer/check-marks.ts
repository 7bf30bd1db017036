// Marks of damage (DESIGN §4.8): once the re-check queue is empty they are exactly as the copies say.
import type { BlockId } from "#lib/core/ids.ts";
import type { Machine } from "./machine.ts";
import { viewOf, type MetadataView } from "./metadata-view.ts";
import type { Snapshot } from "./snapshot-pool.ts";
import { violated, type Violation } from "./violation.ts";

/** Steps of re-checks after which one of them must be going round in circles. */
const RECHECKS_MAX = 200;

/** Works off the re-checks of a snapshot and compares the marks. */
export async function checkMarks(
  machine: Machine,
  snapshot: Snapshot,
): Promise<Violation | undefined> {
  let current = snapshot;
  for (let step = 0; viewOf(current).rechecks.length > 0; step += 1) {
    if (step === RECHECKS_MAX) return violated("marks", "the re-checks do not end");
    current = (await machine.run(current, { type: "recheck" })).snapshot;
  }
  return compareMarks(viewOf(current));
}

function compareMarks(view: MetadataView): Violation | undefined {
  const marks = new Map<BlockId, boolean | undefined>();
  for (const [id, record] of view.records) {
    const expected = expectedMark(view, id, marks);
    if (expected !== undefined && record.damaged !== expected) {
      const what = `${id.slice(0, 4)} is ${record.damaged ? "" : "not "}marked as damaged`;
      return violated("marks", `${what}, but ${expected ? "has no" : "has a"} good copy of all`);
    }
  }
  for (const [uid, { state, root }] of view.versions) {
    if (root === undefined || (state !== "valid" && state !== "invalid")) continue;
    const expected = expectedMark(view, root, marks) === true ? "invalid" : "valid";
    if (state !== expected) return violated("marks", `version ${uid} is ${state}`);
  }
  return undefined;
}

/**
 * Damaged: no good copy, or a child that is damaged. Undefined: it was never placed, and nothing refers to it, so nothing
 * relies on its mark.
 */
function expectedMark(
  view: MetadataView,
  id: BlockId,
  marks: Map<BlockId, boolean | undefined>,
): boolean | undefined {
  if (marks.has(id)) return marks.get(id);
  const copies = view.records.get(id)?.copies ?? [];
  const isGood = copies.some(({ state }) => state === "placed");
  const isReferenced = view.references.some(({ child }) => child === id);
  const counts = isGood || isReferenced || copies.some(({ state }) => state === "bad");
  const children = view.nodes.get(id) ?? [];
  const mark = !counts
    ? undefined
    : !isGood || children.some((child) => expectedMark(view, child, marks) !== false);
  marks.set(id, mark);
  return mark;
}
