// What a removal or a collection would free, as documents and for people.
import type { VersionUid } from "#lib/core/ids.ts";
import { formatSize } from "#lib/core/size.ts";
import {
  planRemoval,
  type RemovalFigures,
  type RemovalPlan,
} from "#services/coordinator/plan-removal.ts";
import type { Freed } from "#services/coordinator/usage.ts";
import type { Engine } from "./compose.ts";

/** Plans the removal of versions; nothing is changed. */
export function planRemovalOf(engine: Engine, uids: readonly VersionUid[]): Promise<RemovalPlan> {
  return planRemoval(engine, uids, { signal: engine.context.signal });
}

/** What removing versions would free. */
export async function freedBy(engine: Engine, uids: readonly VersionUid[]): Promise<Freed> {
  const { removal } = await planRemovalOf(engine, uids);
  return { blockBytes: removal.blockBytes, storedBytes: removal.storedBytes };
}

/** A plan as fields of a JSON document. */
export function planDocument(engine: Engine, plan: RemovalPlan): object {
  return {
    frees: figuresDocument(engine, plan.removal),
    garbage: figuresDocument(engine, plan.garbage),
    total: figuresDocument(engine, plan.total),
  };
}

function figuresDocument(engine: Engine, figures: RemovalFigures): object {
  const { storages, ...totals } = figures;
  return {
    ...totals,
    storages: storages.map(({ storage, blocks, nodes, storedBytes }) => ({
      name: engine.nameOf(storage),
      blocks,
      nodes,
      storedBytes,
    })),
  };
}

/** A plan for people; `garbage` is what collection would free anyhow. */
export function planFields(engine: Engine, plan: RemovalPlan): [string, string][] {
  return [
    ["would free", figuresText(engine, plan.removal)],
    ...(plan.garbage.objects === 0
      ? []
      : [["garbage already", figuresText(engine, plan.garbage)] satisfies [string, string]]),
  ];
}

/** Figures as a line. */
export function figuresText(engine: Engine, figures: RemovalFigures): string {
  const { blocks, nodes, blockBytes, storedBytes, objects, storages } = figures;
  const at = storages
    .map((each) => `${engine.nameOf(each.storage)} ${formatSize(each.storedBytes)}`)
    .join(", ");
  return (
    `${formatSize(storedBytes)} stored in ${objects} objects${at === "" ? "" : ` (${at})`}: ` +
    `${blocks} blocks of ${formatSize(blockBytes)}, ${nodes} tree nodes`
  );
}
