// Mistakes that actors could make, each in the smallest world in which it shows.
import { currentAt } from "#lib/repository/block-record.ts";
import { putObject, removeObject, type LocalState } from "./local-state.ts";
import type { PlantedBug } from "./planted-bug.ts";
import type { Situation, Step } from "./step.ts";
import { generationNumber, type Name } from "./universe.ts";
import {
  claimWithoutFence,
  claimWithoutRevival,
  claimWithOldGeneration,
  commitWithoutChildren,
  dieWithoutHolds,
  fillNodeAsBlock,
  finishAnyway,
  finishOwingNothing,
  recheckWithoutClimbing,
  removeKeepingReference,
  settleWithoutQueue,
  storeUnnamed,
  sweepUnseen,
  trashBadCopyEarly,
} from "./wrong-transactions.ts";

/** Replaces the steps of one kind. */
const replacing =
  (kind: string, how: (step: Step, situation: Situation) => Step[]) =>
  (situation: Situation, steps: readonly Step[]): Step[] =>
    steps.flatMap((step) => (step.kind === kind ? how(step, situation) : [step]));

/** All planted bugs. */
export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: "a horizon that passes an answer which is still used",
    configuration: "unreferenced",
    invariant: "I8",
    steps: 10,
    alterSteps: announceTooMuch,
  },
  {
    name: "removal that ignores horizons",
    configuration: "unreferenced",
    invariant: "I8",
    steps: 6,
    alterSteps: replacing("remove", (step, { view }) => [
      { ...step, request: { type: "remove", horizon: view.epoch + 1 } },
    ]),
  },
  {
    name: "a resumer that keeps the old answers",
    configuration: "unreferenced-resume",
    invariant: "I8",
    steps: 9,
    alterSteps: replacing("resume", keepAnswers),
  },
  {
    name: "no revival of what is condemned",
    configuration: "unreferenced",
    invariant: "I8",
    steps: 6,
    run: claimWithoutRevival,
  },
  {
    name: "a base's hold that is dropped at death",
    configuration: "incremental",
    invariant: "I8",
    steps: 12,
    run: dieWithoutHolds,
  },
  {
    name: "a copy that is placed and not named any more",
    configuration: "death",
    invariant: "I3",
    steps: 7,
    run: storeUnnamed,
  },
  {
    name: "a claim without a fence",
    configuration: "death",
    invariant: "I4",
    steps: 5,
    run: claimWithoutFence,
  },
  {
    name: "a settled session that queues nothing",
    configuration: "death",
    invariant: "I4",
    steps: 5,
    run: settleWithoutQueue,
  },
  {
    name: "a root that is owed to nobody",
    configuration: "two-storages",
    invariant: "I4",
    steps: 6,
    run: finishOwingNothing,
  },
  {
    name: "no waiting for another session",
    configuration: "two-backups",
    invariant: "I5",
    steps: 4,
    alterSteps: replacing("claim", (step) =>
      step.request?.type === "claim"
        ? [{ ...step, request: { ...step.request, impatient: true } }]
        : [step],
    ),
  },
  {
    name: "a writer that records without putting",
    configuration: "two-backups",
    invariant: "I3",
    steps: 4,
    alterSteps: replacing("store", (step) => [{ ...step, next: storeWithoutPut(step) }]),
  },
  {
    name: "deletion of what is condemned, past trash",
    configuration: "unreferenced",
    invariant: "I3",
    steps: 2,
    alterSteps: (situation, steps) => [...steps, deleteCondemned(situation)],
  },
  {
    name: "a generation that is used twice",
    configuration: "late-deletes",
    invariant: "I3",
    steps: 7,
    run: claimWithOldGeneration,
  },
  {
    name: "a sweep by records that it read before the listing",
    configuration: "sweep",
    invariant: "I3",
    steps: 11,
    alterSteps: sweepByOldRecords,
    run: sweepUnseen,
  },
  {
    name: "a bad copy that goes to trash too early",
    configuration: "false-alarm",
    invariant: "I3",
    steps: 2,
    run: trashBadCopyEarly,
  },
  {
    name: "a removed version that keeps its reference",
    configuration: "known-while-collected",
    invariant: "I2",
    steps: 1,
    run: removeKeepingReference,
  },
  {
    name: "a commit wherever the node's object is",
    configuration: "two-storages",
    invariant: "I1",
    steps: 5,
    run: commitWithoutChildren,
  },
  {
    name: "a version that turns valid although its root was returned",
    configuration: "loss",
    invariant: "I1",
    steps: 7,
    run: finishAnyway,
  },
  {
    name: "a node that is filled before its children",
    configuration: "two-storages-loss",
    invariant: "I1",
    steps: 1,
    alterSteps: (situation, steps) => [...steps, ...fillOwedNodes(situation)],
    run: fillNodeAsBlock,
  },
  {
    name: "a re-check that tells nobody",
    configuration: "loss",
    invariant: "marks",
    steps: 4,
    run: recheckWithoutClimbing,
  },
];

