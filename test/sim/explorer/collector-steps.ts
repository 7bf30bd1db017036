// What the collector and the runs that delete do (services/coordinator/collection.ts, services/writer/deletion-run.ts), and
// the sweep (services/writer/sweep.ts).
import { assert } from "#lib/core/assert.ts";
import { removeObject, type Collector, type LocalState } from "./local-state.ts";
import type { Request } from "./requests.ts";
import type { Situation, Step } from "./step.ts";
import { copyOfName, type Name } from "./universe.ts";

/** What the collector can do. */
export function collectorSteps({ local }: Situation): Step[] {
  const { collector, budget } = local;
  const step = (
    label: string,
    request: Request,
    next: (draft: LocalState, value: unknown) => void,
  ): Step[] => [
    {
      kind: request.type,
      label: `collector: ${label}`,
      request,
      next: (draft, outcome) => {
        assert(outcome.ok, "the collector is never refused");
        next(draft, outcome.value);
      },
    },
  ];
  const to = (phase: Collector["phase"]) => (draft: LocalState) => {
    draft.collector.phase = phase;
  };
  switch (collector.phase) {
    case "idle":
      return budget.passes === 0
        ? []
        : step("condemns what nothing refers to", { type: "condemn" }, (draft) => {
            draft.budget.passes -= 1;
            to("condemned")(draft);
          });
    case "condemned":
      return step("raises the epoch", { type: "raise" }, to("raised"));
    case "raised":
      return step("reads the lowest horizon", { type: "lowest" }, (draft, value) => {
        draft.collector = { phase: "removing", horizon: value as number };
      });
    case "removing":
      return step(
        `removes what was condemned before ${collector.horizon}`,
        { type: "remove", horizon: collector.horizon },
        (draft, value) => {
          const { next } = value as { next: Buffer | undefined };
          if (next === undefined) draft.collector = { phase: "idle", horizon: 0 };
        },
      );
  }
}

/** What a run that deletes can do. */
export function deletionSteps(situation: Situation): Step[] {
  const { universe, local } = situation;
  const { deletion } = local;
  if (deletion === undefined) {
    return local.budget.deletionRuns === 0
      ? lateDeleteSteps(situation)
      : [
          ...universe.storages.flatMap((_, at) => beginSteps(situation, at)),
          ...lateDeleteSteps(situation),
        ];
  }
  const { storage, names, run } = deletion;
  if (deletion.deleted) {
    const clear: Step = {
      kind: "clearTrash",
      label: `deletion run: clears trash at ${storage}`,
      request: { type: "clearTrash", storage, run, names },
      next: (draft) => {
        draft.deletion = undefined;
      },
    };
    return [clear, ...lateDeleteSteps(situation)];
  }
  const remove: Step = {
    kind: "delete",
    label: `deletion run: deletes ${describeAll(situation, names)}`,
    next: (draft) => {
      for (const name of names) removeObject(draft, name);
      if (draft.deletion !== undefined) draft.deletion.deleted = true;
      const late = names.slice(0, draft.budget.lateDeletes);
      draft.budget.lateDeletes -= late.length;
      draft.lateDeletes.push(...late.map(copyOfName));
    },
  };
  return [remove, ...lateDeleteSteps(situation)];
}

function describeAll({ universe }: Situation, names: readonly Name[]): string {
  return names.map((name) => universe.describe(name)).join(", ");
}

function beginSteps({ universe, view }: Situation, storage: number): Step[] {
  if (!view.trash.some((entry) => entry.storage === universe.storage(storage))) return [];
  return [
    {
      kind: "beginRun",
      label: `deletion run: begins at ${storage} and lists trash`,
      request: { type: "beginRun", storage },
      next: (draft, outcome) => {
        assert(outcome.ok, "a run is never refused");
        const { run, names } = outcome.value as { run: number; names: Name[] };
        draft.budget.deletionRuns -= 1;
        if (names.length === 0) return;
        const copies = names.map(copyOfName);
        draft.deletion = { storage, run, deleted: false, names: copies };
      },
    },
  ];
}

function lateDeleteSteps({ universe, local }: Situation): Step[] {
  return local.lateDeletes.map((name, at) => ({
    kind: "lateDelete",
    label: `storage: a delete of ${universe.describe(name)} lands once more`,
    next: (draft) => {
      draft.lateDeletes.splice(at, 1);
      removeObject(draft, name);
    },
  }));
}

/** What a sweep can do. */
export function sweepSteps({ universe, local }: Situation): Step[] {
  const { sweep } = local;
  if (sweep !== undefined) {
    return [
      {
        kind: "sweep",
        label: `sweep: compares its listing of ${sweep.storage} with the records`,
        request: { type: "sweep", storage: sweep.storage, names: sweep.names },
        next: (draft) => {
          draft.sweep = undefined;
        },
      },
    ];
  }
  if (local.budget.sweeps === 0) return [];
  return universe.storages.flatMap((_, storage): Step[] => {
    const listed = local.objects.filter(([name]) => name[0] === storage);
    if (listed.length === 0) return [];
    return [
      {
        kind: "list",
        label: `sweep: lists ${storage}`,
        next: (draft) => {
          draft.budget.sweeps -= 1;
          draft.sweep = { storage, names: listed.map(([name]) => copyOfName(name)) };
        },
      },
    ];
  });
}
