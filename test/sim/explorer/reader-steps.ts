// What a reader does (services/reader): claims its items, takes in the answers, has objects put, commits nodes over what is
// ready, and announces its horizon. The order is that of the pipeline, the claimer and the committer.
import { assert } from "#lib/core/assert.ts";
import {
  lowestEpoch,
  untouchedItem,
  type Answer,
  type ItemState,
  type LocalState,
  type PutJob,
  type Reader,
} from "./local-state.ts";
import type { Outcome, Request } from "./requests.ts";
import type { Situation, Step } from "./step.ts";
import { tokenOf, type Copy, type Universe } from "./universe.ts";
import type { MetadataView } from "./metadata-view.ts";
import { abandonJob, describeCopies, durableSets, jobSteps, landAtOnce } from "./writer-steps.ts";

/** What all readers can do. */
export function readerSteps(situation: Situation): Step[] {
  return situation.local.readers.flatMap((reader) => [
    ...reader.items.flatMap((item, at) => itemSteps(situation, reader, at, item)),
    ...finishStep(situation, reader),
    ...announceStep(situation, reader),
  ]);
}

/** A reader that begins in this epoch: it knows nothing. */
export function newReader(
  universe: Universe,
  session: number,
  turn: number,
  epoch: number,
): Reader {
  const { items: planned, base } = universe.plan(session);
  // What has not changed since the base is taken from there: its root is held.
  const items = planned.map(untouchedItem);
  for (const [at, item] of planned.entries()) {
    if (base?.items.includes(item) === true) (items[at] as ItemState).phase = "ready";
  }
  return { session, turn, latest: epoch, announced: epoch, items };
}

/** Stops the readers whose session is not live under their token: all that they ask would be refused. */
export function stopZombies(universe: Universe, view: MetadataView, local: LocalState): void {
  for (const reader of local.readers) {
    const record = view.sessions.get(universe.session(reader.session));
    const isLive =
      record?.state === "live" && record.token === tokenOf(reader.session, reader.turn);
    if (!isLive) stopReader(local, universe, reader);
  }
}

const nameOf = ({ session, turn }: Reader): string =>
  `reader ${"ABCD"[session]}${turn > 1 ? `(${turn})` : ""}`;

function readerIn(draft: LocalState, { session, turn }: Reader): Reader {
  const reader = draft.readers.find((one) => one.session === session && one.turn === turn);
  assert(reader !== undefined, "a reader that acts is there");
  return reader;
}

function itemIn(draft: LocalState, reader: Reader, at: number): ItemState {
  return readerIn(draft, reader).items[at] as ItemState;
}

/** Its backup has failed or is done. What its writers have under way goes on. */
function stopReader(draft: LocalState, universe: Universe, reader: Reader): void {
  const stopped = readerIn(draft, reader);
  draft.readers = draft.readers.filter((one) => one !== stopped);
  for (const { job } of stopped.items) if (job !== undefined) abandonJob(draft, universe, job);
}

function itemSteps(situation: Situation, reader: Reader, at: number, item: ItemState): Step[] {
  switch (item.phase) {
    case "todo":
      return childrenReady(situation, reader, at) ? claimSteps(situation, reader, at, item) : [];
    case "answered":
      return [receiveStep(situation, reader, at)];
    case "sending":
      return sendingSteps(situation, reader, at, item);
    case "ready":
      return holdSteps(situation, reader, at, item);
  }
}

function childrenReady({ universe }: Situation, reader: Reader, at: number): boolean {
  const { items } = universe.plan(reader.session);
  return universe
    .item(items[at] as number)
    .children.every((child) => reader.items[items.indexOf(child)]?.phase === "ready");
}

function wantedOf(
  universe: Universe,
  reader: Reader,
  item: ItemState,
): { readonly storages: readonly number[]; readonly quorum: number } {
  return item.wanted ?? universe.plan(reader.session);
}

