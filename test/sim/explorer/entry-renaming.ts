// Renames generations, epochs and runs in entries of the metadata, so that states that differ in nothing else are the same.
import { decodeBlockRecord, encodeBlockRecord, type Copy } from "#lib/repository/block-record.ts";
import { key, parse } from "#lib/repository/keyspace.ts";
import type { Generation } from "#lib/core/ids.ts";
import { formatObjectName, parseObjectName } from "#proto/object-names.ts";
import { generationNumber, generationOf } from "./universe.ts";
import type { Entry, SnapshotPool } from "./snapshot-pool.ts";

/** Which names an entry contains, in the order in which renaming meets them. */
export interface EntryNames {
  readonly kind: "record" | "trash" | "condemned" | "horizon" | "run" | "stamp" | "other";
  readonly generations: readonly number[];
  readonly epochs: readonly number[];
  readonly runs: readonly number[];
}

/** New names. */
export interface Renaming {
  readonly generations: ReadonlyMap<number, number>;
  readonly epochs: ReadonlyMap<number, number>;
  readonly runs: ReadonlyMap<number, number>;
}

const NOTHING: EntryNames = { kind: "other", generations: [], epochs: [], runs: [] };

/** What an entry contains. */
export function namesIn({ text, key: at, value }: Entry): EntryNames {
  switch (text.slice(0, text.indexOf("/") + 1)) {
    case "b/": {
      const { copies, condemnedEpoch } = decodeBlockRecord(value);
      const generations = inOrder(copies).map((copy) => generationNumber(copy.generation));
      const epochs = condemnedEpoch === undefined ? [] : [condemnedEpoch];
      return { ...NOTHING, kind: "record", generations, epochs };
    }
    case "t/": {
      const parsed = parseObjectName(parse.trash(at).name);
      if (parsed?.type !== "block" && parsed?.type !== "node") return NOTHING;
      const generations = [generationNumber(parsed.generation as Generation)];
      return { ...NOTHING, kind: "trash", generations, runs: [counter(value)] };
    }
    case "x/":
      return { ...NOTHING, kind: "condemned", epochs: [parse.condemned(at).epoch] };
    case "sh/":
      return { ...NOTHING, kind: "horizon", epochs: [counter(value)] };
    case "sr/":
      return { ...NOTHING, kind: "run", runs: [counter(value)] };
    case "st/":
      return { ...NOTHING, kind: "stamp" };
    default:
      return text === "e" ? { ...NOTHING, kind: "horizon", epochs: [counter(value)] } : NOTHING;
  }
}

/** The copies of a record in one order: which comes first means nothing. */
function inOrder(copies: readonly Copy[]): Copy[] {
  return copies.toSorted((a, b) =>
    a.storage === b.storage
      ? Number(a.state !== "bad") - Number(b.state !== "bad")
      : a.storage < b.storage
        ? -1
        : 1,
  );
}

function withGeneration(copy: Copy, generation: Generation): Copy {
  return { ...copy, generation };
}

function counter(value: Buffer): number {
  return Number(value.readBigUInt64LE(0));
}

function counterOf(value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

/** The entry under its new names. */
export function renameEntry(
  pool: SnapshotPool,
  entry: Entry,
  names: EntryNames,
  renaming: Renaming,
): Entry {
  const generation = (old: number): Generation =>
    generationOf(renaming.generations.get(old) ?? old);
  const epoch = (old: number): number => renaming.epochs.get(old) ?? old;
  const [run = 0] = names.runs;
  const newRun = counterOf(renaming.runs.get(run) ?? run);
  switch (names.kind) {
    case "record": {
      const record = decodeBlockRecord(entry.value);
      const copies = inOrder(record.copies).map((copy) =>
        withGeneration(copy, generation(generationNumber(copy.generation))),
      );
      const { condemnedEpoch } = record;
      const condemned = condemnedEpoch === undefined ? undefined : epoch(condemnedEpoch);
      const value = encodeBlockRecord({ ...record, copies, condemnedEpoch: condemned });
      return pool.entry(entry.text, value);
    }
    case "trash": {
      const { storage, name } = parse.trash(entry.key);
      const parsed = parseObjectName(name);
      if (parsed?.type !== "block" && parsed?.type !== "node") return entry;
      const [old = 0] = names.generations;
      const renamed = formatObjectName({ ...parsed, generation: generation(old) });
      return pool.entry(key.trash(storage, renamed).toString("latin1"), newRun);
    }
    case "condemned": {
      const { epoch: old, id } = parse.condemned(entry.key);
      return pool.entry(key.condemned(epoch(old), id).toString("latin1"), entry.value);
    }
    case "horizon":
      return pool.entry(entry.text, counterOf(epoch(names.epochs[0] ?? 0)));
    case "run":
      return pool.entry(entry.text, newRun);
    case "stamp":
    case "other":
      return entry;
  }
}
