// What a version is stored by: storages, quorum, what restores read first, compression.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { CompressionChoice } from "#lib/ports/compute.ts";
import { requireCompression } from "#lib/repository/compression-choice.ts";
import type { Policy } from "#lib/repository/records.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";
import type { CoordinatorContext } from "./context.ts";
import type { BackupJob } from "./jobs.ts";

const LEVEL_DEFAULT = 1;

/**
 * The policy of a backup's version: what the job says, and else the configuration.
 * @throws Usage for storages or a compression that there are not, or that do not fit together
 */
export async function choosePolicy(context: CoordinatorContext, job: BackupJob): Promise<Policy> {
  const { repo, settings } = context;
  const names = job.storages ?? (await withoutRemoved(context, settings.storages));
  const storages = [...new Set(names.map((name) => repo.storages.byName(name).id))];
  const quorum = job.quorum ?? settings.quorum;
  if (quorum < 1 || quorum > storages.length) {
    throw new AshlarError(
      ErrorCode.Usage,
      `a quorum of ${quorum} does not fit ${storages.length} storages (${names.join(", ")})`,
      { remedy: "name more storages, or a smaller quorum" },
    );
  }
  const prefer = choosePreferred(context, job, storages);
  const compression = chooseCompression(context, job);
  return {
    storages,
    quorum,
    ...(prefer.length === 0 ? {} : { prefer }),
    ...(compression === undefined ? {} : { compression }),
  };
}

/** A storage may be removed from the repository while this process runs: nothing goes there that nobody has asked for by name. */
async function withoutRemoved(
  { repo }: CoordinatorContext,
  names: readonly string[],
): Promise<readonly string[]> {
  const retired = new Set(
    (await listStorages(repo.kv)).flatMap(({ storage, record }) =>
      record.state === "retired" ? [storage] : [],
    ),
  );
  const removed = names.filter((name) => retired.has(repo.storages.byName(name).id));
  if (removed.length === 0 || removed.length === names.length) return names;
  repo.log.warn(`${removed.join(", ")} was removed from the repository: backups go without it`, {
    remedy: "take it out of the configuration",
  });
  return names.filter((name) => !removed.includes(name));
}

/** What the job prefers must be a storage of the version; of what the configuration does, those that are. */
function choosePreferred(
  { repo, settings }: CoordinatorContext,
  job: BackupJob,
  storages: readonly StorageId[],
): StorageId[] {
  const names = [...new Set(job.prefer ?? settings.prefer ?? [])];
  const isStranger = (name: string): boolean => !storages.includes(repo.storages.byName(name).id);
  const stranger = job.prefer?.find(isStranger);
  if (stranger !== undefined) {
    throw new AshlarError(ErrorCode.Usage, `the version does not go to ${stranger}`, {
      remedy: "prefer a storage that it goes to",
    });
  }
  return names.filter((name) => !isStranger(name)).map((name) => repo.storages.byName(name).id);
}

/** The level belongs to its compression: a job that names another one does not get the configured level. */
function chooseCompression(
  { settings }: CoordinatorContext,
  { compression, compressionLevel }: BackupJob,
): CompressionChoice | undefined {
  const usual = settings.compression;
  const name = compression ?? usual?.name;
  if (name === undefined) return undefined;
  requireLevels(name, compressionLevel);
  const usualLevel = name === usual?.name ? usual.level : LEVEL_DEFAULT;
  const choice = { name, level: compressionLevel ?? usualLevel };
  requireCompression(choice);
  return choice;
}

/** Usage for a level where the compression has none. */
export function requireLevels(name: string, level: number | undefined): void {
  if (level === undefined || name === "zstd") return;
  throw new AshlarError(ErrorCode.Usage, `compression ${name} has no levels`, {
    remedy: "leave the level away, or compress with zstd",
    details: { field: "compressionLevel" },
  });
}
