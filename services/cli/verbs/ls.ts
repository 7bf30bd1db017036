// ashlar ls: the versions, and what each is worth.
import type { Command } from "commander";
import { formatDuration, formatSize, formatSizeExact } from "#lib/core/size.ts";
import { listPlacedVersions, type ListedVersion } from "#services/coordinator/listing.ts";
import { formatTable, type Column } from "../output.ts";
import type { StorageNames } from "#services/coordinator/selection.ts";
import type { Act } from "../program.ts";
import { compileSelection } from "#services/coordinator/selection.ts";
import { formatDate, versionDocument } from "../version-document.ts";
import { withEngine } from "../with-engine.ts";

interface LsOptions {
  readonly labels?: boolean;
  readonly stats?: boolean;
}

const HELP = `
FILTER compares uid, volume, snapshot, date, size, block_size, status, protected, storage, labels["NAME"],
bytes_read, bytes_written, bytes_deduplicated, bytes_sparse and duration with ==, !=, <, <=, >, >= and
like, joined by and, or, not and parentheses. Dates are absolute or relative ("2 weeks ago"), sizes take
units (10GiB).

The column \`restorable\` tells whether as many storages as the quorum asks for can restore the version
alone; \`complete at\` names all that can.

Examples:
  ashlar ls
  ashlar ls 'volume == "web" and date > "1 week ago"'
  ashlar ls --stats 'status != "valid" or not protected'
  ashlar ls --json 'labels["env"] == "prod"'`;

/** Adds the verb. */
export function addLs(program: Command, act: Act): void {
  program
    .command("ls")
    .summary("list versions")
    .description("Lists the versions that FILTER matches, or all, sorted by volume and date.")
    .argument("[filter]", "which versions")
    .option("-l, --labels", "show labels")
    .option("-s, --stats", "show what each backup read and stored")
    .addHelpText("after", HELP)
    .action(
      act(async (context, filter: string | undefined, options: LsOptions) => {
        await withEngine(context, async (engine) => {
          const { kv, nameOf, ports } = engine;
          const include = await compileSelection(filter, nameOf, ports.clock.now());
          const versions = await listPlacedVersions(kv, include);
          const { output } = context;
          output.result({ versions: versions.map((each) => versionDocument(each, nameOf)) }, () =>
            versions.length === 0
              ? []
              : formatTable(
                  columns(options),
                  versions.map((each) => row(each, nameOf, options)),
                  output.options.color,
                ),
          );
        });
      }),
    );
}

function columns(options: LsOptions): Column[] {
  const right = "right" as const;
  return [
    { head: "date" },
    { head: "uid" },
    { head: "volume" },
    { head: "snapshot" },
    { head: "size", align: right },
    { head: "block", align: right },
    { head: "status" },
    { head: "restorable" },
    { head: "complete at" },
    { head: "protected" },
    ...(options.stats === true
      ? [
          { head: "read", align: right },
          { head: "new", align: right },
          { head: "known", align: right },
          { head: "sparse", align: right },
          { head: "stored", align: right },
          { head: "duration", align: right },
        ]
      : []),
    ...(options.labels === true ? [{ head: "labels" }] : []),
  ];
}

function row(listed: ListedVersion, nameOf: StorageNames, options: LsOptions): string[] {
  const { version, restorable, completeAt } = listed;
  const { statistics } = version;
  const size = (bytes: number | undefined): string =>
    bytes === undefined ? "" : formatSize(bytes);
  return [
    formatDate(version.createdMs),
    version.uid,
    version.volume,
    version.snapshot,
    version.state === "incomplete" ? "" : formatSize(version.sizeBytes),
    formatSizeExact(version.blockBytes),
    version.state,
    restorable ? "yes" : "no",
    completeAt.map(nameOf).join(","),
    version.protected ? "yes" : "",
    ...(options.stats === true
      ? [
          size(statistics?.bytesRead),
          size(statistics?.bytesNew),
          size(statistics?.bytesKnown),
          size(statistics?.bytesSparse),
          size(statistics?.bytesStored),
          statistics === undefined ? "" : formatDuration(statistics.durationMs),
        ]
      : []),
    ...(options.labels === true ? [labelText(version.labels)] : []),
  ];
}

function labelText(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join(" ");
}
