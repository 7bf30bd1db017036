// Versions that leave a storage, storages that are emptied, and storages that are there no more.
import { readFile, rename, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { isMap, isScalar, isSeq, parseDocument, type Document } from "yaml";
import { AshlarError, ErrorCode, fromSystemError, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import type { KvReader } from "#lib/ports/kv.ts";
import { parseConfig } from "#lib/process/config-file.ts";
import { countKeys } from "#lib/repository/count-keys.ts";
import { headPrefix } from "#lib/repository/head-names.ts";
import { range } from "#lib/repository/keyspace.ts";
import type { VersionState } from "#lib/repository/records.ts";
import { narrowPolicy } from "#lib/repository/transactions/policy.ts";
import { retireStorage } from "#lib/repository/transactions/retire.ts";
import { listSessions } from "#lib/repository/transactions/session.ts";
import { listStorages, setStorageState } from "#lib/repository/transactions/storage.ts";
import { listVersions, readVersion } from "#lib/repository/transactions/version.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { queueAllLeaving } from "#services/coordinator/leaving.ts";
import { listPlacedVersions } from "#services/coordinator/listing.ts";
import { forgetRetired } from "#services/coordinator/retired-storages.ts";
import type { Engine } from "./compose.ts";
import { prepareChange, putHeadsNow } from "./owed-heads.ts";
import { startCounter } from "./progress-bar.ts";
import { confirm } from "./prompt.ts";
import { addToPolicies, knownStorage } from "./storage-state.ts";
import { measureWaiting } from "#lib/repository/transactions/locked-trash.ts";
import { waitingLines } from "./waiting-trash.ts";

/** A version that stays where it is, and why. */
export interface KeptVersion {
  readonly uid: VersionUid;
  readonly reason: string;
}

/** What became of emptying a storage. */
export interface Drained {
  readonly name: string;
  /** Versions that have left it. */
  readonly versions: number;
  /** Copies that have left it, and their sealed bytes. */
  readonly copies: number;
  readonly bytes: number;
  readonly kept: readonly KeptVersion[];
  /** What is still there, or may still come, as sentences; empty when the storage is. */
  readonly left: readonly string[];
}

/** What giving up a storage costs. */
export interface Loss {
  readonly name: string;
  /** Versions that no other storage has whole. */
  readonly lost: readonly VersionUid[];
  /** Versions that fewer storages have than their policy wants. */
  readonly belowQuorum: readonly VersionUid[];
}

/** Takes a storage out of the policies of versions, each of which must be whole elsewhere. */
export async function leavePolicies(
  engine: Engine,
  uids: readonly VersionUid[],
  storage: StorageId,
  verified: ReadonlySet<StorageId>,
): Promise<{ readonly count: number; readonly kept: readonly KeptVersion[] }> {
  const repo = await engine.repository();
  const kept: KeptVersion[] = [];
  let count = 0;
  for (const uid of uids) {
    engine.context.signal.throwIfAborted();
    const before = await repo.kv.read((reader) => readVersion(reader, uid));
    if (before?.policy.storages.includes(storage) !== true) continue;
    try {
      const prefix = headPrefix(repo.keys, uid);
      await narrowPolicy(repo.kv, { uid, storage, headPrefix: prefix, isLost: false, verified });
      count += 1;
    } catch (error) {
      // It was removed meanwhile.
      if (isErrorCode(error, ErrorCode.NotFound)) continue;
      const isPassing =
        isErrorCode(error, ErrorCode.Refused) || isErrorCode(error, ErrorCode.TryAgain);
      if (!isPassing) throw error;
      const { remedy } = error;
      kept.push({ uid, reason: `${error.message}${remedy === undefined ? "" : `; ${remedy}`}` });
    }
  }
  return { count, kept };
}

/**
 * Empties a storage: it gets nothing new; versions go to the storages `to` as well, and leave it once they are whole elsewhere.
 * May be stopped and given again.
 */
export async function drainStorage(
  engine: Engine,
  name: string,
  to: readonly string[],
): Promise<Drained> {
  const { kv, context } = engine;
  const id = knownStorage(engine, name);
  const targets = to.map((each) => knownStorage(engine, each));
  if (targets.includes(id)) {
    throw new AshlarError(ErrorCode.Usage, `${name} cannot be drained to itself`);
  }
  const { record } = engine.knownStorages.find(({ storage }) => storage === id) ?? {};
  if (record?.state === "in-use") await setStorageState(kv, id, "readonly");
  await prepareChange(engine);
  const coordinator = await engine.coordinator();
  const { repo, upkeep } = coordinator;
  const startMs = repo.clock.now();
  const uids = await versionsAt(engine, id);
  // What is damaged cannot be copied: each later `replicate` would fail by it.
  const valid = await versionsAt(engine, id, ["valid"]);
  for (const target of targets) {
    await addToPolicies(engine, valid, target, true);
    await upkeep.fill(target, { signal: context.signal });
  }
  await putHeadsNow(engine);
  const verified = await verifyOthers(engine, valid, id, startMs);
  const { count, kept } = await leavePolicies(engine, uids, id, verified);
  await putHeadsNow(engine);
  await queueAllLeaving(repo, id, context.signal);
  const before = await countCopies(engine, id);
  const { bytesFreed } = await collectGarbage(coordinator, { signal: context.signal });
  const copies = Math.max(0, before - (await countCopies(engine, id)));
  const left = await whatIsLeft(engine, id, kept.length);
  return { name, versions: count, copies, bytes: bytesFreed, kept, left };
}

/**
 * Reads what versions have at their other storages, every byte that was not verified since `sinceMs`, before they leave one: the
 * copy there may be the only one that is as it should be. What is wrong is healed from it, or found to stay. Gives the storages
 * that could be read.
 */
export async function verifyOthers(
  engine: Engine,
  uids: readonly VersionUid[],
  leaving: StorageId,
  sinceMs: number,
): Promise<ReadonlySet<StorageId>> {
  if (uids.length === 0) return new Set();
  const { upkeep, repo } = await engine.coordinator();
  const chosen = new Set(uids);
  const storages = new Set<StorageId>();
  for await (const { uid, policy } of listVersions(engine.kv)) {
    if (chosen.has(uid)) for (const storage of policy.storages) storages.add(storage);
  }
  const others = [...storages].filter(
    (storage) => storage !== leaving && repo.storages.isAvailable(storage),
  );
  const counter = startCounter(engine.context, "verifying the other storages");
  try {
    const { damaged, storages: looked } = await upkeep.scrub({
      deep: true,
      versions: uids,
      storages: others,
      keepCycle: () => Promise.resolve(sinceMs),
      signal: engine.context.signal,
      onProgress: counter.show,
    });
    const lost = damaged.filter(({ healed }) => !healed).length;
    if (damaged.length > 0) {
      engine.context.log.warn(
        `${damaged.length} damaged objects were found at the other storages, ${damaged.length - lost} of them healed`,
      );
    }
    for (const { storage, reason } of looked) {
      if (reason === undefined) continue;
      engine.context.log.warn(
        `storage ${engine.nameOf(storage)} counts for nothing here: ${reason}`,
      );
    }
    return new Set(
      looked.flatMap(({ storage, reason }) => (reason === undefined ? [storage] : [])),
    );
  } finally {
    counter.stop();
  }
}

async function versionsAt(
  engine: Engine,
  id: StorageId,
  states: readonly VersionState[] = ["valid", "invalid"],
): Promise<VersionUid[]> {
  const uids: VersionUid[] = [];
  for await (const { uid, state, policy } of listVersions(engine.kv)) {
    if (states.includes(state) && policy.storages.includes(id)) uids.push(uid);
  }
  return uids;
}

async function countCopies({ kv }: Engine, id: StorageId): Promise<number> {
  return (await countKeys(kv, range.verify(id), Infinity)).count;
}

async function whatIsLeft(engine: Engine, id: StorageId, kept: number): Promise<string[]> {
  const { kv, nameOf } = engine;
  const left: string[] = [];
  if (kept > 0) left.push(`${kept} versions cannot leave it`);
  for (const { record } of await listSessions(kv)) {
    if (record.kind !== "backup" || record.state === "ended") continue;
    if (record.policy?.storages.includes(id) !== true) continue;
    left.push(
      `backup ${record.uid} is ${record.state === "live" ? "running" : "interrupted, and can be resumed (`ashlar gc --abandon` drops it)"} and goes there`,
    );
  }
  const newer = (await versionsAt(engine, id)).length - kept;
  if (newer > 0) {
    left.push(`${newer} versions were made for it meanwhile: take it out of the configuration`);
  }
  const has = (where: { readonly start: Buffer; readonly end: Buffer }) => (reader: KvReader) =>
    reader.range({ ...where, limit: 1 }).then((entries) => entries.length > 0);
  if (kept + newer === 0) {
    if (await kv.read(has(range.verify(id)))) left.push(`${nameOf(id)} still has copies`);
    if (await kv.read(has(range.owed(id)))) left.push(`copies are owed to ${nameOf(id)}`);
    if (await kv.read(has(range.owedHeads(id)))) left.push(`heads are owed to ${nameOf(id)}`);
    if (await kv.read(has(range.trash(id)))) left.push(`trash is not deleted at ${nameOf(id)}`);
    left.push(...waitingLines(nameOf(id), await measureWaiting(kv, id)));
  }
  return left;
}

/** Retires a storage that {@link drainStorage} has emptied, and takes it out of the configuration. */
export async function retireEmpty(engine: Engine, name: string): Promise<void> {
  const id = knownStorage(engine, name);
  await retireStorage(engine.kv, id, false);
  await forgetRetired(await engine.repository(), engine.context.signal);
  await dropFromConfig(engine, name);
}

/** Goes on where a removal was stopped behind the point of no return; false where the storage was not removed. */
export async function forgetAgain(engine: Engine, name: string): Promise<boolean> {
  const isRetired = (await listStorages(engine.kv)).some(
    ({ record }) => record.name === name && record.state === "retired",
  );
  if (!isRetired || engine.knownStorages.some(isThere(name))) return false;
  await forgetRetired(await engine.repository(), engine.context.signal);
  await dropFromConfig(engine, name);
  return true;
}

/** What giving a storage up would cost. */
export async function lossOf(engine: Engine, name: string): Promise<Loss> {
  const id = knownStorage(engine, name);
  const lost: VersionUid[] = [];
  const belowQuorum: VersionUid[] = [];
  for (const { version, completeAt } of await listPlacedVersions(engine.kv)) {
    const { uid, policy, state } = version;
    if (state === "incomplete" || !policy.storages.includes(id)) continue;
    const others = completeAt.filter((storage) => storage !== id).length;
    if (others === 0) lost.push(uid);
    else if (others < policy.quorum) belowQuorum.push(uid);
  }
  return { name, lost, belowQuorum };
}

/**
 * Gives a storage up that is lost: its identity never counts again, versions make do with their other storages, and what only it
 * had is lost. Asks first. It need not be there. May be stopped and given again.
 */
export async function giveUp(engine: Engine, name: string): Promise<Loss> {
  if (await forgetAgain(engine, name)) {
    await putHeadsNow(engine);
    return { name, lost: [], belowQuorum: [] };
  }
  const loss = await lossOf(engine, name);
  await confirm(
    engine.context,
    `Giving up ${name} loses ${loss.lost.length} versions, and leaves ${loss.belowQuorum.length} at fewer storages than they want. Give it up for ever?`,
  );
  await retireStorage(engine.kv, knownStorage(engine, name), true);
  await forgetRetired(await engine.repository(), engine.context.signal);
  await putHeadsNow(engine);
  await dropFromConfig(engine, name);
  return loss;
}

const isThere =
  (name: string) =>
  ({ record }: Engine["knownStorages"][number]): boolean =>
    record.name === name && record.state !== "retired";

/** Takes a storage out of the configuration, leaving its comments as they are. */
export async function dropFromConfig(
  { config, context }: Pick<Engine, "config" | "context">,
  name: string,
): Promise<void> {
  const { file } = config;
  try {
    const document = parseDocument(await readFile(file, "utf8"));
    const storages: unknown = document.get("storages");
    const at = isSeq(storages)
      ? storages.items.findIndex((item) => isMap(item) && item.get("name") === name)
      : -1;
    if (at < 0) return;
    document.deleteIn(["storages", at]);
    for (const list of ["storages", "prefer"]) dropName(document, ["defaults", list], name);
    const text = document.toString({ lineWidth: 0 });
    // What it says of others, such as a quorum, may not fit any more: that is for whoever wrote it.
    parseConfig(text, file, { env: context.env, cwd: context.cwd, hostname: hostname() });
    // Whoever is stopped here leaves the old one or the new one.
    const temporary = `${file}.tmp`;
    await writeFile(temporary, text, { mode: (await stat(file)).mode });
    await rename(temporary, file);
  } catch (error) {
    const { message } = fromSystemError(error, `changing ${file}`) as Error;
    throw new AshlarError(
      ErrorCode.Config,
      `storage ${name} was removed from the repository, but the configuration still has it: ${message}`,
      { remedy: `take it out of ${file}`, cause: error },
    );
  }
}

/** Takes a name out of a list; a list that is empty then goes. */
function dropName(document: Document, at: readonly string[], name: string): void {
  const list: unknown = document.getIn(at);
  if (!isSeq(list)) return;
  const index = list.items.findIndex((item) => isScalar(item) && item.value === name);
  if (index < 0) return;
  list.delete(index);
  if (list.items.length === 0) document.deleteIn(at);
}
