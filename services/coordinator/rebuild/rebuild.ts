// Rebuild (DESIGN §3, §4.10): makes metadata out of what storages show, new ones, or those there are mended: put back from an
// older copy, cloned and used twice, or with a storage that was put back. Every step reads again what it decides on and
// lands twice without harm: a rebuild that was stopped anywhere is run again. Until its very end the storages show stamps
// that the metadata do not know, so nothing is claimed, written or deleted there meanwhile.
//
// Memory is bounded: listings go into records of the metadata (keyspace.ts), trees are walked depth first, and only
// versions, stamps and problems are listed in memory.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { key, range } from "#lib/repository/keyspace.ts";
import { BATCH_MAX } from "#lib/repository/ledger.ts";
import {
  decodeRecord,
  encodeRecord,
  METADATA_SCHEMA,
  type RepositoryRecord,
  type SessionRecord,
} from "#lib/repository/records.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { findMissingParts } from "./missing-parts.ts";
import { forgetLostHeads } from "./head-records.ts";
import { listStorages } from "./listing.ts";
import { markLostCopies } from "./lost.ts";
import {
  RebuildRun,
  type RebuildRequest,
  type RebuildResult,
  type RebuiltVersionReport,
} from "./run.ts";
import { admitStorage, listDisabled, refuseRetired } from "./storages.ts";
import { importVersions, type ImportedVersion } from "./versions.ts";
import type { RebuiltVersion } from "./rebuilt-version.ts";

const BLOCK_BYTES_DEFAULT = 4 * 1024 * 1024;
/** Missing parts of one version that are reported. */
const MISSING_MAX = 1000;

/** Rebuilds; see the head of this file. The caller has seen to it that no other process or copy of the metadata works. */
export async function rebuild(request: RebuildRequest): Promise<RebuildResult> {
  const run = new RebuildRun(request);
  await checkRequest(run);
  await run.begin();
  const sessionsStopped = await stopSessions(run);
  const stamps = await listStorages(run);
  await markLostCopies(run);
  await forgetLostHeads(run);
  const imported: ImportedVersion[] = [];
  const wanted = new Map<StorageId, number>();
  await importVersions(run, (summary, version) => {
    imported.push(summary);
    if (!summary.removed) countStorages(version, wanted);
  });
  await drainRechecks(run.kv, request.signal);
  const versions = await reportVersions(run, imported);
  await saveConfig(run, imported);
  for (const given of request.stores) {
    await admitStorage(run, given, stamps.get(given.identity) ?? new Set());
  }
  const unknownStorages = await listDisabled(run, wanted);
  await run.end();
  return {
    versions,
    removed: imported.filter(({ removed }) => removed).length,
    storages: request.stores.map(({ identity, name }) => {
      const tally = run.tallies.get(identity) ?? { objects: 0, heads: 0, adopted: 0, lost: 0 };
      return { storage: identity, name, ...tally };
    }),
    unknownStorages,
    problems: run.problems,
    sessionsStopped,
  };
}

/** The metadata are those of the keys' repository, or new; no storage is given twice or was retired. */
async function checkRequest(run: RebuildRun): Promise<void> {
  const { request, kv, given } = run;
  if (given.length === 0 || new Set(given).size < given.length) {
    throw new AshlarError(
      ErrorCode.Usage,
      given.length === 0 ? "no storage is given to rebuild from" : "a storage is given twice",
      { remedy: "name each storage once, with --from" },
    );
  }
  const value = await kv.read((reader) => reader.get(key.config));
  if (value === undefined && !request.fresh) {
    throw new AshlarError(ErrorCode.NotFound, "there are no metadata here to mend", {
      remedy: "`ashlar rebuild DIR --from URL...` makes new ones in an empty folder",
    });
  }
  const config = value === undefined ? undefined : decodeRecord<RepositoryRecord>(value);
  if (config !== undefined && config.repository !== request.keys.repository) {
    throw new AshlarError(ErrorCode.Refused, "the storage belongs to another repository", {
      remedy: "`ashlar rebuild DIR --from URL...` makes new metadata for it in an empty folder",
    });
  }
  await refuseRetired(run);
}

/** Whoever works by these metadata does so no longer: nothing of theirs commits. Backups stay resumable. */
async function stopSessions(run: RebuildRun): Promise<number> {
  let stopped = 0;
  await run.eachPage("stopping sessions", range.sessions(), BATCH_MAX, async (entries) => {
    stopped += await run.transact(async (tx) => {
      let count = 0;
      for (const { key: at } of entries) {
        const value = await tx.get(at);
        const record = value === undefined ? undefined : decodeRecord<SessionRecord>(value);
        if (record?.state !== "live") continue;
        const endedMs = run.request.clock.now();
        tx.set(at, encodeRecord({ ...record, state: "dead", endedMs } satisfies SessionRecord));
        count += 1;
      }
      return count;
    }, true);
  });
  return stopped;
}

/** The versions as they are once all marks have climbed. */
async function reportVersions(
  run: RebuildRun,
  imported: readonly ImportedVersion[],
): Promise<RebuiltVersionReport[]> {
  const out: RebuiltVersionReport[] = [];
  for (const { uid, adopted } of imported) {
    const version = await run.kv.read((reader) => readVersion(reader, uid));
    if (version?.state !== "valid" && version?.state !== "invalid") continue;
    const { volume, state } = version;
    const missing = state === "valid" ? [] : await findMissingParts(run.kv, version, MISSING_MAX);
    out.push({ uid, volume, state, adopted, missing });
  }
  return out;
}

/** New metadata get their config record when everything is in: before that, they are no repository. */
async function saveConfig(run: RebuildRun, imported: readonly ImportedVersion[]): Promise<void> {
  const { keys, clock, blockBytes } = run.request;
  const [newest] = imported.toSorted((a, b) => b.createdMs - a.createdMs);
  await run.transact(async (tx) => {
    if ((await tx.get(key.config)) !== undefined) return;
    const config: RepositoryRecord = {
      schema: METADATA_SCHEMA,
      repository: keys.repository,
      createdMs: clock.now(),
      blockBytes: newest?.blockBytes ?? blockBytes ?? BLOCK_BYTES_DEFAULT,
      hash: keys.hash,
    };
    tx.set(key.config, encodeRecord(config));
  }, true);
}

/** Counts a version at each storage of its policy. */
function countStorages({ policy }: RebuiltVersion, counts: Map<StorageId, number>): void {
  for (const storage of policy.storages) counts.set(storage, (counts.get(storage) ?? 0) + 1);
}
