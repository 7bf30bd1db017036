// ashlar scrub: looks whether what was stored is still there and right, and heals what is not.
import type { Command } from "commander";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { VersionUid } from "#lib/core/ids.ts";
import { formatSize, parseDuration, parsePercent, parseSize } from "#lib/core/size.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import { listVersions, requireVersion } from "#lib/repository/transactions/version.ts";
import type { SourceComparison } from "#services/coordinator/compare-source.ts";
import type { DamagedObject, ScrubResult } from "#lib/repository/upkeep.ts";
import type { Engine } from "../compose.ts";
import { collect } from "../option-values.ts";
import { formatTable } from "../output.ts";
import { absoluteDevice } from "../paths.ts";
import type { Act } from "../program.ts";
import { startCounter, startProgressBar } from "../progress-bar.ts";
import { selectVersions } from "../selection.ts";
import { withEngine } from "../with-engine.ts";

interface ScrubCommandOptions {
  readonly deep?: boolean;
  readonly source?: string;
  readonly sample?: number;
  readonly budget?: { readonly ms?: number; readonly bytes?: number };
  readonly storage?: string[];
}

/** Damaged objects that are listed for people; --json lists more. */
const DAMAGED_SHOWN = 50;

const HELP = `
Without --deep the storages are asked whether every object is there and of the right size; with it every
byte is read, decrypted and compared with its hash. What is found bad is replaced from another storage that
has it. Copies that were verified longest ago come first, so a scrub with a budget goes on where the last
one stopped. The exit code is 65 when anything was found damaged, healed or not.

Examples:
  ashlar scrub
  ashlar scrub --deep --budget 2h
  ashlar scrub --deep --budget 500GiB --storage offsite
  ashlar scrub --deep web@latest
  ashlar scrub --source /dev/vg0/web-snap web@latest
  ashlar scrub --deep --sample 5% 'volume like "db%"'`;

/** Adds the verb. */
export function addScrub(program: Command, act: Act): void {
  program
    .command("scrub")
    .summary("verify what is stored, and heal what is damaged")
    .description(
      "Verifies objects on the storages, oldest verification first, and heals what is damaged.",
    )
    .argument("[versions]", "a version or a filter; default: everything")
    .option("--deep", "read and verify every byte")
    .option("--source <url>", "compare a version with this source, too")
    .option("--sample <percent>", "look at a random part only, such as 5%", parseSample)
    .option("--budget <amount>", "stop after a time (2h) or so many bytes (500GiB)", parseBudget)
    .option("--storage <name>", "only this storage (repeatable)", collect)
    .addHelpText("after", HELP)
    .action(
      act(async (context, text: string | undefined, options: ScrubCommandOptions) => {
        await withEngine(context, async (engine) => {
          const { uid, include } = await selectVersions(
            engine.kv,
            text,
            engine.nameOf,
            engine.ports.clock.now(),
          );
          if (options.source !== undefined && uid === undefined) {
            throw new AshlarError(ErrorCode.Usage, "--source needs one version to compare it with");
          }
          const versions = text === undefined ? undefined : await finished(engine, include);
          const result = await runScrub(engine, options, versions);
          const comparison =
            options.source === undefined || uid === undefined
              ? undefined
              : await compare(engine, uid, options.source);
          report(engine, result, comparison);
        });
      }),
    );
}

function parseSample(text: string): number {
  const share = parsePercent(text, "sample");
  if (share > 0) return share * 100;
  throw new AshlarError(ErrorCode.Usage, "sample: expected more than 0%");
}

function parseBudget(text: string): { readonly ms?: number; readonly bytes?: number } {
  // Every duration has a unit that is no unit of size, but for m, which is minutes: megabytes are MiB.
  try {
    return { ms: parseDuration(text, "budget") };
  } catch {
    return { bytes: parseSize(text, "budget") };
  }
}

async function finished(
  engine: Engine,
  include: (version: VersionRecord) => boolean,
): Promise<VersionUid[]> {
  const uids: VersionUid[] = [];
  for await (const version of listVersions(engine.kv)) {
    if (version.state !== "incomplete" && include(version)) uids.push(version.uid);
  }
  return uids;
}

async function runScrub(
  engine: Engine,
  options: ScrubCommandOptions,
  versions: readonly VersionUid[] | undefined,
): Promise<ScrubResult> {
  const { context } = engine;
  const { repo, upkeep } = await engine.coordinator();
  const counter = startCounter(context, "verifying");
  try {
    return await upkeep.scrub({
      deep: options.deep === true,
      signal: context.signal,
      onProgress: counter.show,
      ...(versions === undefined ? {} : { versions }),
      ...(options.storage === undefined
        ? {}
        : { storages: options.storage.map((name) => repo.storages.byName(name).id) }),
      ...(options.sample === undefined ? {} : { samplePercent: options.sample }),
      ...(options.budget === undefined ? {} : { budget: options.budget }),
    });
  } finally {
    counter.stop();
  }
}

