// Which copies a scrub looks at, in pages: those verified longest ago, those found bad, or those of some versions.
import type { BlockId, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { KvReader } from "#lib/ports/kv.ts";
import type { BlockRecord } from "#lib/repository/block-record.ts";
import { key, parse, range } from "#lib/repository/keyspace.ts";
import { readBlocks } from "#lib/repository/ledger.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { listOwed } from "#lib/repository/transactions/fill.ts";
import { listVerify } from "#lib/repository/transactions/verify.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { decodeNode } from "#proto/node.ts";
import type { ObjectCopy } from "./object-reader.ts";

/** A copy to look at. */
export interface ScrubCopy extends ObjectCopy {
  readonly state: "placed" | "bad";
  /** Sealed bytes as the record says; a hint. */
  readonly storedBytes: number;
  /** 0 for a bad copy. */
  readonly verifiedMs: number;
}

const PAGE = 256;

/**
 * The time that a cycle marks copies with: later than any mark at the storages now. What has it, or a later one, was verified
 * in this cycle, so nothing is looked at twice, whatever the clock does.
 */
export async function cycleTime(repo: Repository, storages: readonly StorageId[]): Promise<number> {
  let latest = repo.clock.now();
  for (const storage of storages) {
    const [last] = await repo.kv.read((reader) =>
      reader.range({ ...range.verify(storage), limit: 1, reverse: true }),
    );
    if (last !== undefined) latest = Math.max(latest, parse.verify(last.key).lastMs + 1);
  }
  return latest;
}

/** A storage's placed copies that were last verified before `cycleMs`, oldest first. */
export async function* queuedCopies(
  repo: Repository,
  storage: StorageId,
  cycleMs: number,
): AsyncGenerator<ScrubCopy[]> {
  let from: Buffer | undefined;
  do {
    const page = await listVerify(repo.kv, storage, from, PAGE);
    const ids = page.copies.filter(({ lastMs }) => lastMs < cycleMs).map(({ id }) => id);
    if (ids.length > 0) {
      yield (await copiesOf(repo, ids, [storage])).filter(
        (copy) => copy.state === "placed" && copy.verifiedMs < cycleMs,
      );
    }
    from = ids.length < page.copies.length ? undefined : page.next;
  } while (from !== undefined);
}

/** A storage's bad copies: their storage is owed a new one, so the owed queue leads to them. */
export async function* badCopies(
  repo: Repository,
  storage: StorageId,
): AsyncGenerator<ScrubCopy[]> {
  let from: Buffer | undefined;
  do {
    const page = await listOwed(repo.kv, storage, from, PAGE);
    const copies = await copiesOf(repo, page.ids, [storage]);
    const bad = copies.filter((copy) => copy.state === "bad");
    if (bad.length > 0) yield bad;
    from = page.next;
  } while (from !== undefined);
}

/** The copies, at some storages, of all that some versions name; a node that several share is walked once. */
export async function* versionCopies(
  repo: Repository,
  uids: readonly VersionUid[],
  storages: readonly StorageId[],
): AsyncGenerator<ScrubCopy[]> {
  const seen = new Set<BlockId>();
  for (const uid of uids) {
    const version = await repo.kv.read((reader) => readVersion(reader, uid));
    // Removed meanwhile.
    if (version === undefined || version.state === "removed") continue;
    // One path of the tree, with the siblings to its right, is all that waits here.
    const waiting: BlockId[] = version.root === undefined ? [] : [version.root];
    for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
      if (seen.has(id)) continue;
      seen.add(id);
      const { level, children } = await repo.kv.read((reader) => readNode(reader, id));
      if (level > 0) waiting.push(...children.toReversed());
      yield copiesOf(repo, level === 0 ? [id, ...children] : [id], storages);
    }
  }
}

async function readNode(
  reader: KvReader,
  id: BlockId,
): Promise<{ readonly level: number; readonly children: readonly BlockId[] }> {
  const plain = await reader.get(key.node(id));
  // Removed meanwhile: then so is what it named.
  if (plain === undefined) return { level: 0, children: [] };
  const { level, children } = decodeNode<BlockId>(plain);
  return { level, children: [...new Set(children.filter((child) => child !== undefined))] };
}

async function copiesOf(
  repo: Repository,
  ids: readonly BlockId[],
  storages: readonly StorageId[],
): Promise<ScrubCopy[]> {
  const records = await repo.kv.read((reader) => readBlocks(reader, ids));
  return ids.flatMap((id, index) => {
    const record = records[index];
    return record === undefined ? [] : copiesOfRecord(id, record, storages);
  });
}

function copiesOfRecord(
  id: BlockId,
  { kind, plainBytes, storedBytes, copies }: BlockRecord,
  storages: readonly StorageId[],
): ScrubCopy[] {
  const out: ScrubCopy[] = [];
  for (const copy of copies) {
    if (!storages.includes(copy.storage)) continue;
    if (copy.state !== "placed" && copy.state !== "bad") continue;
    const { state, storage, generation } = copy;
    const verifiedMs = copy.state === "placed" ? copy.verifiedMs : 0;
    out.push({ id, kind, plainBytes, storedBytes, storage, generation, state, verifiedMs });
  }
  return out;
}
