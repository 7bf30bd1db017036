// Takes steps: runs a step's transaction on the metadata of a state (each transaction on each snapshot once only) and then
// what the step does outside them.
import type { Random } from "#lib/ports/random.ts";
import { SHORT_ID_BYTES } from "#lib/core/ids.ts";
import { CanonicalForm } from "./canonical-form.ts";
import type { LocalState } from "./local-state.ts";
import { viewOf } from "./metadata-view.ts";
import { stopZombies } from "./reader-steps.ts";
import { runRequest, type Outcome, type Request } from "./requests.ts";
import { SnapshotKv } from "./snapshot-kv.ts";
import { SnapshotPool, type Snapshot } from "./snapshot-pool.ts";
import type { Step } from "./step.ts";
import { generationOf, type Universe } from "./universe.ts";

/** A state in canonical form. */
export interface State {
  readonly snapshot: Snapshot;
  /** The local state as JSON. */
  readonly text: string;
}

/** A state as a step has left it, before its names are made canonical. */
export interface RawState {
  readonly snapshot: Snapshot;
  readonly local: LocalState;
}

/** Runs a request; a planted bug may run it in another way. */
export type RunRequest = typeof runRequest;

/** Generations from here on were drawn in the transaction that has just run: canonical ones are small. */
export const FRESH_GENERATION_FIRST = 1_000_000;

const NO_OUTCOME: Outcome = { ok: true, value: undefined };

interface Ran {
  readonly outcome: Outcome;
  readonly snapshot: Snapshot;
}

/** Takes steps in one world. */
export class Machine {
  readonly universe: Universe;
  readonly pool: SnapshotPool;
  readonly #canonical: CanonicalForm;
  readonly #run: RunRequest;
  readonly #ran = new Map<string, Ran>();

  constructor(universe: Universe, run: RunRequest = runRequest, pool = new SnapshotPool()) {
    this.universe = universe;
    this.pool = pool;
    this.#run = run;
    const forgetDead = (universe.configuration.deletionRuns ?? 0) === 0;
    this.#canonical = new CanonicalForm(pool, universe, forgetDead);
  }

  /** What a request came to on this snapshot, when it was run there before. */
  recall(snapshot: Snapshot, request: Request): Ran | undefined {
    return this.#ran.get(memoKey(snapshot, request));
  }

  /** Runs a request. */
  async run(snapshot: Snapshot, request: Request): Promise<Ran> {
    const known = this.recall(snapshot, request);
    if (known !== undefined) return known;
    const kv = new SnapshotKv(this.pool, snapshot);
    const outcome = await this.#run(this.universe, kv, freshRandom(), request);
    const ran = { outcome, snapshot: kv.snapshot };
    this.#ran.set(memoKey(snapshot, request), ran);
    return ran;
  }

  /** Takes a step whose transaction need not be run; undefined where it has to be, by {@link take}. */
  takeAtOnce(state: State, step: Step): RawState | undefined {
    if (step.request === undefined) return finish(state, step, NO_OUTCOME, state.snapshot);
    const ran = this.recall(state.snapshot, step.request);
    return ran === undefined ? undefined : finish(state, step, ran.outcome, ran.snapshot);
  }

  /** Takes a step. */
  async take(state: State, step: Step): Promise<RawState> {
    if (step.request === undefined) return finish(state, step, NO_OUTCOME, state.snapshot);
    const { outcome, snapshot } = await this.run(state.snapshot, step.request);
    return finish(state, step, outcome, snapshot);
  }

  /** The canonical form of a state; `raw.local` becomes what its text says. */
  canonical(raw: RawState): State {
    if (this.universe.configuration.silentZombies === true) {
      stopZombies(this.universe, viewOf(raw.snapshot), raw.local);
    }
    const snapshot = this.#canonical.apply(raw.snapshot, raw.local);
    return { snapshot, text: JSON.stringify(raw.local) };
  }
}

function memoKey(snapshot: Snapshot, request: Request): string {
  return `${snapshot.index}${JSON.stringify(request)}`;
}

function finish(state: State, step: Step, outcome: Outcome, snapshot: Snapshot): RawState {
  const local = JSON.parse(state.text) as LocalState;
  step.next(local, outcome);
  return { snapshot, local };
}

/** Draws generations that no state contains: counted, so that a transaction always draws the same ones. */
export function freshRandom(): Random {
  let count = 0;
  return {
    bytes(length) {
      if (length !== SHORT_ID_BYTES) throw new Error("only generations are drawn");
      count += 1;
      return Buffer.from(generationOf(FRESH_GENERATION_FIRST + count), "hex");
    },
    below: () => 0,
  };
}
