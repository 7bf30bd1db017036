// The end of all things (I4): every process is gone, its sessions are ended and settled, queues drain, trash is emptied and
// a sweep has run. Then each storage holds exactly what records name as placed, every version is complete wherever its policy
// says; and once the versions are removed, nothing at all is left.
import { objectAt, putObject, removeObject, type LocalState } from "./local-state.ts";
import type { Machine, RawState, State } from "./machine.ts";
import { viewOf, type MetadataView } from "./metadata-view.ts";
import { checkMetadata } from "./check-metadata.ts";
import { checkObjects } from "./check-objects.ts";
import type { Outcome, Request } from "./requests.ts";
import type { Step } from "./step.ts";
import { fillSteps } from "./upkeep-steps.ts";
import { copyOfName, generationNumber, type Name, type Universe } from "./universe.ts";
import { violated, type Violation } from "./violation.ts";

/** Rounds after which something that should end is going round in circles. */
const ROUNDS_MAX = 60;

/**
 * Brings a state to its end and looks at what is left. Many states are the same once their sessions have ended: those that
 * `seen` has were looked at before.
 */
export async function checkDrained(
  machine: Machine,
  state: State,
  seen: Set<string>,
): Promise<Violation | undefined> {
  const drain = new Drain(machine, state);
  await drain.endSessions();
  if (seen.has(drain.key)) return undefined;
  seen.add(drain.key);
  await drain.tend();
  await drain.collect();
  await drain.emptyTrash();
  drain.landPuts();
  await drain.sweep();
  await drain.emptyTrash();
  const problem = drain.checkLeft();
  if (problem !== undefined) return problem;
  await drain.removeVersions();
  await drain.collect();
  await drain.emptyTrash();
  return drain.checkEmpty();
}

class Drain {
  readonly #machine: Machine;
  readonly #universe: Universe;
  #state: State;
  #local: LocalState;

  constructor(machine: Machine, state: State) {
    this.#machine = machine;
    this.#universe = machine.universe;
    this.#state = state;
    this.#local = JSON.parse(state.text) as LocalState;
  }

  /** What tells apart the state that it has come to. */
  get key(): string {
    return `${this.#state.snapshot.index}${this.#state.text}`;
  }

  get #view(): MetadataView {
    return viewOf(this.#state.snapshot);
  }

