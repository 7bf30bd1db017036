// Takes versions into the metadata: first the tree, then, in one transaction, the version with everything that hangs on it:
// its reference on the root, its place in the index, what is owed to the storages of its policy, and its heads as they are.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import type { KvTransaction } from "#lib/ports/kv.ts";
import { currentAt, type BlockRecord } from "#lib/repository/block-record.ts";
import { key, range } from "#lib/repository/keyspace.ts";
import { newGeneration, queueUnreferenced, saveBlock, withCopy } from "#lib/repository/ledger.ts";
import {
  decodeRecord,
  encodeRecord,
  type SessionRecord,
  type StorageRecord,
} from "#lib/repository/records.ts";
import { decodeVersion, readUsable, readUsableVersion } from "../readable-records.ts";
import { keepUnreadable, saveHeads } from "./head-records.ts";
import { hasHeads, headGroups, type HeadGroup } from "./heads.ts";
import type { RebuildRun } from "./run.ts";
import { importTree } from "./tree.ts";
import { mergeVersion, type RebuiltVersion } from "./rebuilt-version.ts";

/** A version that was taken in, or was there: no more than is wanted later, for there may be many. */
export interface ImportedVersion {
  readonly uid: VersionUid;
  readonly adopted: boolean;
  readonly removed: boolean;
  readonly createdMs: number;
  readonly blockBytes: number;
}

/** Versions looked at per read of the metadata. */
const STEP = 256;
const EMPTY = Buffer.alloc(0);

/** Takes in every version that heads tell of, then looks at those that the metadata know without. */
export async function importVersions(
  run: RebuildRun,
  each: (imported: ImportedVersion, version: RebuiltVersion) => void,
): Promise<void> {
  let done = 0;
  const count = (saved: SavedVersion | undefined): void => {
    if (saved !== undefined) each(summaryOf(saved), saved.version);
    run.progress("versions", (done += 1));
  };
  for await (const group of headGroups(run)) count(await importGroup(run, group));
  await run.eachPage("comparing versions", range.versions(), STEP, async (entries) => {
    for (const { value } of entries) {
      const version = decodeVersion(value);
      if (version?.state !== "valid" && version?.state !== "invalid") continue;
      const { uid } = version;
      if (!(await hasHeads(run, uid))) count(await importGroup(run, withoutHeads(uid)));
    }
  });
}

interface SavedVersion {
  readonly version: RebuiltVersion;
  readonly adopted: boolean;
}

function summaryOf({ version, adopted }: SavedVersion): ImportedVersion {
  const { uid, createdMs, blockBytes, state } = version;
  return { uid, adopted, removed: state === "removed", createdMs, blockBytes };
}

const withoutHeads = (uid: VersionUid): HeadGroup => ({
  uid,
  heads: [],
  best: undefined,
  backed: [],
  surpass: 0,
});

async function importGroup(run: RebuildRun, group: HeadGroup): Promise<SavedVersion | undefined> {
  const { uid } = group;
  if (uid === undefined) {
    await keepUnreadable(run, group);
    return undefined;
  }
  const known = await run.kv.read((reader) => readUsableVersion(reader, uid));
  const version = mergeVersion(known, group);
  if (version === undefined) return undefined;
  await importTreeOf(run, version, group);
  return run.transact((tx) => saveVersion(run, tx, uid, group));
}

async function importTreeOf(
  run: RebuildRun,
  version: RebuiltVersion,
  group: HeadGroup,
): Promise<void> {
  const { root, state, policy } = version;
  if (root === undefined || (state !== "valid" && state !== "invalid")) return;
  const record = await run.kv.read((reader) => readUsable(reader, root));
  const held = (record?.copies ?? [])
    .filter((copy) => copy.state === "placed" || copy.state === "bad")
    .map((copy) => copy.storage)
    .filter((storage) => run.given.includes(storage));
  const backed = [...new Set([...group.backed, ...held])];
  await importTree(run, { ...version, root, backed, wanted: policy.storages });
}

