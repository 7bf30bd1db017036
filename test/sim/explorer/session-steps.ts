// What coordinators do with sessions and versions (services/coordinator): start, take for dead, resume, abandon, settle,
// remove; and requests that land a second time.
import type { LocalState } from "./local-state.ts";
import { newReader } from "./reader-steps.ts";
import type { Request } from "./requests.ts";
import type { Situation, Step } from "./step.ts";
import { landAtOnce } from "./writer-steps.ts";

/** What coordinators can do. */
export function sessionSteps(situation: Situation): Step[] {
  const { universe } = situation;
  return universe.sessions.flatMap((_, session) =>
    [
      startSteps(situation, session),
      lifeSteps(situation, session),
      removeSteps(situation, session),
    ].flat(),
  );
}

/** What users do with storages. */
export function storageSteps({ universe, view, local }: Situation): Step[] {
  if (local.budget.storageChanges === 0) return [];
  const storage = universe.storages.length - 1;
  const isInUse = view.storagesInUse.has(universe.storage(storage));
  const state = isInUse ? "disabled" : "in-use";
  return [
    {
      kind: "setStorage",
      label: `user: storage ${storage} is ${state} from now on`,
      request: { type: "setStorage", storage, state },
      next: (draft) => void (draft.budget.storageChanges -= 1),
    },
  ];
}

const letter = (session: number): string => "ABCD"[session] ?? `${session}`;

function startSteps({ universe, view, local }: Situation, session: number): Step[] {
  if (local.turns[session] !== 0) return [];
  return [
    {
      kind: "start",
      label: `coordinator: starts ${letter(session)}`,
      request: { type: "start", session },
      next: (draft, outcome) => {
        draft.turns[session] = 1;
        // Its base is gone.
        if (!outcome.ok) return;
        addReader(draft, newReader(universe, session, 1, view.epoch));
      },
    },
  ];
}

function addReader(draft: LocalState, reader: LocalState["readers"][number]): void {
  draft.readers.push(reader);
  draft.readers.sort((a, b) => a.session - b.session || a.turn - b.turn);
}

function lifeSteps(situation: Situation, session: number): Step[] {
  const { universe, view, local } = situation;
  const record = view.sessions.get(universe.session(session));
  if (record === undefined) return [];
  const turn = local.turns[session] as number;
  const spend = (what: "deaths") => (draft: LocalState) => void (draft.budget[what] -= 1);
  switch (record.state) {
    case "live":
      return local.budget.deaths === 0
        ? []
        : [
            {
              kind: "markDead",
              label: `coordinator: takes ${letter(session)} for dead`,
              request: { type: "markDead", session, turn },
              next: spend("deaths"),
            },
          ];
    case "dead":
      return [...resumeSteps(situation, session), ...abandonSteps(situation, session)];
    case "ended":
      return [
        {
          kind: "settle",
          label: `coordinator: settles ${letter(session)}`,
          request: { type: "settle", session },
          next: () => undefined,
        },
      ];
  }
}

function resumeSteps({ universe, view, local }: Situation, session: number): Step[] {
  if (local.budget.resumes === 0) return [];
  const turn = (local.turns[session] as number) + 1;
  const { items, frozen } = universe.plan(session);
  const id = universe.session(session);
  return [
    {
      kind: "resume",
      label: `coordinator: resumes ${letter(session)}`,
      request: { type: "resume", session, turn },
      next: (draft, outcome) => {
        draft.budget.resumes -= 1;
        if (!outcome.ok) return;
        draft.turns[session] = turn;
        const reader = newReader(universe, session, turn, view.epoch);
        // A frozen source is not read again where the session holds nodes.
        for (const hold of frozen === true ? view.holds : []) {
          if (hold.session !== id) continue;
          const at = items.indexOf(universe.itemOf(hold.id));
          const covered = [items[at] as number, ...universe.item(items[at] as number).children];
          for (const item of covered) {
            const state = reader.items[items.indexOf(item)];
            if (state !== undefined) state.phase = "ready";
          }
        }
        addReader(draft, reader);
      },
    },
  ];
}

function abandonSteps({ universe }: Situation, session: number): Step[] {
  if (universe.configuration.abandons !== true) return [];
  return [
    {
      kind: "abandon",
      label: `coordinator: abandons ${letter(session)}`,
      request: { type: "abandon", session },
      next: () => undefined,
    },
  ];
}

function removeSteps({ universe, view, local }: Situation, session: number): Step[] {
  const state = view.versions.get(universe.uid(session))?.state;
  if (local.budget.removals === 0 || (state !== "valid" && state !== "invalid")) return [];
  return [
    {
      kind: "removeVersion",
      label: `user: removes the version of ${letter(session)}`,
      request: { type: "removeVersion", session },
      next: (draft) => void (draft.budget.removals -= 1),
    },
  ];
}

/**
 * Requests that may be sent twice. Not `start`: it is no message, and what guards it goes when its session is settled, so a
 * second one that lands after that begins the session anew.
 */
const REPEATABLE: ReadonlySet<Request["type"]> = new Set([
  "claim",
  "store",
  "commit",
  "finish",
  "alive",
  "hold",
  "placeFilled",
  "settle",
  "removeVersion",
  "markDead",
  "resume",
]);

/** Any request that can be sent now may be sent twice: its double lands later, or before it. */
export function duplicateSteps({ local }: Situation, steps: readonly Step[]): Step[] {
  if (local.budget.duplicates === 0) return [];
  return steps.flatMap(({ label, request }): Step[] => {
    if (request === undefined || !REPEATABLE.has(request.type)) return [];
    return [
      {
        kind: "duplicate",
        label: `network: keeps a double of "${label}"`,
        next: (draft) => {
          draft.budget.duplicates -= 1;
          draft.late.push(JSON.parse(JSON.stringify(request)) as Request);
        },
      },
    ];
  });
}

/** Doubles land; nobody listens to their answers. */
export function lateRequestSteps({ universe, local }: Situation): Step[] {
  return local.late.map((request, at) => ({
    kind: "land",
    label: `network: a double lands: ${JSON.stringify(request)}`,
    request,
    next: (draft) => {
      draft.late.splice(at, 1);
      // What it says is durable was so when it was sent.
      if (request.type === "store") landAtOnce(draft, universe, request.item, request.done);
      if (request.type === "commit") landAtOnce(draft, universe, request.item, request.durable);
      if (request.type === "placeFilled") {
        const [storage, item, generation] = request.name;
        landAtOnce(draft, universe, item, [[storage, generation]]);
      }
    },
  }));
}