function claimSteps(
  { universe, local }: Situation,
  reader: Reader,
  at: number,
  item: ItemState,
): Step[] {
  const { storages, quorum } = wantedOf(universe, reader, item);
  const { session, turn } = reader;
  const number = universe.plan(session).items[at] as number;
  const claimOf = (impatient: boolean): Step => ({
    kind: "claim",
    label: `${nameOf(reader)}: claim ${universe.item(number).name}${impatient ? " impatiently" : ""}`,
    request: { type: "claim", session, turn, item: number, storages, quorum, impatient },
    next: (draft, outcome) => {
      if (!outcome.ok) return stopReader(draft, universe, reader);
      const { epoch, answer } = outcome.value as { epoch: number; answer: Answer };
      const claimed = itemIn(draft, reader, at);
      claimed.phase = "answered";
      claimed.answer = structuredCopy(answer);
      claimed.epoch = epoch;
      // From the moment it is asked: whatever is answered belongs to the newest known epoch or a later one.
      claimed.asking = readerIn(draft, reader).latest;
      if (impatient) draft.budget.impatientClaims -= 1;
      if (universe.configuration.lateAnswers !== true) receive(draft, universe, reader, at);
    },
  });
  return local.budget.impatientClaims > 0 ? [claimOf(false), claimOf(true)] : [claimOf(false)];
}

function structuredCopy(answer: Answer): Answer {
  if (answer.kind !== "send") return answer;
  return { ...answer, copies: answer.copies.map(([storage, generation]) => [storage, generation]) };
}

function receiveStep({ universe }: Situation, reader: Reader, at: number): Step {
  const number = universe.plan(reader.session).items[at] as number;
  return {
    kind: "receive",
    label: `${nameOf(reader)}: takes in the answer for ${universe.item(number).name}`,
    next: (draft) => receive(draft, universe, reader, at),
  };
}

function receive(draft: LocalState, universe: Universe, who: Reader, at: number): void {
  const reader = readerIn(draft, who);
  const item = reader.items[at] as ItemState;
  const { answer, epoch } = item;
  assert(answer !== undefined, "an answer that is taken in was given");
  delete item.answer;
  item.epoch = 0;
  item.asking = 0;
  reader.latest = Math.max(reader.latest, epoch);
  // An answer of an epoch before the announced horizon is void: it is asked for again.
  if (epoch < reader.announced || answer.kind === "wait") {
    item.phase = "todo";
    return;
  }
  if (answer.kind === "known") {
    makeReady(reader, universe, at, "known", epoch);
    return;
  }
  item.phase = "sending";
  item.working = epoch;
  const puts = answer.copies.map(
    ([storage, generation]) => ({ storage, generation, state: "running" }) as const,
  );
  const number = universe.plan(reader.session).items[at] as number;
  item.job = { item: number, need: answer.need, recorded: false, puts };
}

/** The item may be named by its parent. What is brought again rests on the answer that it had before. */
function makeReady(
  reader: Reader,
  universe: Universe,
  at: number,
  how: "known" | "stored" | "committed",
  epoch: number,
): void {
  const item = reader.items[at] as ItemState;
  item.phase = "ready";
  delete item.toHold;
  // A stored block may be one storage's only: the quorum may need what another session brings.
  item.kept = how === "stored" ? 1 : universe.plan(reader.session).quorum;
  item.working = 0;
  delete item.wanted;
  if (!item.again) item.held = how === "known" || how === "stored" ? epoch : 0;
  const { items } = universe.plan(reader.session);
  const plan = universe.item(items[at] as number);
  if (plan.kind === "block") return;
  if (how === "known" && universe.plan(reader.session).frozen === true) item.toHold = true;
  for (const child of plan.children) (reader.items[items.indexOf(child)] as ItemState).held = 0;
}

function sendingSteps(situation: Situation, reader: Reader, at: number, item: ItemState): Step[] {
  const { universe } = situation;
  const { job } = item;
  assert(job !== undefined, "what is sent has a job");
  const find = (draft: LocalState): PutJob | undefined => itemIn(draft, reader, at).job;
  const isNode = universe.item(job.item).kind === "node";
  return [
    ...jobSteps(situation, job, nameOf(reader), find),
    ...durableSets(universe, job).map((done) =>
      isNode
        ? commitStep(situation, reader, at, item, done)
        : storeStep(situation, reader, at, job, done),
    ),
  ];
}

function storeStep(
  { universe }: Situation,
  reader: Reader,
  at: number,
  job: PutJob,
  done: Copy[],
): Step {
  const pending = job.puts
    .filter(({ storage }) => done.every(([other]) => other !== storage))
    .map(({ storage, generation }): Copy => [storage, generation]);
  return {
    kind: "store",
    label: `${nameOf(reader)}'s writer: records ${describeCopies(universe, job.item, done)} as stored`,
    request: { type: "store", item: job.item, done, pending },
    next: (draft, outcome) => {
      assert(outcome.ok, "a store is never refused");
      landAtOnce(draft, universe, job.item, done);
      const [{ named }] = outcome.value as [{ named: boolean }];
      const stored = itemIn(draft, reader, at);
      const { working } = stored;
      takeJob(draft, universe, stored, done);
      stored.working = 0;
      if (named) makeReady(readerIn(draft, reader), universe, at, "stored", working);
      else stored.phase = "todo";
    },
  };
}

