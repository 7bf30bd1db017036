// What the actors of a state know and have under way: everything but the metadata. Plain data, so that a state is a text.
import { copyOfName, type Copy, type Name } from "./universe.ts";
import type { Request } from "./requests.ts";

/** An answer to a claim. */
export type Answer =
  | { readonly kind: "known" }
  | { readonly kind: "wait" }
  | { readonly kind: "send"; readonly copies: Copy[]; readonly need: number };

/** One object on its way to one storage: under way, durable, or durable and recorded. */
export interface Put {
  readonly storage: number;
  generation: number;
  state: "running" | "done";
}

/** Puts of one block or node that a writer was asked for together. */
export interface PutJob {
  readonly item: number;
  readonly need: number;
  /** The first ones, enough for the quorum, have been recorded: the others are recorded one by one. */
  recorded: boolean;
  puts: Put[];
}

/** What a reader is at with one item. */
export interface ItemState {
  phase: "todo" | "answered" | "sending" | "ready";
  /** The epoch of the answer that the item rests on until its parent is committed; 0 for none. */
  held: number;
  /** The epoch of an answer that is being worked on; 0 for none. */
  working: number;
  /** While a claim's answer is on its way: what the horizon must not pass; 0 for none. */
  asking: number;
  /** It was ready before, and a commit returned it. */
  again: boolean;
  /** Where it is wanted; undefined: where the session's policy says. */
  wanted?: { readonly storages: number[]; readonly quorum: number };
  /** The answer that is on its way, with its epoch. */
  answer?: Answer;
  epoch: number;
  job?: PutJob;
  /** How many placed copies it may rely on while its session lives. */
  kept?: number;
  /** A known node that the session does not hold yet, but will. */
  toHold?: true;
}

/** A reader that works on a session. It goes on until it notices that the session is not its any more. */
export interface Reader {
  readonly session: number;
  readonly turn: number;
  /** The newest epoch that it has seen; at first that of its start, before which there is no answer. */
  latest: number;
  /** The horizon that it announced. */
  announced: number;
  items: ItemState[];
}

/** The collector between two of its transactions. */
export interface Collector {
  phase: "idle" | "condemned" | "raised" | "removing";
  horizon: number;
}

/** A run that deletes, between listing trash, deleting and clearing it. */
export interface Deletion {
  readonly storage: number;
  run: number;
  deleted: boolean;
  names: Name[];
}

/** A copy that is being filled: its object is not there yet, or is. */
export interface Fill {
  name: Name;
  landed: boolean;
}

/** A copy as it was read by the scrubber. */
export interface Judgement {
  name: Name;
  verdict: "good" | "bad";
}

/** What is still allowed to happen. */
export interface Budget {
  passes: number;
  deletionRuns: number;
  lateDeletes: number;
  deaths: number;
  resumes: number;
  removals: number;
  duplicates: number;
  impatientClaims: number;
  fills: number;
  losses: number;
  falseAlarms: number;
  scrubs: number;
  sweeps: number;
  storageChanges: number;
}

/** Everything but the metadata. */
export interface LocalState {
  /** How often each session was started or resumed; 0: not started. */
  turns: number[];
  readers: Reader[];
  /** Puts that no reader waits for. */
  jobs: PutJob[];
  /** Requests that land again. */
  late: Request[];
  collector: Collector;
  deletion: Deletion | undefined;
  lateDeletes: Name[];
  fills: Fill[];
  judgement: Judgement | undefined;
  /** A listing that is being compared with the records. */
  sweep: { readonly storage: number; names: Name[] } | undefined;
  /** What is on the storages: good, or bad. */
  objects: [name: Name, state: "good" | "bad"][];
  /** What a storage has lost or spoilt: the metadata may still take it for good. */
  lost: Name[];
  budget: Budget;
}

/** An item that nothing is known of. */
export function untouchedItem(): ItemState {
  return { phase: "todo", held: 0, working: 0, asking: 0, again: false, epoch: 0 };
}

/** Whether two names are the same. */
export function sameName(a: Readonly<Name>, b: Readonly<Name>): boolean {
  return a[0] === b[0] && a[1] === b[1] && a[2] === b[2];
}

/** Puts an object in its place, whole, whatever was there. */
export function putObject(local: LocalState, name: Readonly<Name>): void {
  removeObject(local, name);
  local.objects.push([copyOfName(name), "good"]);
}

/** Removes an object, which may be absent. */
export function removeObject(local: LocalState, name: Readonly<Name>): void {
  local.objects = local.objects.filter(([other]) => !sameName(other, name));
  local.lost = local.lost.filter((other) => !sameName(other, name));
}

/** What is on a storage under this name. */
export function objectAt(local: LocalState, name: Readonly<Name>): "good" | "bad" | undefined {
  return local.objects.find(([other]) => sameName(other, name))?.[1];
}

/** The lowest epoch that a reader still rests on. */
export function lowestEpoch(reader: Reader): number {
  let lowest = reader.latest;
  for (const { held, working, asking } of reader.items) {
    if (held > 0) lowest = Math.min(lowest, held);
    if (working > 0) lowest = Math.min(lowest, working);
    if (asking > 0) lowest = Math.min(lowest, asking);
  }
  return lowest;
}
