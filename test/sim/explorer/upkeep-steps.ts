// What fills, scrubs and re-checks do (services/writer/fill.ts, scrub.ts), and how storages lose objects.
import { currentAt, type BlockRecord } from "#lib/repository/block-record.ts";
import { objectAt, putObject, removeObject, sameName, type LocalState } from "./local-state.ts";
import type { Situation, Step } from "./step.ts";
import { copyOfName, generationNumber, type Name, type Universe } from "./universe.ts";

/** What fills can do. */
export function fillSteps(situation: Situation): Step[] {
  const { universe, view, local } = situation;
  const begin =
    local.budget.fills === 0
      ? []
      : view.owed.flatMap(({ storage, id }) =>
          beginFill(situation, universe.itemOf(id), universe.storageOf(storage)),
        );
  return [
    ...begin,
    ...local.fills.map((fill, at): Step => {
      if (fill.landed) return placeStep(situation, fill.name, at);
      return {
        kind: "fillPut",
        label: `fill: the put of ${universe.describe(fill.name)} lands`,
        next: (draft) => {
          const landed = draft.fills[at];
          if (landed !== undefined) landed.landed = true;
          putObject(draft, fill.name);
        },
      };
    }),
  ];
}

/** The copy that is owed to a storage, and whether another storage, or this one, can give it. */
function beginFill(situation: Situation, item: number, storage: number): Step[] {
  const { universe, view, local } = situation;
  const record = view.records.get(universe.id(item));
  const owed = record && currentAt(record, universe.storage(storage));
  if (record === undefined || owed?.state !== "owed") return [];
  if (!view.storagesInUse.has(owed.storage)) return [];
  const name: Name = [storage, item, generationNumber(owed.generation)];
  if (local.fills.some((fill) => sameName(fill.name, name))) return [];
  const { kind, children } = universe.item(item);
  const missing = children.filter((child) => !isPlacedAt(situation, child, storage));
  if (kind === "node" && missing.length > 0) {
    // Nothing changes where all of them are owed already.
    if (missing.every((child) => isOwedTo(situation, child, storage))) return [];
    return [
      {
        kind: "oweChildren",
        label: `fill: owes what ${universe.item(item).name} names to ${storage}`,
        request: { type: "oweChildren", item, storage },
        next: () => undefined,
      },
    ];
  }
  const landed = objectAt(local, name) === "good";
  if (!landed && !hasSource(universe, local, record, item, storage)) return [];
  return [
    {
      kind: "fillBegin",
      label: `fill: begins with ${universe.describe(name)}`,
      next: (draft) => {
        draft.budget.fills -= 1;
        draft.fills.push({ name: copyOfName(name), landed });
      },
    },
  ];
}

function isPlacedAt(situation: Situation, item: number, storage: number): boolean {
  return hasCopy(situation, item, storage, "placed");
}

function isOwedTo(situation: Situation, item: number, storage: number): boolean {
  return hasCopy(situation, item, storage, "owed");
}

function hasCopy(
  { universe, view }: Situation,
  item: number,
  storage: number,
  state: "placed" | "owed",
): boolean {
  const copies = view.records.get(universe.id(item))?.copies ?? [];
  return copies.some((copy) => copy.state === state && copy.storage === universe.storage(storage));
}

function hasSource(
  universe: Universe,
  local: LocalState,
  record: BlockRecord,
  item: number,
  storage: number,
): boolean {
  return record.copies.some((copy) => {
    const at = universe.storageOf(copy.storage);
    if (copy.state !== "placed" || at === storage) return false;
    return objectAt(local, [at, item, generationNumber(copy.generation)]) === "good";
  });
}

function placeStep({ universe }: Situation, name: Name, at: number): Step {
  return {
    kind: "placeFilled",
    label: `fill: places ${universe.describe(name)}`,
    request: { type: "placeFilled", name },
    next: (draft) => void draft.fills.splice(at, 1),
  };
}

/** What scrubs and re-checks can do. */
export function scrubSteps(situation: Situation): Step[] {
  const { universe, view, local } = situation;
  const recheck: Step[] =
    view.rechecks.length === 0
      ? []
      : [
          {
            kind: "recheck",
            label: "re-check: works off one step",
            request: { type: "recheck" },
            next: () => undefined,
          },
        ];
  const { judgement } = local;
  if (judgement !== undefined) {
    const type = judgement.verdict === "bad" ? "markBad" : "markVerified";
    const judge: Step = {
      kind: type,
      label: `scrub: judges ${universe.describe(judgement.name)} to be ${judgement.verdict}`,
      request: { type, name: judgement.name },
      next: (draft) => {
        draft.judgement = undefined;
      },
    };
    return [judge, ...recheck];
  }
  return [...recheck, ...readSteps(situation)];
}

/** A copy is read; what matters is one that is not what the record says, or is taken for that. */
function readSteps({ universe, view, local }: Situation): Step[] {
  if (local.budget.scrubs === 0) return [];
  const steps: Step[] = [];
  for (const [id, record] of view.records) {
    for (const copy of record.copies) {
      if (copy.state !== "placed" && copy.state !== "bad") continue;
      const storage = universe.storageOf(copy.storage);
      const name: Name = [storage, universe.itemOf(id), generationNumber(copy.generation)];
      const isGood = objectAt(local, name) === "good";
      const verdicts: ("good" | "bad")[] = [];
      if (copy.state === "placed" && !isGood) verdicts.push("bad");
      if (copy.state === "placed" && isGood && local.budget.falseAlarms > 0) verdicts.push("bad");
      if (copy.state === "bad" && isGood) verdicts.push("good");
      for (const verdict of verdicts) {
        steps.push({
          kind: "scrub",
          label: `scrub: reads ${universe.describe(name)}${isGood && verdict === "bad" ? " in vain" : ""}`,
          next: (draft) => {
            draft.budget.scrubs -= 1;
            if (isGood && verdict === "bad") draft.budget.falseAlarms -= 1;
            draft.judgement = { name: copyOfName(name), verdict };
          },
        });
      }
    }
  }
  return steps;
}

/** Storages lose objects that records name as placed. */
export function lossSteps({ universe, view, local }: Situation): Step[] {
  if (local.budget.losses === 0) return [];
  const steps: Step[] = [];
  for (const [id, record] of view.records) {
    for (const copy of record.copies) {
      const storage = universe.storageOf(copy.storage);
      const name: Name = [storage, universe.itemOf(id), generationNumber(copy.generation)];
      if (copy.state !== "placed" || objectAt(local, name) !== "good") continue;
      steps.push({
        kind: "lose",
        label: `storage ${storage}: loses ${universe.describe(name)}`,
        next: (draft) => {
          draft.budget.losses -= 1;
          removeObject(draft, name);
          draft.lost.push(copyOfName(name));
        },
      });
    }
  }
  return steps;
}