/** The reader waits for the job no longer; puts that are not recorded yet go on. */
function takeJob(
  draft: LocalState,
  universe: Universe,
  item: ItemState,
  recorded: readonly Copy[],
): void {
  const { job } = item;
  delete item.job;
  if (job === undefined) return;
  job.puts = job.puts.filter(({ storage }) => recorded.every(([at]) => at !== storage));
  job.recorded = true;
  abandonJob(draft, universe, job);
}

function commitStep(
  { universe }: Situation,
  reader: Reader,
  at: number,
  item: ItemState,
  durable: Copy[],
): Step {
  const { session, turn } = reader;
  const { items } = universe.plan(session);
  const number = items[at] as number;
  const { storages, quorum } = wantedOf(universe, reader, item);
  return {
    kind: "commit",
    label: `${nameOf(reader)}: commits ${universe.item(number).name}, durable: ${describeCopies(universe, number, durable)}`,
    request: { type: "commit", session, turn, item: number, durable, storages, quorum },
    next: (draft, outcome) => {
      landAtOnce(draft, universe, number, durable);
      if (!outcome.ok) return stopReader(draft, universe, reader);
      const result = outcome.value as
        | { kind: "committed" }
        | { kind: "returned"; children: number[]; storages: number[] };
      const committed = itemIn(draft, reader, at);
      takeJob(draft, universe, committed, durable);
      if (result.kind === "committed") {
        makeReady(readerIn(draft, reader), universe, at, "committed", 0);
        return;
      }
      committed.phase = "todo";
      committed.working = 0;
      committed.wanted = { storages: [...result.storages], quorum };
      for (const child of result.children) {
        const returned = itemIn(draft, reader, items.indexOf(child));
        returned.phase = "todo";
        returned.again = true;
        delete returned.kept;
        returned.wanted = { storages: [...result.storages], quorum };
      }
    },
  };
}

/** A known node of a source that cannot change is held, so that who resumes need not bring it again. */
function holdSteps({ universe }: Situation, reader: Reader, at: number, item: ItemState): Step[] {
  const { session, turn } = reader;
  if (item.toHold !== true) return [];
  const number = universe.plan(session).items[at] as number;
  return [
    {
      kind: "hold",
      label: `${nameOf(reader)}: holds ${universe.item(number).name}`,
      request: { type: "hold", session, turn, item: number },
      next: (draft, outcome) => {
        if (!outcome.ok) return stopReader(draft, universe, reader);
        const held = itemIn(draft, reader, at);
        delete held.toHold;
        if (outcome.value === true) held.held = 0;
      },
    },
  ];
}

function finishStep({ universe }: Situation, reader: Reader): Step[] {
  const { session, turn, items } = reader;
  if (items.at(-1)?.phase !== "ready") return [];
  const root = items.length - 1;
  return [
    {
      kind: "finish",
      label: `coordinator: finishes ${"ABCD"[session]}`,
      request: { type: "finish", session, turn },
      next: (draft, outcome) => {
        if (!outcome.ok || isValid(outcome)) return stopReader(draft, universe, reader);
        const { storages } = outcome.value as { storages: number[] };
        const returned = itemIn(draft, reader, root);
        returned.phase = "todo";
        returned.again = true;
        delete returned.kept;
        returned.wanted = { storages: [...storages], quorum: storages.length };
      },
    },
  ];
}

function isValid(outcome: Outcome): boolean {
  return outcome.ok && (outcome.value as { kind: string }).kind === "valid";
}

function announceStep({ universe }: Situation, reader: Reader): Step[] {
  const horizon = lowestEpoch(reader);
  if (horizon <= reader.announced) return [];
  const { session, turn } = reader;
  const request: Request = { type: "alive", session, turn, horizon };
  return [
    {
      kind: "announce",
      label: `${nameOf(reader)}: announces horizon ${horizon}`,
      request,
      next: (draft, outcome) => {
        if (!outcome.ok) return stopReader(draft, universe, reader);
        readerIn(draft, reader).announced = horizon;
      },
    },
  ];
}
