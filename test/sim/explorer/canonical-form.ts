// One form for all states that differ only in the names of generations, in the distances between epochs and runs, or in
// the order of what has none. No transaction looks at more than equality of generations and the order of epochs and runs.
import { namesIn, renameEntry, type EntryNames, type Renaming } from "./entry-renaming.ts";
import { renameEpochs, renameGenerations, renameRuns } from "./local-names.ts";
import type { LocalState, PutJob } from "./local-state.ts";
import { nameOfObject } from "./object-names.ts";
import { nameText, viewOf } from "./metadata-view.ts";
import { generationOf, type Name, type Universe } from "./universe.ts";
import { parse } from "#lib/repository/keyspace.ts";
import type { Entry, Snapshot, SnapshotPool } from "./snapshot-pool.ts";

interface SnapshotNames {
  /** Of the records: they are numbered first. */
  readonly generations: readonly number[];
  readonly trash: readonly { readonly name: Name; readonly run: number }[];
  readonly epochs: readonly number[];
  readonly runs: readonly number[];
}

const EPOCH_FIRST = 1;
const RUN_FIRST = 0;

/** Brings states of one exploration into canonical form. */
export class CanonicalForm {
  readonly #pool: SnapshotPool;
  readonly #universe: Universe;
  /** Deletions are not the subject: what no record names is forgotten. */
  readonly #forgetDead: boolean;
  readonly #entryNames = new Map<Entry, EntryNames>();
  readonly #snapshotNames = new Map<Snapshot, SnapshotNames>();
  readonly #renamed = new Map<string, Snapshot>();

  constructor(pool: SnapshotPool, universe: Universe, forgetDead: boolean) {
    this.#pool = pool;
    this.#universe = universe;
    this.#forgetDead = forgetDead;
  }

