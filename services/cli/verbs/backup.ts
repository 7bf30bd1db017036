// ashlar backup: makes a version of a volume.
import { Option, type Command } from "commander";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { formatDuration, formatSize } from "#lib/core/size.ts";
import { asVersionUid, checkSnapshotName, checkVolumeName, parseLabel } from "#lib/core/uid.ts";
import { COMPRESSION_LEVEL_MAX, COMPRESSIONS } from "#lib/repository/compression-choice.ts";
import type { BackupJob, BackupResult } from "#services/coordinator/jobs.ts";
import type { Engine } from "../compose.ts";
import type { CommandContext } from "../context.ts";
import { collect, parseCount } from "../option-values.ts";
import { absoluteDevice } from "../paths.ts";
import type { Act } from "../program.ts";
import { startProgressBar } from "../progress-bar.ts";
import { statisticsDocument } from "../version-document.ts";
import { withEngine } from "../with-engine.ts";

interface BackupOptions {
  readonly uid?: string;
  readonly snapshot?: string;
  readonly base?: string;
  readonly hints?: string;
  readonly strictHints?: boolean;
  readonly storage?: string[];
  readonly quorum?: number;
  readonly prefer?: string[];
  readonly compression?: string;
  readonly compressionLevel?: number;
  readonly requireComplete?: boolean;
  readonly label?: string[];
  readonly blockSize?: string;
}

const HELP = `
SOURCE is file:PATH, a path, a block device, or - for a stream on standard input. The uid of the version
is the last line on stdout. A backup that was stopped is gone on with when the same command is given again:
what is stored is not sent again.

Hints are JSON as \`rbd diff --format json\` prints it. With --base they are what has changed since that
version, and everything else is taken from it; without, they are what is allocated, and everything else is
taken for zero. A share of what they leave out is checked: where a block differs, everything is read, or with
--strict-hints the backup fails.

Examples:
  ashlar backup /dev/vg0/web web
  ashlar backup --snapshot nightly --label env=prod /dev/vg0/web-snap web
  ashlar backup --base web@latest --hints changes.json /dev/rbd0 web
  pg_dump shop | ashlar backup - shop.sql`;

/** Adds the verb. */
export function addBackup(program: Command, act: Act): void {
  program
    .command("backup")
    .summary("back up a device as a version of a volume")
    .description("Backs SOURCE up as a new version of VOLUME.")
    .argument("<source>", "what is backed up")
    .argument("<volume>", "the volume that it is a version of")
    .option("--snapshot <name>", "the source is a snapshot of that name, which does not change")
    .option("--base <uid>", "take what the hints do not name from this version")
    .option(
      "--hints <file>",
      "which parts have changed (with --base) or are allocated; - for stdin",
    )
    .option("--strict-hints", "fail when a hint turns out to be wrong")
    .option("--storage <name>", "back up to this storage (repeatable)", collect)
    .option("--quorum <count>", "how many storages must have it whole", parseCount)
    .option("--prefer <name>", "restores read this storage first (repeatable, in order)", collect)
    .addOption(
      new Option("--compression <name>", "how what is new is compressed").choices([
        ...COMPRESSIONS,
      ]),
    )
    .option(
      "--compression-level <number>",
      `zstd's level, 1 to ${COMPRESSION_LEVEL_MAX}`,
      parseCount,
    )
    .option("--require-complete", "fail unless every storage has it whole")
    .option("--label <name=value>", "label of the version (repeatable)", collect)
    .option("--block-size <size>", "size of its blocks")
    .option("--uid <uid>", "uid of the version, instead of a random one")
    .addHelpText("after", HELP)
    .action(
      act(async (context, source: string, volume: string, options: BackupOptions) => {
        checkVolumeName(volume);
        await withEngine(context, async (engine) => {
          const job = await backupJob(engine, source, volume, options);
          const result = await runWithBar(engine, job);
          report(context, job, result);
        });
      }),
    );
}

