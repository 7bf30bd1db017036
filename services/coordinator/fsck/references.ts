// I2: the reference records are exactly those that nodes, versions and holds make. Both sides are sorted by child, so they are
// merged; what should be there is gathered in passes of bounded size, each over the next smallest keys.
import type { BlockId } from "#lib/core/ids.ts";
import type { KvEntry, KvReader } from "#lib/ports/kv.ts";
import { createHasher, type Hasher } from "#lib/repository/hashing.ts";
import { key, keyAfter, parse, range, type Parent } from "#lib/repository/keyspace.ts";
import type { HeadAtRecord, VersionRecord } from "#lib/repository/records.ts";
import { ObjectFolder } from "#proto/object-names.ts";
import { distinctChildren, readPlain } from "./nodes.ts";
import { addReference, dropReference } from "./repair.ts";
import type { Check, FsckRun, Problem } from "./run.ts";
import { decodeVersion, readRecord, tryDecode } from "../readable-records.ts";

/** Keys held at once, at most twice as many: about 100 bytes each. */
const CAPACITY = 200_000;
const STEP = 512;
/** Nodes have up to 8 KiB. */
const NODE_STEP = 64;

/** Checks all references. */
export async function checkReferences(run: FsckRun, capacity = CAPACITY): Promise<void> {
  const hasher = createHasher(run.repo.keys);
  let from: Buffer | undefined = range.references().start;
  while (from !== undefined) {
    const wanted = new SmallestKeys(from, capacity);
    await gather(run, hasher, wanted);
    const { keys, bound } = wanted.finish();
    await merge(run, hasher, keys, { start: from, end: bound ?? range.references().end });
    from = bound;
  }
}

/** The smallest keys from a first one on, sorted, at most `capacity`. Keys are latin1 text: it sorts as the bytes do. */
class SmallestKeys {
  readonly #from: string;
  readonly #capacity: number;
  #keys: string[] = [];
  /** Keys above are left for the next pass. */
  #last: string | undefined;

  constructor(from: Buffer, capacity: number) {
    this.#from = from.toString("latin1");
    this.#capacity = capacity;
  }

