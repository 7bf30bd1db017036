// What live sessions can rely on: blocks are sent once (I5), and what a session was told, or has sent, stays (I8).
import type { ItemState, LocalState, Reader } from "./local-state.ts";
import type { MetadataView } from "./metadata-view.ts";
import { nameText } from "./metadata-view.ts";
import { generationOf, tokenOf, type Universe } from "./universe.ts";
import { violated, type Violation } from "./violation.ts";

/** The first violation of what live sessions rely on. */
export function checkSessions(
  universe: Universe,
  view: MetadataView,
  local: LocalState,
): Violation | undefined {
  const live = local.readers.filter((reader) => isLive(universe, view, reader));
  const isPatient = (universe.configuration.impatientClaims ?? 0) === 0;
  const twice = isPatient ? checkSentOnce(universe, live) : undefined;
  if (twice !== undefined) return twice;
  for (const reader of live) {
    for (const [at, item] of reader.items.entries()) {
      const number = universe.plan(reader.session).items[at] as number;
      const problem =
        checkKept(universe, view, reader, item, number) ??
        (isPatient ? checkSending(universe, view, reader, item) : undefined);
      if (problem !== undefined) return problem;
    }
  }
  return undefined;
}

function isLive(universe: Universe, view: MetadataView, { session, turn }: Reader): boolean {
  const record = view.sessions.get(universe.session(session));
  return record?.state === "live" && record.token === tokenOf(session, turn);
}

const who = ({ session }: Reader): string => `session ${"ABCD"[session]}`;

/** I8: a known or stored item has a record, placed at a quorum unless a storage lost it. */
function checkKept(
  universe: Universe,
  view: MetadataView,
  reader: Reader,
  item: ItemState,
  number: number,
): Violation | undefined {
  // An answer that is on its way counts, too, unless it will be found void.
  const isTold =
    item.phase === "ready" || (item.answer?.kind === "known" && item.epoch >= reader.announced);
  if (!isTold) return undefined;
  const { name } = universe.item(number);
  const record = view.records.get(universe.id(number));
  if (record === undefined) {
    return violated("I8", `${name} is gone, although ${who(reader)} relies on it`);
  }
  const { losses = 0, falseAlarms = 0 } = universe.configuration;
  if (losses + falseAlarms > 0) return undefined;
  const { storages, quorum } = universe.plan(reader.session);
  const needed = item.kept ?? quorum;
  const ids = storages.map((storage) => universe.storage(storage));
  const placed = record.copies.filter(
    ({ state, storage }) => state === "placed" && ids.includes(storage),
  );
  return placed.length >= needed
    ? undefined
    : violated("I8", `${name} is not placed any more, although ${who(reader)} relies on it`);
}

/** I8: what a session was asked to send is named until it is recorded. */
function checkSending(
  universe: Universe,
  view: MetadataView,
  reader: Reader,
  { job }: ItemState,
): Violation | undefined {
  for (const { storage, generation } of job?.puts ?? []) {
    const id = universe.id(job?.item ?? 0);
    const name = nameText(universe.storage(storage), id, generationOf(generation));
    if (view.names.has(name)) continue;
    const { losses = 0, falseAlarms = 0 } = universe.configuration;
    if (losses + falseAlarms > 0) continue;
    const what = universe.describe([storage, job?.item ?? 0, generation]);
    return violated("I8", `${what} is not named any more, although ${who(reader)} sends it`);
  }
  return undefined;
}

/** I5: two live sessions are not asked to send the same item to the same storage. */
function checkSentOnce(universe: Universe, live: readonly Reader[]): Violation | undefined {
  const sent = new Map<string, Reader>();
  for (const reader of live) {
    for (const [at, { job, answer }] of reader.items.entries()) {
      const asked = answer?.kind === "send" ? answer.copies.map(([storage]) => storage) : [];
      const storages = [...asked, ...(job?.puts ?? []).map(({ storage }) => storage)];
      const { name } = universe.item(universe.plan(reader.session).items[at] as number);
      for (const storage of storages) {
        const what = `${name} at ${storage}`;
        const other = sent.get(what);
        if (other !== undefined && other !== reader) {
          return violated("I5", `${what} is sent by ${who(other)} and by ${who(reader)}`);
        }
        sent.set(what, reader);
      }
    }
  }
  return undefined;
}