/** The one transaction of a version. */
async function saveVersion(
  run: RebuildRun,
  tx: KvTransaction,
  uid: VersionUid,
  group: HeadGroup,
): Promise<SavedVersion | undefined> {
  const known = await readUsableVersion(tx, uid);
  const merged = mergeVersion(known, group);
  if (merged === undefined) return undefined;
  let version = merged;
  if (merged.state === "valid" || merged.state === "invalid") {
    const record = await saveRoot(run, tx, merged);
    version = { ...merged, state: record.damaged ? "invalid" : "valid" };
    tx.set(key.volume(version.volume, version.createdMs, uid), EMPTY);
  }
  if (known !== undefined) await leaveBehind(run, tx, known, version);
  const bytes = encodeRecord(version);
  if (known === undefined || !encodeRecord(known).equals(bytes)) tx.set(key.version(uid), bytes);
  for (const storage of version.policy.storages) await noteStorage(run, tx, storage);
  await saveHeads(run, tx, version, group);
  const isThere = known !== undefined && known.state !== "incomplete" && known.state !== "removed";
  return { version, adopted: !isThere && version.state !== "removed" };
}

/** References the root, and owes it to the storages of the policy that have no copy, nor one on its way. */
async function saveRoot(
  run: RebuildRun,
  tx: KvTransaction,
  { root, uid, policy }: RebuiltVersion,
): Promise<BlockRecord> {
  const before = root === undefined ? undefined : await readUsable(tx, root);
  if (root === undefined || before === undefined) {
    throw new AshlarError(
      ErrorCode.TryAgain,
      `the root of ${uid} was collected while it was taken in`,
      {
        remedy: "stop the other processes of this repository, and run the rebuild again",
      },
    );
  }
  let after: BlockRecord =
    before.condemnedEpoch === undefined ? before : { ...before, condemnedEpoch: undefined };
  for (const storage of policy.storages) {
    if (currentAt(after, storage) !== undefined || (await isRetired(tx, storage))) continue;
    const generation = newGeneration(run.request.random);
    after = withCopy(after, { state: "owed", storage, generation });
  }
  if (after !== before) await saveBlock(tx, root, before, after);
  tx.set(key.reference(root, { kind: "version", uid }), EMPTY);
  return after;
}

async function isRetired(tx: KvTransaction, storage: StorageId): Promise<boolean> {
  const value = await tx.get(key.storage(storage));
  return value !== undefined && decodeRecord<StorageRecord>(value).state === "retired";
}

/** What the version was before and is not any more: its root, its index entry, its session. */
async function leaveBehind(
  run: RebuildRun,
  tx: KvTransaction,
  known: RebuiltVersion,
  version: RebuiltVersion,
): Promise<void> {
  const { uid, root } = known;
  const isGone = version.state === "removed" || version.root !== root;
  if (root !== undefined && isGone && known.state !== "removed") {
    tx.clear(key.reference(root, { kind: "version", uid }));
    queueUnreferenced(tx, root);
  }
  if (version.state === "removed") tx.clear(key.volume(known.volume, known.createdMs, uid));
  if (known.state !== "incomplete" || version.state === "incomplete") return;
  const { session } = known;
  const value = session === undefined ? undefined : await tx.get(key.session(session));
  if (session === undefined || value === undefined) return;
  // The backup came to its end, where the metadata did not see it: nothing is to be resumed.
  const record = decodeRecord<SessionRecord>(value);
  const endedMs = run.request.clock.now();
  tx.set(key.session(session), encodeRecord({ ...record, state: "ended", endedMs }));
}

/** A storage that the policy names and that was never seen here is known from now on, and counts for nothing. */
async function noteStorage(run: RebuildRun, tx: KvTransaction, storage: StorageId): Promise<void> {
  if (run.given.includes(storage) || (await tx.get(key.storage(storage))) !== undefined) return;
  const addedMs = run.request.clock.now();
  const record: StorageRecord = { name: storage, site: "", state: "disabled", addedMs };
  tx.set(key.storage(storage), encodeRecord(record));
}