  add(at: Buffer): void {
    const text = at.toString("latin1");
    if (text < this.#from || (this.#last !== undefined && text > this.#last)) return;
    this.#keys.push(text);
    if (this.#keys.length >= 2 * this.#capacity) this.#shrink();
  }

  #shrink(): void {
    this.#keys.sort();
    if (this.#keys.length <= this.#capacity) return;
    this.#keys.length = this.#capacity;
    this.#last = this.#keys.at(-1);
  }

  /** All keys of this pass, and where the next one starts. */
  finish(): { readonly keys: readonly string[]; readonly bound: Buffer | undefined } {
    this.#shrink();
    const last = this.#last;
    return {
      keys: this.#keys,
      bound: last === undefined ? undefined : keyAfter(Buffer.from(last, "latin1")),
    };
  }
}

/** Everything that makes references. */
async function gather(run: FsckRun, hasher: Hasher, wanted: SmallestKeys): Promise<void> {
  const each =
    (add: (entry: KvEntry) => void) =>
    (_: KvReader, entries: readonly KvEntry[]): Promise<void> => {
      for (const entry of entries) add(entry);
      return Promise.resolve();
    };
  const phase = "references";
  const addNode = ({ key: at, value }: KvEntry): void => {
    const id = parse.node(at);
    const node = readPlain(hasher, id, value);
    if (node === undefined) return;
    for (const child of distinctChildren(node)) {
      wanted.add(key.reference(child, { kind: "node", id }));
    }
  };
  const addVersion = ({ value }: KvEntry): void => {
    const version = decodeVersion(value);
    if (version === undefined || !refersToRoot(version)) return;
    wanted.add(key.reference(version.root, { kind: "version", uid: version.uid }));
  };
  const addHold = ({ key: at, value }: KvEntry): void =>
    wanted.add(
      key.reference(value.toString("hex") as BlockId, { kind: "hold", ...parse.hold(at) }),
    );
  await run.pages(phase, range.nodes(), NODE_STEP, each(addNode));
  await run.pages(phase, range.versions(), STEP, each(addVersion));
  await run.pages(phase, range.allHolds(), STEP, each(addHold));
}

function refersToRoot(version: VersionRecord): version is VersionRecord & { root: BlockId } {
  return (version.state === "valid" || version.state === "invalid") && version.root !== undefined;
}

async function merge(
  run: FsckRun,
  hasher: Hasher,
  wanted: readonly string[],
  within: { readonly start: Buffer; readonly end: Buffer },
): Promise<void> {
  let next = 0;
  const isBefore = (text: string | undefined): boolean => {
    const first = wanted[next];
    return first !== undefined && (text === undefined || first < text);
  };
  const missingUpTo = async (text: string | undefined): Promise<void> => {
    for (; isBefore(text); next += 1) {
      await run.confirm(checkReference(hasher, Buffer.from(wanted[next] as string, "latin1")));
    }
  };
  await run.pages(
    "references",
    within,
    STEP,
    (_, entries) => Promise.resolve(entries.map((entry) => entry.key)),
    async (keys) => {
      run.counts.references += keys.length;
      for (const at of keys) {
        const text = at.toString("latin1");
        await missingUpTo(text);
        if (wanted[next] === text) next += 1;
        else await run.confirm(checkReference(hasher, at));
      }
    },
  );
  await missingUpTo(undefined);
}

/** Whether one reference is there, and whether it should be. */
function checkReference(hasher: Hasher, at: Buffer): Check {
  const { child, parent } = parse.reference(at);
  const where = `reference of ${nameOf(parent)} on ${child}`;
  return async (reader): Promise<Problem[]> => {
    const isThere = (await reader.get(at)) !== undefined;
    const made = await isMade(reader, hasher, child, parent);
    if (made === undefined || made === isThere) return [];
    if (made) {
      return [
        {
          invariant: "references",
          what: "it is missing: what it holds could be collected",
          where,
          repair: (tx) => addReference(tx, child, parent),
        },
      ];
    }
    const isSafe = await isGone(reader, hasher, parent);
    return [
      {
        invariant: "references",
        what: isSafe
          ? "nothing makes it: it keeps what could be collected"
          : "nothing makes it, but its parent was not removed either: `ashlar rebuild --from STORAGE` finds it",
        where,
        ...(isSafe ? { repair: (tx) => dropReference(tx, child, parent) } : {}),
      },
    ];
  };
}

function nameOf(parent: Parent): string {
  switch (parent.kind) {
    case "node":
      return `node ${parent.id}`;
    case "version":
      return `version ${parent.uid}`;
    case "hold":
      return `session ${parent.session} (${parent.position.level}/${parent.position.index})`;
  }
}

/** Whether the parent refers to the child; undefined where it cannot be told. */
async function isMade(
  reader: KvReader,
  hasher: Hasher,
  child: BlockId,
  parent: Parent,
): Promise<boolean | undefined> {
  switch (parent.kind) {
    case "node": {
      const plain = await reader.get(key.node(parent.id));
      if (plain === undefined) return false;
      return readPlain(hasher, parent.id, plain)?.children.includes(child);
    }
    case "version": {
      const value = await reader.get(key.version(parent.uid));
      if (value === undefined) return false;
      const version = decodeVersion(value);
      return version === undefined ? undefined : refersToRoot(version) && version.root === child;
    }
    case "hold": {
      const held = await reader.get(key.hold(parent.session, parent.position));
      return held?.toString("hex") === child;
    }
  }
}

/** Whether the parent was removed, and is not only missing from the metadata. */
async function isGone(reader: KvReader, hasher: Hasher, parent: Parent): Promise<boolean> {
  switch (parent.kind) {
    case "node":
      return (
        (await reader.get(key.node(parent.id))) !== undefined ||
        (await readRecord(reader, parent.id)) === undefined
      );
    case "version":
      return (
        (await reader.get(key.version(parent.uid))) !== undefined ||
        !(await hasHead(reader, `${ObjectFolder.heads}${hasher.headName(parent.uid)}.`))
      );
    case "hold":
      return true;
  }
}

/** Whether any storage is known to show a head of the version. */
async function hasHead(reader: KvReader, prefix: string): Promise<boolean> {
  for (const entry of await reader.range({ ...range.storages(), limit: 1000 })) {
    const storage = parse.storage(entry.key);
    const start = key.headAt(storage, prefix);
    const end = key.headAt(storage, `${prefix}\u007f`);
    const heads = await reader.range({ start, end, limit: 1000 });
    if (heads.some(({ value }) => tryDecode<HeadAtRecord>(value)?.state !== "trash")) return true;
  }
  return false;
}