  /** Renames `local` in place; returns the snapshot under its new names. */
  apply(snapshot: Snapshot, local: LocalState): Snapshot {
    const names = this.#namesOf(snapshot);
    const epochs = rankedEpochs(names, local);
    renameEpochs(local, (old) => epochs.get(old) as number);
    const runs = this.#forgetDead ? new Map<number, number>() : rankedRuns(names, local);
    renameRuns(local, (old) => runs.get(old) ?? old);
    sortParts(local);
    if (this.#forgetDead) this.#forget(snapshot, local);
    const generations = this.#numberGenerations(names, local);
    const renamed = this.#rename(snapshot, names, { generations, epochs, runs });
    const byName = ([a]: LocalState["objects"][number], [b]: LocalState["objects"][number]) =>
      compareNames(a, b);
    local.objects.sort(byName);
    local.lost.sort(compareNames);
    return renamed;
  }

  /** Objects that no record names are as good as deleted. */
  #forget(snapshot: Snapshot, local: LocalState): void {
    const { names } = viewOf(snapshot);
    const isNamed = ([storage, item, generation]: Readonly<Name>): boolean => {
      const [at, id] = [this.#universe.storage(storage), this.#universe.id(item)];
      return names.has(nameText(at, id, generationOf(generation)));
    };
    local.objects = local.objects.filter(([name]) => isNamed(name));
    local.lost = local.lost.filter(isNamed);
  }

  #numberGenerations(names: SnapshotNames, local: LocalState): Map<number, number> {
    const numbers = new Map<number, number>();
    const rename = (old: number): number => {
      let number = numbers.get(old);
      if (number === undefined) {
        number = numbers.size + 1;
        numbers.set(old, number);
      }
      return number;
    };
    names.generations.forEach(rename);
    renameGenerations(local, rename);
    if (!this.#forgetDead) numberDead(names, local, numbers, rename);
    for (const [name] of local.objects) name[2] = rename(name[2]);
    for (const name of local.lost) name[2] = rename(name[2]);
    return numbers;
  }

  #namesOf(snapshot: Snapshot): SnapshotNames {
    let names = this.#snapshotNames.get(snapshot);
    if (names !== undefined) return names;
    const found = snapshot.entries.map((entry) => this.#namesIn(entry));
    const records = found.filter(({ kind }) => kind === "record");
    names = {
      generations: records.flatMap(({ generations }) => generations),
      trash: snapshot.entries.flatMap((entry, at) => {
        if (found[at]?.kind !== "trash") return [];
        const { storage, name } = parse.trash(entry.key);
        const parsed = nameOfObject(this.#universe, this.#universe.storageOf(storage), name);
        return parsed === undefined ? [] : [{ name: parsed, run: found[at].runs[0] ?? 0 }];
      }),
      epochs: [...new Set(found.flatMap(({ epochs }) => epochs))],
      runs: [...new Set(found.flatMap(({ runs }) => runs))],
    };
    this.#snapshotNames.set(snapshot, names);
    return names;
  }

  #namesIn(entry: Entry): EntryNames {
    let names = this.#entryNames.get(entry);
    if (names === undefined) {
      names = namesIn(entry);
      this.#entryNames.set(entry, names);
    }
    return names;
  }

  #rename(snapshot: Snapshot, names: SnapshotNames, renaming: Renaming): Snapshot {
    const trash = this.#forgetDead ? [] : names.trash;
    const memo = [
      snapshot.index,
      names.generations.map((old) => renaming.generations.get(old)).join(),
      trash.map(({ name }) => renaming.generations.get(name[2])).join(),
      names.epochs.map((old) => renaming.epochs.get(old)).join(),
      names.runs.map((old) => renaming.runs.get(old)).join(),
    ].join("|");
    let renamed = this.#renamed.get(memo);
    if (renamed === undefined) {
      const entries: Entry[] = [];
      for (const entry of snapshot.entries) {
        const found = this.#namesIn(entry);
        // No transaction that is explored reads stamps, and each run would leave one.
        if (found.kind === "stamp" || (this.#forgetDead && found.kind === "trash")) continue;
        entries.push(renameEntry(this.#pool, entry, found, renaming));
      }
      entries.sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0));
      renamed = this.#pool.snapshot(entries);
      this.#renamed.set(memo, renamed);
    }
    return renamed;
  }
}

function rankedEpochs(names: SnapshotNames, local: LocalState): Map<number, number> {
  const all = new Set(names.epochs);
  renameEpochs(local, (epoch) => {
    all.add(epoch);
    return epoch;
  });
  return ranks(all, EPOCH_FIRST);
}

function rankedRuns(names: SnapshotNames, local: LocalState): Map<number, number> {
  const all = new Set(names.runs).add(RUN_FIRST);
  renameRuns(local, (run) => {
    all.add(run);
    return run;
  });
  return ranks(all, RUN_FIRST);
}

function ranks(all: ReadonlySet<number>, first: number): Map<number, number> {
  const sorted = [...all].sort((a, b) => a - b);
  return new Map(sorted.map((value, at) => [value, first + at]));
}

/** What is in trash or on a storage, and nowhere else, is numbered by where it is: those that look the same are the same. */
function numberDead(
  names: SnapshotNames,
  local: LocalState,
  numbers: ReadonlyMap<number, number>,
  rename: (old: number) => number,
): void {
  const looks = new Map<number, string[]>();
  const add = ([storage, item, generation]: Readonly<Name>, what: string): void => {
    if (numbers.has(generation)) return;
    looks.set(generation, [...(looks.get(generation) ?? []), `${storage}/${item}${what}`]);
  };
  for (const { name, run } of names.trash) add(name, `t${run}`);
  for (const [name, state] of local.objects) add(name, state);
  for (const name of local.lost) add(name, "l");
  const sorted = [...looks].map(([generation, look]) => ({ generation, look: look.sort().join() }));
  sorted.sort((a, b) => (a.look < b.look ? -1 : a.look > b.look ? 1 : 0));
  for (const { generation } of sorted) rename(generation);
}

/** Sorts what has no order, by all but its generations. */
function sortParts(local: LocalState): void {
  const jobLook = ({ item, need, recorded, puts }: PutJob): string =>
    `${item},${need},${recorded},${puts.map(({ storage, state }) => `${storage}${state}`).join()}`;
  const sortBy = <T>(list: T[], look: (one: T) => string): void => {
    if (list.length > 1) list.sort((a, b) => (look(a) < look(b) ? -1 : 1));
  };
  sortBy(local.jobs, jobLook);
  sortBy(local.late, (request) => JSON.stringify(request));
  sortBy(local.fills, ({ name, landed }) => `${name[0]},${name[1]},${landed}`);
  sortBy(local.lateDeletes, (name) => `${name[0]},${name[1]}`);
}

function compareNames(a: Readonly<Name>, b: Readonly<Name>): number {
  return a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
}
