// All checkers, each applied as seldom as it can be: what depends on the metadata alone is checked once for each snapshot.
import { checkDrained } from "./check-drained.ts";
import { checkMarks } from "./check-marks.ts";
import { checkMetadata } from "./check-metadata.ts";
import { checkObjects } from "./check-objects.ts";
import { checkSessions } from "./check-sessions.ts";
import { checkTransition } from "./check-transition.ts";
import type { LocalState } from "./local-state.ts";
import type { Machine, RawState, State } from "./machine.ts";
import { viewOf } from "./metadata-view.ts";
import type { Snapshot } from "./snapshot-pool.ts";
import type { Violation } from "./violation.ts";

/** The checkers of one exploration. */
export class Checkers {
  readonly #machine: Machine;
  readonly #metadata = new Map<Snapshot, Violation | undefined>();
  readonly #transitions = new Map<string, Violation | undefined>();
  readonly #marks = new Set<Snapshot>();
  readonly #drained = new Set<string>();
  readonly #ended = new Set<string>();
  #drainable = 0;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** Checks what a step has led to, before its names are made canonical. */
  check(before: State, after: RawState): Violation | undefined {
    const view = viewOf(after.snapshot);
    return (
      this.#checkTransition(before.snapshot, after.snapshot) ??
      this.#checkMetadata(after.snapshot) ??
      checkObjects(this.#machine.universe, view, after.local) ??
      checkSessions(this.#machine.universe, view, after.local)
    );
  }

  /** Checks a new state by running it to its end, and its marks. `local` is what its text says. */
  async checkNew(state: State, local: LocalState): Promise<Violation | undefined> {
    const { losses = 0, falseAlarms = 0, drainEvery = 1 } = this.#machine.universe.configuration;
    if (losses + falseAlarms > 0 && !this.#marks.has(state.snapshot)) {
      this.#marks.add(state.snapshot);
      const problem = await checkMarks(this.#machine, state.snapshot);
      if (problem !== undefined) return problem;
    }
    const ends = endingOf(state.snapshot, local);
    if (this.#drained.has(ends)) return undefined;
    this.#drained.add(ends);
    this.#drainable += 1;
    return this.#drainable % drainEvery === 0
      ? checkDrained(this.#machine, state, this.#ended)
      : undefined;
  }

  #checkMetadata(snapshot: Snapshot): Violation | undefined {
    if (this.#metadata.has(snapshot)) return this.#metadata.get(snapshot);
    const problem = checkMetadata(viewOf(snapshot));
    this.#metadata.set(snapshot, problem);
    return problem;
  }

  #checkTransition(before: Snapshot, after: Snapshot): Violation | undefined {
    if (before === after) return undefined;
    const memo = `${before.index},${after.index}`;
    if (this.#transitions.has(memo)) return this.#transitions.get(memo);
    const problem = checkTransition(viewOf(before), viewOf(after));
    this.#transitions.set(memo, problem);
    return problem;
  }
}

/** All that the end of a state depends on: the metadata, the storages, and what may still land there. */
function endingOf(snapshot: Snapshot, local: LocalState): string {
  const { objects, lost, jobs, fills, readers } = local;
  const sending = readers.flatMap(({ items }) => items.flatMap(({ job }) => job ?? []));
  return `${snapshot.index}${JSON.stringify([objects, lost, jobs, sending, fills])}`;
}