async function compare(engine: Engine, uid: VersionUid, url: string): Promise<SourceComparison> {
  const { context, kv } = engine;
  const { compareSource } = await import("#services/coordinator/compare-source.ts");
  const { openSource } = await import("#lib/drivers/sources.ts");
  const version = await kv.read((reader) => requireVersion(reader, uid));
  const repo = await engine.repository();
  const source = await openSource(absoluteDevice(url, context.cwd), { frozen: false });
  const bar = startProgressBar(context);
  try {
    return await compareSource(repo, version, source, {
      signal: context.signal,
      onProgress: bar.show,
    });
  } finally {
    bar.stop();
    await source.close();
  }
}

function report(
  engine: Engine,
  result: ScrubResult,
  comparison: SourceComparison | undefined,
): void {
  const { context, nameOf } = engine;
  const { output } = context;
  const storages = result.storages.map(({ storage, reason, ...counts }) => ({
    name: nameOf(storage),
    ...counts,
    ...(reason === undefined ? {} : { reason }),
  }));
  output.result(
    {
      storages,
      damaged: result.damaged.map(({ storage, ...each }) => ({
        ...each,
        storage: nameOf(storage),
      })),
      budgetSpent: result.budgetSpent,
      ...(comparison === undefined ? {} : { source: comparison }),
    },
    () => [
      ...storageTable(storages),
      ...damagedLines(engine, result.damaged),
      ...(result.budgetSpent ? ["the budget is spent; the next scrub goes on from here"] : []),
      ...(comparison === undefined ? [] : comparisonLines(comparison)),
    ],
  );
  complain(result, comparison);
}

function storageTable(
  storages: readonly {
    readonly name: string;
    readonly checked: number;
    readonly bytes: number;
    readonly damaged: number;
    readonly restored: number;
    readonly reason?: string;
  }[],
): string[] {
  const right = "right" as const;
  return formatTable(
    [
      { head: "storage" },
      { head: "verified", align: right },
      { head: "bytes", align: right },
      { head: "damaged", align: right },
      { head: "good again", align: right },
      { head: "" },
    ],
    storages.map((each) => [
      each.name,
      String(each.checked),
      formatSize(each.bytes),
      String(each.damaged),
      String(each.restored),
      each.reason ?? "",
    ]),
  );
}

function damagedLines(engine: Engine, damaged: readonly DamagedObject[]): string[] {
  const lines = damaged.slice(0, DAMAGED_SHOWN).map((each) => {
    const where = each.versions
      .map(({ uid, offsets, more }) => `${uid} at offset ${offsets.join(", ")}${more ? ", …" : ""}`)
      .join("; ");
    return (
      `damaged: ${each.kind} ${each.id} at ${engine.nameOf(each.storage)}: ${each.reason}` +
      `${where === "" ? "" : `; in ${where}`}; ${each.healed ? "healed" : "NOT healed"}`
    );
  });
  if (damaged.length > DAMAGED_SHOWN) lines.push(`and ${damaged.length - DAMAGED_SHOWN} more`);
  return lines;
}

function comparisonLines({ uid, differing, bytesCompared }: SourceComparison): string[] {
  return [
    `compared ${formatSize(bytesCompared)} of ${uid} with the source`,
    ...differing
      .slice(0, DAMAGED_SHOWN)
      .map(({ offset, length }) => `differs: ${length} bytes at offset ${offset}`),
  ];
}

function complain(result: ScrubResult, comparison: SourceComparison | undefined): void {
  const damaged = result.storages.reduce((sum, each) => sum + each.damaged, 0);
  const healed = result.damaged.filter((each) => each.healed).length;
  if (damaged > 0) {
    throw new AshlarError(
      ErrorCode.Damaged,
      `${damaged} damaged objects were found; ${healed} are healed`,
      {
        remedy:
          healed === damaged
            ? "every version can be restored; look after the storage that they were found on"
            : "back the volumes up again: what their sources still have repairs the older versions as well",
      },
    );
  }
  if (comparison !== undefined && comparison.differing.length > 0) {
    throw new AshlarError(
      ErrorCode.Damaged,
      `${comparison.uid} differs from the source in ${comparison.differing.length} extents`,
      {
        remedy: "either the source has changed since, or the backup did not read what is there now",
      },
    );
  }
  const away = result.storages.find(({ reason }) => reason !== undefined);
  if (away !== undefined && result.storages.every(({ reason }) => reason !== undefined)) {
    throw new AshlarError(ErrorCode.Unavailable, `nothing could be verified: ${away.reason}`);
  }
}
