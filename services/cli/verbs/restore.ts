// ashlar restore: writes a version onto a target.
import type { Command } from "commander";
import { existsSync } from "node:fs";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatDuration, formatSize } from "#lib/core/size.ts";
import { requireVersion } from "#lib/repository/transactions/version.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import type { RestoreJob, RestoreResult } from "#services/coordinator/jobs.ts";
import { resolveVersion } from "#services/coordinator/listing.ts";
import type { Engine } from "../compose.ts";
import type { CommandContext } from "../context.ts";
import { parseRange } from "../option-values.ts";
import { absoluteDevice } from "../paths.ts";
import type { Act } from "../program.ts";
import { startProgressBar } from "../progress-bar.ts";
import { confirm } from "../prompt.ts";
import { withEngine } from "../with-engine.ts";

interface RestoreOptions {
  readonly force?: boolean;
  readonly sparse?: boolean;
  readonly differential?: boolean;
  readonly range?: { readonly offset: number; readonly length: number };
  readonly storage?: string;
  readonly keepGoing?: boolean;
}

/** Damaged blocks that are listed for people; --json lists all. */
const DAMAGED_SHOWN = 50;

const HELP = `
TARGET is file:PATH, a path, a block device, or - for standard output. What exists is overwritten with
--force only, and then a terminal asks once more unless --yes is given. A target that is mounted, too small,
or a part of the repository is refused.

With --keep-going everything that is intact is restored; what is not stays zero and is listed, and the
command ends with exit code 65. What is at a storage that is away is not damaged: that is 69, and nothing is
given up for it. With --differential zeros, too, are written only where the target has none.

Examples:
  ashlar restore web@latest web.img
  ashlar restore --force --differential web@latest /dev/vg0/web
  ashlar restore --range 1GiB:64MiB web-x3k2p9 part.img
  ashlar restore web@latest - | gzip > web.img.gz`;

/** Adds the verb. */
export function addRestore(program: Command, act: Act): void {
  program
    .command("restore")
    .summary("restore a version onto a file, a device or stdout")
    .description("Writes a version onto TARGET, and verifies every block of it.")
    .argument("<uid>", "version")
    .argument("<target>", "where it goes")
    .option("-f, --force", "overwrite a target that exists")
    .option("--sparse", "discard or punch where the version has zeros, instead of writing them")
    .option("--differential", "read the target and write only what differs")
    .option(
      "--range <offset:length>",
      "only this part of the version, to the start of the target",
      parseRange,
    )
    .option("--storage <name>", "read from this storage only")
    .option("--keep-going", "leave zeros where blocks are damaged, and go on")
    .addHelpText("after", HELP)
    .action(
      act(async (context, reference: string, target: string, options: RestoreOptions) => {
        if (target === "-" && context.options.json) {
          throw new AshlarError(
            ErrorCode.Usage,
            "--json and the target - both want standard output",
          );
        }
        await withEngine(context, async (engine) => {
          const { kv } = engine;
          const uid = await resolveVersion(kv, reference);
          const version = await kv.read((reader) => requireVersion(reader, uid));
          const job: RestoreJob = { ...options, uid, target: absoluteDevice(target, context.cwd) };
          // Before anything is asked or overwritten.
          await requireReading(engine);
          await askBeforeOverwriting(context, job, version);
          report(context, job, await runWithBar(engine, job, version));
        });
      }),
    );
}

async function requireReading(engine: Engine): Promise<void> {
  const { canOpen } = await import("#lib/repository/keys.ts");
  const { refusedToWriters } = await import("#lib/repository/key-wrap.ts");
  const { keys } = await engine.repository();
  if (!canOpen(keys)) throw refusedToWriters("nothing was restored");
}

async function askBeforeOverwriting(
  context: CommandContext,
  job: RestoreJob,
  version: VersionRecord,
): Promise<void> {
  const path = job.target.replace(/^file:(?:\/\/)?/, "");
  if (job.force !== true || job.target === "-" || !existsSync(path)) return;
  await confirm(
    context,
    `Overwrite ${path} with ${version.uid} (${formatSize(version.sizeBytes)})?`,
  );
}

async function runWithBar(
  engine: Engine,
  job: RestoreJob,
  version: VersionRecord,
): Promise<RestoreResult> {
  const { context } = engine;
  const { runRestore } = await import("#services/coordinator/restore-job.ts");
  const coordinator = await engine.coordinator(version.blockBytes);
  const bar = startProgressBar(context);
  try {
    return await runRestore(coordinator, job, { signal: context.signal, onProgress: bar.show });
  } finally {
    bar.stop();
  }
}

function report(context: CommandContext, job: RestoreJob, result: RestoreResult): void {
  const { output, log } = context;
  const { damaged, damagedCount, uid } = result;
  for (const warning of result.warnings) log.warn(warning);
  const line = summary(job, result);
  if (job.target === "-") {
    // Standard output has the data.
    if (!context.options.quiet) output.stderrLine(line);
  } else if (context.options.json) output.document({ target: job.target, ...result });
  else output.note(line);
  if (damaged.length === 0) return;
  for (const { kind, id, offset, length, reason } of damaged.slice(0, DAMAGED_SHOWN)) {
    output.stderrLine(
      `damaged: ${length} bytes at offset ${offset ?? "unknown"} of ${uid}, ${kind} ${id}: ${reason}`,
    );
  }
  if (damagedCount > DAMAGED_SHOWN) {
    const listed = damagedCount > damaged.length ? `the first ${damaged.length}` : "all";
    output.stderrLine(`and ${damagedCount - DAMAGED_SHOWN} more; --json lists ${listed}`);
  }
  const bytes = damaged.reduce((sum, { length }) => sum + length, 0);
  const least = damagedCount > damaged.length ? "more than " : "";
  throw new AshlarError(
    ErrorCode.Damaged,
    `${damagedCount} ${damagedCount === 1 ? "part" : "parts"} of ${uid} (${least}${formatSize(bytes)}) could not be restored and are zero in the target`,
    { remedy: "`ashlar scrub --deep` heals what another storage still has" },
  );
}

function summary(job: RestoreJob, result: RestoreResult): string {
  const { bytesWritten, bytesZero, bytesEqual, durationMs, uid } = result;
  return [
    `restored ${uid} to ${job.target} in ${formatDuration(durationMs)}`,
    `written ${formatSize(bytesWritten)}`,
    `zero ${formatSize(bytesZero)}`,
    ...(job.differential === true ? [`equal ${formatSize(bytesEqual)}`] : []),
  ].join(" · ");
}