function announceTooMuch({ local }: Situation, steps: readonly Step[]): Step[] {
  const others = steps.filter(({ kind }) => kind !== "announce");
  const announce = local.readers
    .filter(({ latest, announced }) => latest > announced)
    .map(({ session, turn, latest }): Step => ({
      kind: "announce",
      label: `reader ${session}: announces the newest epoch, ${latest}`,
      request: { type: "alive", session, turn, horizon: latest },
      next: (draft) => {
        const reader = draft.readers.find((one) => one.session === session && one.turn === turn);
        if (reader !== undefined) reader.announced = latest;
      },
    }));
  return [...others, ...announce];
}

function keepAnswers(step: Step, { local }: Situation): Step[] {
  const { request } = step;
  if (request?.type !== "resume") return [step];
  const old = local.readers.find(({ session }) => session === request.session);
  const next: Step["next"] = (draft, outcome) => {
    step.next(draft, outcome);
    const resumed = draft.readers.find(({ turn }) => turn === request.turn);
    if (resumed === undefined || old === undefined) return;
    resumed.items = structuredClone(old.items);
  };
  return [{ ...step, next }];
}

function storeWithoutPut(step: Step): Step["next"] {
  return (draft, outcome) => {
    const before = draft.objects.map(([name]) => JSON.stringify(name));
    step.next(draft, outcome);
    draft.objects = draft.objects.filter(([name]) => before.includes(JSON.stringify(name)));
  };
}

function deleteCondemned({ universe, view }: Situation): Step {
  return {
    kind: "delete",
    label: "deletion run: deletes what is condemned",
    next: (draft: LocalState) => {
      for (const { id } of view.condemned) {
        for (const copy of view.records.get(id)?.copies ?? []) {
          const storage = universe.storageOf(copy.storage);
          removeObject(draft, [storage, universe.itemOf(id), generationNumber(copy.generation)]);
        }
      }
    },
  };
}

function sweepByOldRecords(situation: Situation, steps: readonly Step[]): Step[] {
  const { universe, view, local } = situation;
  return steps.map((step): Step => {
    if (step.kind === "list") {
      return {
        ...step,
        label: "sweep: reads the records",
        next: (draft) => {
          step.next(draft, { ok: true, value: undefined });
          if (draft.sweep !== undefined) draft.sweep.names = namedNow();
        },
      };
    }
    if (step.kind === "sweep" && local.sweep !== undefined) {
      const named = new Set(local.sweep.names.map((name) => JSON.stringify(name)));
      const names = local.objects
        .map(([name]) => name)
        .filter((name) => !named.has(JSON.stringify(name)));
      return { ...step, request: { type: "sweep", storage: local.sweep.storage, names } };
    }
    return step;
  });

  function namedNow(): Name[] {
    return [...view.records].flatMap(([id, { copies }]) =>
      copies.map(({ storage, generation }): Name => [
        universe.storageOf(storage),
        universe.itemOf(id),
        generationNumber(generation),
      ]),
    );
  }
}

function fillOwedNodes({ universe, view }: Situation): Step[] {
  return view.owed.flatMap(({ storage, id }): Step[] => {
    const item = universe.itemOf(id);
    const record = view.records.get(id);
    const owed = record && currentAt(record, storage);
    if (universe.item(item).kind !== "node" || owed === undefined) return [];
    const name: Name = [universe.storageOf(storage), item, generationNumber(owed.generation)];
    return [
      {
        kind: "placeFilled",
        label: `fill: fills ${universe.describe(name)}, whatever it names`,
        request: { type: "placeFilled", name },
        next: (draft) => putObject(draft, name),
      },
    ];
  });
}
