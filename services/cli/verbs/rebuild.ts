// ashlar rebuild: makes the metadata again, from what storages show.
import path from "node:path";
import type { Command } from "commander";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { RebuildProgress, RebuildResult } from "#services/coordinator/rebuild/run.ts";
import type { CommandContext } from "../context.ts";
import { collect, parseCount } from "../option-values.ts";
import { formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { confirm } from "../prompt.ts";
import { readConfig } from "../with-engine.ts";

interface RebuildOptions {
  readonly from?: string[];
  readonly keyFile?: string;
  readonly passphraseFile?: string;
  readonly blockSize?: string;
  readonly quorum?: number;
}

/** Missing parts of a version that are listed for people; --json lists more. */
const MISSING_SHOWN = 10;

const HELP = `
With DIR, a new or empty folder, it makes a repository there from the storages alone: metadata and a
configuration. The key comes from --key-file, --passphrase-file, $ASHLAR_PASSPHRASE(_FILE) or a prompt.

Without DIR it reconciles the configured repository with its storages, after its metadata or a storage were
put back from an older copy, or its metadata were used in two places. STOP EVERY OTHER PROCESS AND COPY of the
repository first. --from then names storages of the configuration; default: all.

A version whose tree is not complete on the storages becomes invalid and is reported; the exit code is then 65.

Examples:
  ashlar rebuild /srv/ashlar --from /srv/backup --key-file /root/ashlar.key
  ashlar rebuild /srv/ashlar --from main=/srv/backup --from offsite=/mnt/nas/ashlar --key-file /root/ashlar.key
  ashlar rebuild
  ashlar rebuild --from offsite`;

/** Adds the verb. */
export function addRebuild(program: Command, act: Act): void {
  program
    .command("rebuild")
    .summary("make the metadata again from storages")
    .description("Makes the metadata again from what storages show.")
    .argument("[dir]", "a new or empty folder; default: the configured repository")
    .option("--from <url>", "a storage, as URL, NAME=URL, or NAME (repeatable)", collect)
    .option("--key-file <file>", "the key of the repository")
    .option("--passphrase-file <file>", "the file with its passphrase")
    .option("--block-size <size>", "size of blocks of new backups, where no version tells")
    .option(
      "--quorum <count>",
      "how many storages must have a new version whole; default: 1",
      parseCount,
    )
    .addHelpText("after", HELP)
    .action(
      act(async (context, dir: string | undefined, options: RebuildOptions) => {
        const show = (progress: RebuildProgress): void => {
          context.log.debug(`rebuild: ${progress.phase}`, { done: progress.done });
        };
        const result =
          dir === undefined
            ? await reconcile(context, options, show)
            : await makeNew(context, dir, options, show);
        report(context, result);
      }),
    );
}

async function makeNew(
  context: CommandContext,
  dir: string,
  options: RebuildOptions,
  onProgress: (progress: RebuildProgress) => void,
): Promise<RebuildResult> {
  if (options.from === undefined) {
    throw new AshlarError(ErrorCode.Usage, "rebuild DIR needs a storage to rebuild from", {
      remedy: "name one or more with --from URL",
    });
  }
  const { rebuildNew } = await import("../rebuild-repository.ts");
  const { parseBlockSize, permitsSmallBlocks } = await import("#lib/process/config-schema.ts");
  const absolute = (file: string | undefined): string | undefined =>
    file === undefined ? undefined : path.resolve(context.cwd, file);
  return rebuildNew(context, {
    folder: path.resolve(context.cwd, dir),
    from: options.from,
    keyFile: absolute(options.keyFile),
    passphraseFile: absolute(options.passphraseFile),
    blockBytes:
      options.blockSize === undefined
        ? undefined
        : parseBlockSize(options.blockSize, permitsSmallBlocks(context.env)),
    quorum: options.quorum ?? 1,
    onProgress,
  });
}

async function reconcile(
  context: CommandContext,
  options: RebuildOptions,
  onProgress: (progress: RebuildProgress) => void,
): Promise<RebuildResult> {
  const { rebuildConfigured } = await import("../rebuild-repository.ts");
  const config = await readConfig(context);
  await confirm(context, "Is every other process and copy of this repository stopped?");
  return rebuildConfigured(context, config, options.from ?? [], onProgress);
}

function report(context: CommandContext, result: RebuildResult): void {
  const { output, log } = context;
  const { versions, storages, problems, unknownStorages, sessionsStopped, removed } = result;
  for (const problem of problems) log.warn(problem);
  for (const { storage, versions: count } of unknownStorages) {
    log.warn(
      `${count} versions should also be at storage ${storage}, which was not seen: it is disabled`,
    );
  }
  output.result(
    {
      versions,
      removed,
      storages: storages.map(({ storage, ...each }) => ({ id: storage, ...each })),
      unknownStorages,
      problems,
      sessionsStopped,
    },
    () => [
      ...versionTable(result),
      "",
      ...formatTable(
        [
          { head: "storage" },
          { head: "objects", align: "right" },
          { head: "heads", align: "right" },
          { head: "taken over", align: "right" },
          { head: "lost", align: "right" },
        ],
        storages.map((each) => [
          each.name,
          String(each.objects),
          String(each.heads),
          String(each.adopted),
          String(each.lost),
        ]),
      ),
    ],
  );
  const invalid = versions.filter(({ state }) => state === "invalid");
  if (invalid.length + problems.length === 0) return;
  throw new AshlarError(
    ErrorCode.Damaged,
    invalid.length > 0
      ? `${invalid.length} versions are not complete on these storages, and are invalid`
      : `${problems.length} things could not be taken over`,
    {
      remedy:
        "rebuild again from further storages that may have what is missing, or restore with --keep-going",
    },
  );
}

function versionTable({ versions }: RebuildResult): string[] {
  if (versions.length === 0) return ["no versions"];
  return [
    ...formatTable(
      [
        { head: "version" },
        { head: "volume" },
        { head: "status" },
        { head: "found" },
        { head: "missing parts", align: "right" },
      ],
      versions.map(({ uid, volume, state, adopted, missing }) => [
        uid,
        volume,
        state,
        adopted ? "on a storage" : "in the metadata",
        String(missing.length),
      ]),
    ),
    ...versions.flatMap(({ uid, missing }) =>
      missing
        .slice(0, MISSING_SHOWN)
        .map(
          ({ offset, length, kind }) =>
            `missing in ${uid}: ${length} bytes at offset ${offset} (a ${kind})`,
        ),
    ),
  ];
}
