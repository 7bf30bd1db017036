// Checks of versions: the root, its quorum and mark, the index by volume, and the heads that storages have or are owed.
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import type { KvReader, KvTransaction } from "#lib/ports/kv.ts";
import {
  currentAt,
  hasGoodCopy,
  placedAt,
  type BlockRecord,
} from "#lib/repository/block-record.ts";
import { createHasher, type Hasher } from "#lib/repository/hashing.ts";
import { key, parse, range } from "#lib/repository/keyspace.ts";
import { newGeneration, saveBlock, withCopy, writeCounter } from "#lib/repository/ledger.ts";
import type { HeadAtRecord, SessionRecord, StorageRecord } from "#lib/repository/records.ts";
import { ObjectFolder, parseObjectName } from "#proto/object-names.ts";
import { addEntry, dropEntry, recheckAndClimb } from "./repair.ts";
import { wholeRange, type Check, type FsckRun, type Problem } from "./run.ts";
import { isUnreadableUid, type RebuiltVersion } from "../rebuild/rebuilt-version.ts";
import { decodeVersion, readRecord, tryDecode } from "../readable-records.ts";

const STEP = 128;

/** Checks versions, their index and their heads. */
export async function checkVersions(run: FsckRun): Promise<void> {
  const hasher = createHasher(run.repo.keys);
  await run.checkAll("versions", range.versions(), STEP, (entry) => {
    run.counts.versions += 1;
    const version = decodeVersion(entry.value);
    if (version?.state === "invalid") run.counts.invalidVersions += 1;
    return checkVersion(run, hasher, entry.key);
  });
  await run.checkAll("versions", range.volumes(), STEP, (entry) => checkVolume(entry.key));
  const owed = wholeRange<StorageId>(range.owedHeads);
  await run.checkAll("heads", owed, STEP, (entry) => checkOwedHead(entry.key));
  const known = wholeRange<StorageId>(range.headsAt);
  await run.checkAll("heads", known, STEP, (entry) => checkHeadAt(hasher, entry.key));
}

function checkVersion(run: FsckRun, hasher: Hasher, at: Buffer): Check {
  return async (reader) => {
    const value = await reader.get(at);
    if (value === undefined) return [];
    const version = decodeVersion(value);
    const where = `version ${version?.uid ?? at.toString("utf8").slice("vu/".length)}`;
    if (version === undefined) {
      return [{ invariant: "records", what: "its record cannot be read", where }];
    }
    switch (version.state) {
      case "incomplete":
        return incompleteProblems(reader, version, where);
      case "removed":
        return headProblems(reader, hasher, version, where);
      case "valid":
      case "invalid":
        return [
          ...(await rootProblems(run, reader, version, where)),
          ...(await indexProblems(reader, version, where)),
          ...(await headProblems(reader, hasher, version, where)),
        ];
    }
  };
}

/** An unfinished version is some session's. */
async function incompleteProblems(
  reader: KvReader,
  version: RebuiltVersion,
  where: string,
): Promise<Problem[]> {
  const { session, uid } = version;
  const value = session === undefined ? undefined : await reader.get(key.session(session));
  if (value !== undefined && tryDecode<SessionRecord>(value)?.uid === uid) return [];
  return [
    {
      invariant: "versions",
      what: "it is unfinished, and no session makes it",
      where,
      repair: (tx) => dropEntry(tx, key.version(uid)),
    },
  ];
}

async function rootProblems(
  run: FsckRun,
  reader: KvReader,
  version: RebuiltVersion,
  where: string,
): Promise<Problem[]> {
  const { root } = version;
  if (root === undefined) return [{ invariant: "versions", what: "it has no root", where }];
  const record = await readRecord(reader, root);
  if (record === "unreadable") return [];
  if (record === undefined) {
    return [{ invariant: "closure", what: `its root ${root} has no record`, where }];
  }
  const problems: Problem[] = [];
  const isInvalid = version.state === "invalid";
  if (record.damaged !== isInvalid && (await reader.get(key.recheck(root))) === undefined) {
    problems.push({
      invariant: "marks",
      what: isInvalid
        ? "it is invalid, but its root is good"
        : "it is valid, but its root is marked",
      where,
      repair: (tx) => recheckAndClimb(tx, root),
    });
  }
  const plain = await reader.get(key.node(root));
  const isLost = record.damaged && !hasGoodCopy(record);
  if (plain === undefined ? !isLost : plain[2] !== version.levels - 1) {
    const what = plain === undefined ? "has no content" : "is of a wrong level";
    problems.push({ invariant: "nodes", what: `its root ${root} ${what}`, where });
  }
  return [...problems, ...(await placeProblems(run, reader, version, record, where))];
}

/** The root is placed at a quorum, and at every other storage of the policy it is owed. */
async function placeProblems(
  run: FsckRun,
  reader: KvReader,
  version: RebuiltVersion,
  root: BlockRecord,
  where: string,
): Promise<Problem[]> {
  const { policy } = version;
  const problems: Problem[] = [];
  let counted = 0;
  for (const storage of policy.storages) {
    const state = await storageState(reader, storage);
    const isBad = root.copies.some((copy) => copy.storage === storage && copy.state === "bad");
    // What was lost or found bad since, with its storage or without, excuses.
    if (placedAt(root, storage) !== undefined || isBad || isLost(state)) counted += 1;
    if (state !== "in-use" || currentAt(root, storage) !== undefined) continue;
    problems.push({
      invariant: "queues",
      what: `storage ${storage} is to have it, but its root is not owed there`,
      where,
      repair: (tx) => oweRoot(run, tx, version, storage),
    });
  }
  const quorum = Math.min(policy.quorum, policy.storages.length);
  if (version.state === "valid" && version.rebuilt !== true && counted < quorum) {
    const what = `it is valid, but its root is placed at ${counted} of ${quorum} storages`;
    problems.push({ invariant: "closure", what, where });
  }
  return problems;
}

