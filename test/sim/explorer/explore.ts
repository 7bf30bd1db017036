// The exploration: breadth first, so that the first violation that is found has a shortest trace.
import { Checkers } from "./checkers.ts";
import type { Configuration } from "./configuration.ts";
import { initialState } from "./initial-state.ts";
import type { LocalState } from "./local-state.ts";
import { Machine, type RawState, type State } from "./machine.ts";
import { viewOf } from "./metadata-view.ts";
import { actorSteps } from "./actors.ts";
import type { PlantedBug } from "./planted-bug.ts";
import type { Step } from "./step.ts";
import { Universe } from "./universe.ts";
import { violated, type Invariant, type Violation } from "./violation.ts";
import { VisitedStates } from "./visited-states.ts";

/** How far to go. */
export interface ExploreOptions {
  /** Default: no limit. */
  readonly statesMax?: number;
  /** A mistake of the actors, to see whether a checker catches it. */
  readonly bug?: PlantedBug;
  /** Told after each level. */
  readonly onLevel?: (progress: { readonly depth: number; readonly states: number }) => void;
}

/** What an exploration found. */
export interface Exploration {
  /** Different states that were met. */
  readonly states: number;
  readonly transitions: number;
  /** Different contents of the metadata, raw ones too. */
  readonly snapshots: number;
  /** Steps to the farthest states that were met. */
  readonly depth: number;
  /** Every state that can be reached was met. */
  readonly exhausted: boolean;
  readonly violation?: {
    readonly invariant: Invariant;
    readonly message: string;
    readonly trace: readonly string[];
  };
}

/** Explores a configuration until nothing is left, a violation is found, or there are too many states. */
export function exploreConfiguration(
  configuration: Configuration,
  options: ExploreOptions = {},
): Promise<Exploration> {
  return new Explorer(configuration, options).run();
}

interface Reached {
  readonly index: number;
  readonly state: State;
}

interface Found {
  readonly violation: Violation;
  readonly parent: number;
  readonly last: Step | undefined;
}

class Explorer {
  readonly #machine: Machine;
  readonly #checkers: Checkers;
  readonly #options: ExploreOptions;
  readonly #visited = new VisitedStates();
  #next: Reached[] = [];
  #transitions = 0;
  #found: Found | undefined;

  constructor(configuration: Configuration, options: ExploreOptions) {
    const { bug } = options;
    this.#machine = new Machine(new Universe(configuration), bug?.run);
    // Checkers that go on from a state do so without the planted bug.
    const sound = bug?.run === undefined ? this.#machine : this.#soundMachine();
    this.#checkers = new Checkers(sound);
    this.#options = options;
  }

  async run(): Promise<Exploration> {
    const first = await initialState(this.#machine);
    this.#visited.add(keyOf(first), -1, 0);
    this.#next = [{ index: 0, state: first }];
    let depth = 0;
    while (this.#next.length > 0 && this.#found === undefined && !this.#isFull) {
      const level = this.#next;
      this.#next = [];
      for (const reached of level) {
        await this.#expand(reached);
        if (this.#found !== undefined || this.#isFull) break;
      }
      if (this.#next.length > 0 || this.#found !== undefined) depth += 1;
      this.#options.onLevel?.({ depth, states: this.#visited.size });
    }
    const figures = {
      states: this.#visited.size,
      transitions: this.#transitions,
      snapshots: this.#machine.pool.size,
      depth,
      exhausted: this.#found === undefined && !this.#isFull,
    };
    const found = this.#found;
    if (found === undefined) return figures;
    const trace = await this.#trace(first, found);
    return { ...figures, violation: { ...found.violation, trace } };
  }

  #soundMachine(): Machine {
    const { universe, pool } = this.#machine;
    return new Machine(universe, undefined, pool);
  }

  get #isFull(): boolean {
    return this.#visited.size >= (this.#options.statesMax ?? Number.POSITIVE_INFINITY);
  }

  #stepsOf(state: State): Step[] {
    const local = JSON.parse(state.text) as LocalState;
    const situation = { universe: this.#machine.universe, view: viewOf(state.snapshot), local };
    const steps = actorSteps(situation);
    return this.#options.bug?.alterSteps?.(situation, steps) ?? steps;
  }

  async #expand({ index, state }: Reached): Promise<void> {
    for (const [at, step] of this.#stepsOf(state).entries()) {
      let raw: RawState;
      try {
        raw = this.#machine.takeAtOnce(state, step) ?? (await this.#machine.take(state, step));
      } catch (error) {
        const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
        this.#found = { violation: violated("code", message), parent: index, last: step };
        return;
      }
      this.#transitions += 1;
      const violation = this.#checkers.check(state, raw);
      if (violation !== undefined) {
        this.#found = { violation, parent: index, last: step };
        return;
      }
      const reached = this.#machine.canonical(raw);
      const added = this.#visited.add(keyOf(reached), index, at);
      if (added === -1) continue;
      this.#next.push({ index: added, state: reached });
      const ended = await this.#checkers.checkNew(reached, raw.local);
      if (ended === undefined) continue;
      this.#found = { violation: ended, parent: added, last: undefined };
      return;
    }
  }

  /** The labels on the way, by taking it once more. */
  async #trace(first: State, { parent, last }: Found): Promise<string[]> {
    const labels: string[] = [];
    let state = first;
    for (const at of this.#visited.path(parent)) {
      const step = this.#stepsOf(state)[at];
      if (step === undefined) throw new Error("a trace can be taken again");
      labels.push(step.label);
      state = this.#machine.canonical(await this.#machine.take(state, step));
    }
    return last === undefined ? labels : [...labels, last.label];
  }
}

function keyOf({ snapshot, text }: State): string {
  return `${snapshot.index}${text}`;
}