async function backupJob(
  engine: Engine,
  source: string,
  volume: string,
  options: BackupOptions,
): Promise<BackupJob> {
  const { context, config, kv } = engine;
  const { parseBlockSize, permitsSmallBlocks } = await import("#lib/process/config-schema.ts");
  const { resolveVersion } = await import("#services/coordinator/listing.ts");
  if (source === "-" && options.hints === "-") {
    throw new AshlarError(ErrorCode.Usage, "source and hints cannot both come from standard input");
  }
  // Left alone they would do nothing, and everything would be read without a word.
  for (const [option, isGiven] of [
    ["--base", options.base !== undefined],
    ["--strict-hints", options.strictHints === true],
  ] as const) {
    if (!isGiven || options.hints !== undefined) continue;
    throw new AshlarError(ErrorCode.Usage, `${option} needs --hints`, {
      remedy: "name the hints, or leave it away: without hints everything is read",
    });
  }
  const storages = options.storage ?? (await engine.defaultStorages());
  await engine.requireStorages(storages);
  return {
    source: absoluteDevice(source, context.cwd),
    volume,
    ...(options.uid === undefined ? {} : { uid: asVersionUid(options.uid) }),
    ...(options.snapshot === undefined ? {} : { snapshot: checkSnapshotName(options.snapshot) }),
    ...(options.base === undefined ? {} : { base: await resolveVersion(kv, options.base) }),
    ...(options.hints === undefined ? {} : { hints: absoluteDevice(options.hints, context.cwd) }),
    strictHints: options.strictHints === true,
    storages,
    ...(options.quorum === undefined ? {} : { quorum: options.quorum }),
    ...(options.prefer === undefined ? {} : { prefer: options.prefer }),
    ...(options.compression === undefined ? {} : { compression: options.compression }),
    ...(options.compressionLevel === undefined
      ? {}
      : { compressionLevel: options.compressionLevel }),
    requireComplete: options.requireComplete === true,
    labels: labelsOf(options.label ?? []),
    blockBytes:
      options.blockSize === undefined
        ? config.defaults.blockBytes
        : parseBlockSize(options.blockSize, permitsSmallBlocks(context.env)),
  };
}

function labelsOf(texts: readonly string[]): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const text of texts) {
    const change = parseLabel(text);
    if (change.kind === "remove") {
      throw new AshlarError(ErrorCode.Usage, `label ${JSON.stringify(text)}: expected NAME=VALUE`);
    }
    labels[change.name] = change.value;
  }
  return labels;
}

async function runWithBar(engine: Engine, job: BackupJob): Promise<BackupResult> {
  const { context } = engine;
  const { runBackup } = await import("#services/coordinator/backup-job.ts");
  const coordinator = await engine.coordinator(job.blockBytes);
  const bar = startProgressBar(context);
  try {
    return await runBackup(coordinator, job, { signal: context.signal, onProgress: bar.show });
  } catch (error) {
    if (!isErrorCode(error, ErrorCode.Cancelled) || job.source === "-") throw error;
    throw new AshlarError(ErrorCode.Cancelled, error.message, {
      cause: error,
      remedy:
        "the backup can be resumed: give the same command again, and what is stored is not sent again",
    });
  } finally {
    bar.stop();
  }
}

function report(context: CommandContext, job: BackupJob, result: BackupResult): void {
  const { output, log } = context;
  const { statistics, uid } = result;
  for (const warning of result.warnings) log.warn(warning);
  for (const { storage, complete, reason } of result.storages) {
    if (!complete)
      log.warn(`storage ${storage} does not have ${uid} whole yet: ${reason ?? "owed"}`);
  }
  output.note(summary(job, result));
  output.result(
    {
      uid,
      volume: job.volume,
      sizeBytes: result.sizeBytes,
      ...statisticsDocument(statistics),
      warnings: result.warnings,
      storages: result.storages.map(({ storage, complete, reason }) => ({
        name: storage,
        complete,
        ...(reason === undefined ? {} : { reason }),
      })),
      resumed: result.resumed,
      stages: result.stages,
    },
    () => [uid],
  );
}

function summary(job: BackupJob, result: BackupResult): string {
  const { bytesRead, bytesNew, bytesKnown, bytesSparse, bytesUnchanged, bytesStored, durationMs } =
    result.statistics;
  const complete = result.storages.filter((each) => each.complete).map(({ storage }) => storage);
  return [
    `${job.volume}: ${formatSize(result.sizeBytes)} in ${formatDuration(durationMs)}`,
    `read ${formatSize(bytesRead)}`,
    `new ${formatSize(bytesNew)}`,
    `known ${formatSize(bytesKnown)}`,
    `sparse ${formatSize(bytesSparse)}`,
    ...(bytesUnchanged > 0 ? [`unchanged ${formatSize(bytesUnchanged)}`] : []),
    `stored ${formatSize(bytesStored)}`,
    `complete at ${complete.join(", ")}`,
  ].join(" · ");
}
