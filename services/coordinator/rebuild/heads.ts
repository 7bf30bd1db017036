// Heads tell a rebuild which versions there are. Of one version's heads the highest revision counts that can be read at any
// of the storages; where two clones of the metadata raised the same revision differently, the one that keeps more wins, and
// a higher revision is owed everywhere.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import { FormatError, FormatFault } from "#proto/format-error.ts";
import { decodeHead, type Head } from "#proto/head.ts";
import { findUid, headRange, headRangeOf, parseHead, type ListedHead } from "./keyspace.ts";
import type { RebuildRun } from "./run.ts";

/** One head as it was read. */
export interface ReadHead extends ListedHead {
  /** Undefined where it could not be read, or, an older one, need not be. */
  readonly head: Head | undefined;
}

/** All heads of one version at the given storages. */
export interface HeadGroup {
  /** Undefined when none could be read, and the metadata do not know the version. */
  readonly uid: VersionUid | undefined;
  readonly heads: readonly ReadHead[];
  /** The one that counts. */
  readonly best: Head | undefined;
  /** The storages that show a head of it which is not a last revision, so far as that can be told. */
  readonly backed: readonly StorageId[];
  /** The revision that a new head must exceed, where heads of the best one's revision differ or a higher one is unreadable. */
  readonly surpass: number;
}

/** Heads of one version that are looked at: superseded ones go to trash at once, so there are few. */
const GROUP_MAX = 1000;
const STEP = 256;

/** The versions that heads tell of, one by one. */
export async function* headGroups(run: RebuildRun): AsyncGenerator<HeadGroup> {
  let { start } = headRange;
  for (;;) {
    run.request.signal?.throwIfAborted();
    const from = start;
    const entries = await run.kv.read((reader) =>
      reader.range({ start: from, end: headRange.end, limit: STEP }),
    );
    const hashes = new Set(entries.map(({ key }) => parseHead(key).hash));
    for (const hash of hashes) yield await readGroup(run, hash);
    const last = [...hashes].at(-1);
    if (last === undefined || entries.length < STEP) return;
    // The last one's heads may go on beyond this page; its group was read whole.
    start = headRangeOf(last).end;
  }
}

/** Whether any given storage shows a head of the version. */
export async function hasHeads(run: RebuildRun, uid: VersionUid): Promise<boolean> {
  const within = headRangeOf(run.hasher.headName(uid));
  const heads = await run.kv.read((reader) => reader.range({ ...within, limit: 1 }));
  return heads.length > 0;
}

async function readGroup(run: RebuildRun, hash: string): Promise<HeadGroup> {
  const { listed, known } = await run.kv.read(async (reader) => ({
    listed: await reader.range({ ...headRangeOf(hash), limit: GROUP_MAX }),
    known: await findUid(reader, hash),
  }));
  const heads = await readHeads(
    run,
    listed.map(({ key }) => parseHead(key)),
  );
  const readable = heads.flatMap(({ head }) => (head === undefined ? [] : [head]));
  const best = chooseBest(readable);
  const unread = heads.filter(
    ({ head, revision }) => head === undefined && revision > (best?.revision ?? 0),
  );
  const rivals = readable.filter(({ revision }) => revision === best?.revision);
  const isDisputed = best !== undefined && rivals.some((rival) => !isSameHead(rival, best));
  return {
    uid: (best?.uid as VersionUid | undefined) ?? known,
    heads,
    best,
    backed: backedBy(heads),
    surpass: Math.max(isDisputed ? best.revision : 0, ...unread.map(({ revision }) => revision)),
  };
}

/** Reads the highest readable revision at each storage; older ones are superseded there. */
async function readHeads(run: RebuildRun, listed: readonly ListedHead[]): Promise<ReadHead[]> {
  const found = new Map<StorageId, number>();
  const out: ReadHead[] = [];
  for (const each of listed.toReversed()) {
    const read = found.get(each.storage);
    const isOlder = read !== undefined && each.revision < read;
    const head = isOlder ? undefined : await readHead(run, each);
    if (head !== undefined) found.set(each.storage, head.revision);
    out.push({ ...each, head });
  }
  return out;
}

async function readHead(run: RebuildRun, listed: ListedHead): Promise<Head | undefined> {
  const { storage, name, hash, revision } = listed;
  const { signal } = run.request;
  let reason: string;
  try {
    const options = signal === undefined ? {} : { signal };
    const sealed = await run.store(storage).get(name, options);
    const head = decodeHead(run.sealer.open({ kind: "head", id: hash, sealed }));
    if (run.hasher.headName(head.uid) === hash && head.revision === revision) return head;
    reason = "it is the head of another version or revision";
  } catch (error) {
    reason = whyUnreadable(error);
  }
  run.problems.push(`${name} at storage ${run.nameOf(storage)} cannot be read: ${reason}`);
  return undefined;
}

/** Why a head is damaged; what says nothing about it is thrown again. */
function whyUnreadable(error: unknown): string {
  if (error instanceof FormatError) {
    if (error.fault !== FormatFault.Newer) return `it ${error.message}`;
    throw new AshlarError(ErrorCode.Refused, `a head ${error.message}`, {
      cause: error,
      remedy: "Use the newer Ashlar.",
    });
  }
  const isDamage =
    error instanceof AshlarError &&
    (error.code === ErrorCode.Damaged || error.code === ErrorCode.NotFound);
  if (isDamage) return error.message;
  throw error;
}

/** The highest revision; among equals one that is not a removal, then by its content: the choice is the same every time. */
function chooseBest(heads: readonly Head[]): Head | undefined {
  return heads.toSorted(
    (a, b) =>
      b.revision - a.revision ||
      Number(a.removed) - Number(b.removed) ||
      Number(b.protected) - Number(a.protected) ||
      (contentOf(a) < contentOf(b) ? -1 : 1),
  )[0];
}

/** Whether two heads of one revision say the same. */
export function isSameHead(a: Head, b: Head): boolean {
  return contentOf(a) === contentOf(b);
}

/** What users change about a version, and what it is. */
function contentOf(head: Head): string {
  const labels = Object.entries(head.labels).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([head.removed, head.protected, head.root, labels]);
}

/** A storage got the head only after the whole tree; only a last revision says nothing about it. */
function backedBy(heads: readonly ReadHead[]): StorageId[] {
  const storages = new Set<StorageId>();
  for (const { storage, head } of heads) if (head?.removed !== true) storages.add(storage);
  return [...storages];
}