const isLost = (state: StorageRecord["state"] | undefined): boolean =>
  state === undefined || state === "retired";

async function storageState(
  reader: KvReader,
  storage: StorageId,
): Promise<StorageRecord["state"] | undefined> {
  const value = await reader.get(key.storage(storage));
  return value === undefined ? undefined : tryDecode<StorageRecord>(value)?.state;
}

async function oweRoot(
  run: FsckRun,
  tx: KvTransaction,
  { root }: RebuiltVersion,
  storage: StorageId,
): Promise<void> {
  if (root === undefined) return;
  const record = await readRecord(tx, root);
  if (typeof record !== "object" || currentAt(record, storage) !== undefined) return;
  const generation = newGeneration(run.repo.random);
  await saveBlock(tx, root, record, withCopy(record, { state: "owed", storage, generation }));
}

async function indexProblems(
  reader: KvReader,
  version: RebuiltVersion,
  where: string,
): Promise<Problem[]> {
  const at = key.volume(version.volume, version.createdMs, version.uid);
  if ((await reader.get(at)) !== undefined) return [];
  return [
    {
      invariant: "versions",
      what: `it is missing in the index of volume ${version.volume}`,
      where,
      repair: (tx) => addEntry(tx, at),
    },
  ];
}

/** Each storage of the policy has the current revision of the head, or is owed it. */
async function headProblems(
  reader: KvReader,
  hasher: Hasher,
  version: RebuiltVersion,
  where: string,
): Promise<Problem[]> {
  const { uid, revision } = version;
  const prefix = `${ObjectFolder.heads}${hasher.headName(uid)}.${revision}.`;
  const problems: Problem[] = [];
  for (const storage of version.policy.storages) {
    if (isLost(await storageState(reader, storage))) continue;
    if ((await reader.get(key.owedHead(storage, uid))) !== undefined) continue;
    const start = key.headAt(storage, prefix);
    const end = key.headAt(storage, `${prefix}\u007f`);
    const heads = await reader.range({ start, end, limit: 1000 });
    const states = heads.map((entry) => tryDecode<HeadAtRecord>(entry.value)?.state);
    // A last revision goes to trash once it is everywhere.
    if (states.includes("confirmed")) continue;
    if (version.state === "removed" && states.includes("trash")) continue;
    problems.push({
      invariant: "heads",
      what: `storage ${storage} neither has revision ${revision} of its head nor is owed it`,
      where,
      repair: (tx) => {
        writeCounter(tx, key.owedHead(storage, uid), revision);
        return Promise.resolve();
      },
    });
  }
  return problems;
}

async function readVersionOf(
  reader: KvReader,
  uid: VersionUid,
): Promise<RebuiltVersion | undefined | "unreadable"> {
  const value = await reader.get(key.version(uid));
  return value === undefined ? undefined : (decodeVersion(value) ?? "unreadable");
}

/** An entry of the index stands for a version that is there. */
function checkVolume(at: Buffer): Check {
  const { volume, createdMs, uid } = parse.volume(at);
  return async (reader) => {
    if ((await reader.get(at)) === undefined) return [];
    const version = await readVersionOf(reader, uid);
    if (version === "unreadable") return [];
    const fits =
      version !== undefined &&
      (version.state === "valid" || version.state === "invalid") &&
      version.volume === volume &&
      version.createdMs === createdMs;
    if (fits) return [];
    return [
      {
        invariant: "versions",
        what: `the index of volume ${volume} has an entry for it, which fits no version`,
        where: `version ${uid}`,
        repair: (tx) => dropEntry(tx, at),
      },
    ];
  };
}

/** A head is owed for a version that there is, or was. */
function checkOwedHead(at: Buffer): Check {
  const { storage, uid } = parse.owedHead(at);
  return async (reader) => {
    if ((await reader.get(at)) === undefined) return [];
    const version = await readVersionOf(reader, uid);
    if (version === "unreadable" || version?.policy.storages.includes(storage) === true) return [];
    return [
      {
        invariant: "heads",
        what: `storage ${storage} is owed a head that is not meant for it`,
        where: `version ${uid}`,
        repair: (tx) => dropEntry(tx, at),
      },
    ];
  };
}

/** A head that a storage is known to have is one of a version that there is, or was. */
function checkHeadAt(hasher: Hasher, at: Buffer): Check {
  const { storage, name } = parse.headAt(at);
  return async (reader): Promise<Problem[]> => {
    const value = await reader.get(at);
    if (value === undefined) return [];
    const where = `${name} at storage ${storage}`;
    const record = tryDecode<HeadAtRecord>(value);
    if (record === undefined) {
      return [{ invariant: "records", what: "its record cannot be read", where }];
    }
    const { uid, state } = record;
    if (state === "trash") return [];
    if (isUnreadableUid(uid)) {
      const what = "which version it is of cannot be read: rebuild from the other storages too";
      return [{ invariant: "heads", what, where }];
    }
    const parsed = parseObjectName(name);
    if (parsed?.type !== "head" || parsed.hash !== hasher.headName(uid)) {
      return [{ invariant: "heads", what: `it is not named as a head of version ${uid}`, where }];
    }
    if ((await readVersionOf(reader, uid)) !== undefined) return [];
    return [
      {
        invariant: "heads",
        what: `there is no version ${uid}: \`ashlar rebuild --from STORAGE\` brings it back`,
        where,
      },
    ];
  };
}
