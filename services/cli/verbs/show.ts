// ashlar show: all about one version.
import type { Command } from "commander";
import { formatSize, formatSizeExact } from "#lib/core/size.ts";
import type { CompressionChoice } from "#lib/ports/compute.ts";
import { resolveVersion, showVersion, type ListedVersion } from "#services/coordinator/listing.ts";
import { formatFields } from "../output.ts";
import type { StorageNames } from "#services/coordinator/selection.ts";
import type { Act } from "../program.ts";
import { formatDate, statisticsFields, versionDocument } from "../version-document.ts";
import { withEngine } from "../with-engine.ts";

const HELP = `
Examples:
  ashlar show web@latest
  ashlar show --json web-x3k2`;

/** Adds the verb. */
export function addShow(program: Command, act: Act): void {
  program
    .command("show")
    .summary("show a version")
    .description(
      "Shows all about a version: what it is, what its backup did, where it can be restored from.",
    )
    .argument("<uid>", "version")
    .addHelpText("after", HELP)
    .action(
      act(async (context, reference: string) => {
        await withEngine(context, async ({ kv, nameOf }) => {
          const listed = await showVersion(kv, await resolveVersion(kv, reference));
          context.output.result(versionDocument(listed, nameOf), () =>
            formatFields(fields(listed, nameOf)),
          );
        });
      }),
    );
}

function fields(listed: ListedVersion, nameOf: StorageNames): [string, string][] {
  const { version, restorable, completeAt, missingAt } = listed;
  const { policy, statistics } = version;
  return [
    ["uid", version.uid],
    ["volume", version.volume],
    ...(version.snapshot === "" ? [] : [["snapshot", version.snapshot] satisfies [string, string]]),
    ["date", formatDate(version.createdMs)],
    ["size", `${formatSize(version.sizeBytes)} (${version.sizeBytes} bytes)`],
    ["block size", formatSizeExact(version.blockBytes)],
    ["status", version.state],
    ["restorable", restorable ? "yes" : "no"],
    ["complete at", completeAt.length === 0 ? "no storage" : completeAt.map(nameOf).join(", ")],
    ...(missingAt.length === 0
      ? []
      : [["not yet at", missingAt.map(nameOf).join(", ")] satisfies [string, string]]),
    ["policy", `${policy.storages.map(nameOf).join(", ")}; quorum ${policy.quorum}`],
    ...(policy.prefer === undefined
      ? []
      : [["read first", policy.prefer.map(nameOf).join(", ")] satisfies [string, string]]),
    ...(policy.compression === undefined
      ? []
      : [["compression", compressionText(policy.compression)] satisfies [string, string]]),
    ["protected", version.protected ? "yes" : "no"],
    ["source", version.source],
    ["labels", labelLines(version.labels)],
    ...(version.root === undefined ? [] : [["root", version.root] satisfies [string, string]]),
    ...(statistics === undefined ? [] : statisticsFields(statistics)),
    ...version.warnings.map((warning) => ["warning", warning] satisfies [string, string]),
  ];
}

function compressionText({ name, level }: CompressionChoice): string {
  return name === "zstd" ? `zstd, level ${level}` : name;
}

function labelLines(labels: Readonly<Record<string, string>>): string {
  const entries = Object.entries(labels);
  return entries.length === 0
    ? "none"
    : entries.map(([name, value]) => `${name}=${value}`).join(", ");
}
