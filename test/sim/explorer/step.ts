// A step: what one actor can do next. It changes what the actor knows and the storages, after at most one transaction.
import type { MetadataView } from "./metadata-view.ts";
import type { LocalState } from "./local-state.ts";
import type { Outcome, Request } from "./requests.ts";
import type { Universe } from "./universe.ts";

/** What an actor looks at to see what it can do. */
export interface Situation {
  readonly universe: Universe;
  readonly view: MetadataView;
  /** Not to be changed. */
  readonly local: LocalState;
}

/** A step. */
export interface Step {
  /** What kind of step it is, e.g. "claim". */
  readonly kind: string;
  /** For people: who does what. */
  readonly label: string;
  readonly request?: Request;
  /** Carries it out on a copy of the local state, after the request. */
  readonly next: (draft: LocalState, outcome: Outcome) => void;
}

/** All that some actors can do in a situation. */
export type Steps = (situation: Situation) => Step[];