  async #take(step: Pick<Step, "request"> & Partial<Step>): Promise<Outcome | undefined> {
    let outcome: Outcome | undefined;
    const next: Step["next"] = (draft, came) => {
      outcome = came;
      step.next?.(draft, came);
    };
    this.#settle(await this.#machine.take(this.#state, { kind: "", label: "", ...step, next }));
    return outcome;
  }

  #ask(request: Request): Promise<Outcome | undefined> {
    return this.#take({ request });
  }

  /** Something is done outside of the metadata. */
  #change(change: (local: LocalState) => void): void {
    const local = JSON.parse(this.#state.text) as LocalState;
    change(local);
    this.#settle({ snapshot: this.#state.snapshot, local });
  }

  #settle(raw: RawState): void {
    this.#state = this.#machine.canonical(raw);
    this.#local = JSON.parse(this.#state.text) as LocalState;
  }

  /**
   * All readers, writers and collectors are gone; their sessions are noticed, ended and settled. All storages are in use
   * again.
   */
  async endSessions(): Promise<void> {
    this.#change((local) => {
      for (const { items } of local.readers) {
        for (const { job } of items) if (job !== undefined) local.jobs.push(job);
      }
      const { budget } = local;
      for (const name of Object.keys(budget) as (keyof typeof budget)[]) budget[name] = 0;
      Object.assign(local, {
        readers: [],
        late: [],
        collector: { phase: "idle", horizon: 0 },
        deletion: undefined,
        lateDeletes: [],
        judgement: undefined,
        sweep: undefined,
        fills: local.fills.filter(({ landed }) => !landed),
      });
    });
    for (const storage of this.#universe.storages.keys()) {
      await this.#ask({ type: "setStorage", storage, state: "in-use" });
    }
    for (const session of this.#universe.sessions.keys()) {
      const turn = this.#local.turns[session] as number;
      if (turn === 0) continue;
      await this.#ask({ type: "markDead", session, turn });
      await this.#ask({ type: "abandon", session });
      await this.#untilFalse({ type: "settle", session });
    }
    this.#change((local) => {
      local.turns = local.turns.map(() => 0);
    });
  }

  async #untilFalse(request: Request): Promise<void> {
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      const outcome = await this.#ask(request);
      if (outcome?.ok !== true || outcome.value === false) return;
    }
  }

  /** Lost objects are noticed, and whatever can be filled is. */
  async tend(): Promise<void> {
    for (const name of this.#local.lost.map(copyOfName)) {
      await this.#ask({ type: "markBad", name });
    }
    await this.#verifyBad();
    this.#change((local) => {
      local.budget.fills = ROUNDS_MAX;
      local.lost = [];
      // What is under way lands at the very end: fills begin anew.
      local.jobs.push(
        ...local.fills.map(({ name: [storage, item, generation] }) => ({
          item,
          need: 0,
          recorded: true,
          puts: [{ storage, generation, state: "running" } as const],
        })),
      );
      local.fills = [];
    });
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      const situation = { universe: this.#universe, view: this.#view, local: this.#local };
      const [step] = fillSteps(situation);
      if (step === undefined) break;
      await this.#take(step);
    }
    await this.#untilFalse({ type: "recheck" });
  }

  /** Copies that were found bad in vain are read again. */
  async #verifyBad(): Promise<void> {
    for (const [id, { copies }] of this.#view.records) {
      for (const { state, storage, generation } of copies) {
        const name: Name = [
          this.#universe.storageOf(storage),
          this.#universe.itemOf(id),
          generationNumber(generation),
        ];
        if (state !== "bad" || objectAt(this.#local, name) !== "good") continue;
        await this.#ask({ type: "markVerified", name });
        return this.#verifyBad();
      }
    }
  }

  async collect(): Promise<void> {
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      const { unreferenced, condemned } = this.#view;
      if (unreferenced.length + condemned.length === 0) break;
      await this.#ask({ type: "condemn" });
      await this.#ask({ type: "raise" });
      const lowest = await this.#ask({ type: "lowest" });
      const horizon = lowest?.ok === true ? (lowest.value as number) : 0;
      await this.#ask({ type: "remove", horizon });
    }
  }

  /** The metadata forget dead names at once where deletions are not the subject: then there is nothing to do. */
  async emptyTrash(): Promise<void> {
    for (const storage of this.#universe.storages.keys()) {
      const outcome = await this.#ask({ type: "beginRun", storage });
      if (outcome?.ok !== true) continue;
      const { run, names } = outcome.value as { run: number; names: Name[] };
      await this.#take({
        request: { type: "clearTrash", storage, run, names },
        next: (draft) => names.forEach((name) => removeObject(draft, name)),
      });
    }
  }

  /** Puts that were under way arrive when their trash has been emptied. */
  landPuts(): void {
    this.#change((local) => {
      for (const { item, puts } of local.jobs) {
        for (const { storage, generation } of puts) putObject(local, [storage, item, generation]);
      }
      local.jobs = [];
    });
  }

  async sweep(): Promise<void> {
    for (const storage of this.#universe.storages.keys()) {
      const names = this.#local.objects.map(([name]) => name).filter(([at]) => at === storage);
      await this.#ask({ type: "sweep", storage, names });
    }
  }

  /** What is left is what the versions need. */
  checkLeft(): Violation | undefined {
    const view = this.#view;
    return (
      checkMetadata(view) ??
      checkObjects(this.#universe, view, this.#local) ??
      this.#checkOrphans() ??
      checkLeaks(view) ??
      this.#checkComplete()
    );
  }

  #checkOrphans(): Violation | undefined {
    for (const [name] of this.#local.objects) {
      const [storage, item] = name;
      const id = this.#universe.id(item);
      const isNamed = this.#view.records
        .get(id)
        ?.copies.some((copy) => copy.storage === this.#universe.storage(storage));
      if (isNamed !== true) {
        return violated("I4", `${this.#universe.describe(name)} stays, and no record names it`);
      }
    }
    return undefined;
  }

  /** Nothing that a storage is owed stays owed where another storage has it. */
  #checkComplete(): Violation | undefined {
    for (const [uid, { state, root, policy }] of this.#view.versions) {
      if (root === undefined || state !== "valid") continue;
      const record = this.#view.records.get(root);
      for (const storage of policy.storages) {
        const isThere = record?.copies.some(
          (copy) => copy.storage === storage && copy.state === "placed",
        );
        if (isThere !== true) {
          const at = this.#universe.storageOf(storage);
          return violated("I4", `version ${uid} is never complete at storage ${at}`);
        }
      }
    }
    return undefined;
  }

  async removeVersions(): Promise<void> {
    for (const session of this.#universe.sessions.keys()) {
      await this.#ask({ type: "removeVersion", session });
    }
  }

  /** Without versions, nothing is left. */
  checkEmpty(): Violation | undefined {
    const { records, nodes, references } = this.#view;
    const left = records.size + nodes.size + references.length;
    if (left > 0) {
      return violated("I4", `${left} records are left although all versions are removed`);
    }
    const [orphan] = this.#local.objects;
    return orphan === undefined
      ? undefined
      : violated("I4", `${this.#universe.describe(orphan[0])} is left of a removed version`);
  }
}

function checkLeaks(view: MetadataView): Violation | undefined {
  const left = {
    claims: view.claims.length,
    holds: view.holds.length,
    sessions: view.sessions.size,
    horizons: view.horizons,
    "unreferenced entries": view.unreferenced.length,
    "condemned records": view.condemned.length,
    "trash entries": view.trash.length,
    "re-checks": view.rechecks.length,
  };
  for (const [what, count] of Object.entries(left)) {
    if (count > 0) return violated("I4", `${count} ${what} are left`);
  }
  for (const [uid, { state }] of view.versions) {
    if (state === "incomplete") return violated("I4", `the unfinished version ${uid} is left`);
  }
  for (const [id, { copies }] of view.records) {
    if (copies.some(({ state }) => state === "coming")) {
      return violated("I4", `a copy of ${id.slice(0, 4)} comes for ever`);
    }
  }
  return undefined;
}
