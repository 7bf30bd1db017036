// ashlar usage: what storages hold, and what volumes and versions cost.
import type { Command } from "commander";
import type { VersionUid } from "#lib/core/ids.ts";
import { formatSize } from "#lib/core/size.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import { byVolumeAndDate } from "#services/coordinator/listing.ts";
import { listVersions } from "#lib/repository/transactions/version.ts";
import {
  measureStorages,
  VersionMeter,
  type StorageUsage,
  type VersionUsage,
} from "#services/coordinator/usage.ts";
import type { Engine } from "../compose.ts";
import { formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { freedBy } from "../removal-plan.ts";
import { compileSelection } from "#services/coordinator/selection.ts";
import { formatDate } from "../version-document.ts";
import { waitingDocument } from "../waiting-trash.ts";
import { withEngine } from "../with-engine.ts";

interface VolumeUsage {
  readonly volume: string;
  readonly versions: number;
  readonly virtualBytes: number;
  readonly dataBytes: number;
  readonly uniqueBytes: number;
  readonly uniqueStoredBytes: number;
}

const HELP = `
virtual   size of the device
data      what of it is not zero
unique    data that nothing else has: it goes when the version (or the volume) goes
shared    the rest of the data
frees     sealed bytes, over all storages, that would be freed with it
locked    what nothing needs any more, and a storage with object lock keeps until then

Examples:
  ashlar usage
  ashlar usage 'volume like "db%"'
  ashlar usage --json`;

/** Adds the verb. */
export function addUsage(program: Command, act: Act): void {
  program
    .command("usage")
    .summary("show what storages hold and versions cost")
    .description(
      "Shows what the storages hold, and what volumes and versions cost, from the metadata.",
    )
    .argument("[filter]", "which versions")
    .addHelpText("after", HELP)
    .action(
      act(async (context, filter: string | undefined) => {
        await withEngine(context, async (engine) => {
          const { kv, nameOf, ports } = engine;
          const include = await compileSelection(filter, nameOf, ports.clock.now());
          const chosen: VersionRecord[] = [];
          for await (const version of listVersions(kv)) {
            if (version.state !== "incomplete" && include(version)) chosen.push(version);
          }
          chosen.sort(byVolumeAndDate);
          const storages = (await measureStorages(kv, context.signal)).toSorted((a, b) =>
            nameOf(a.storage) < nameOf(b.storage) ? -1 : 1,
          );
          const versions = await measureVersions(engine, chosen);
          const volumes = await measureVolumes(engine, versions);
          context.output.result(
            {
              storages: storages.map(({ storage, waiting, ...usage }) => ({
                name: nameOf(storage),
                ...usage,
                waiting: waitingDocument(waiting),
              })),
              volumes,
              versions,
            },
            () => [
              ...storageTable(engine, storages),
              "",
              ...volumeTable(volumes),
              "",
              ...versionTable(versions),
            ],
          );
        });
      }),
    );
}

async function measureVersions(
  engine: Engine,
  versions: readonly VersionRecord[],
): Promise<VersionUsage[]> {
  const meter = new VersionMeter(engine.kv);
  const out: VersionUsage[] = [];
  for (const version of versions) {
    const freed = await freedBy(engine, [version.uid]);
    out.push(await meter.measure(version, freed, engine.context.signal));
  }
  return out;
}

async function measureVolumes(
  engine: Engine,
  versions: readonly VersionUsage[],
): Promise<VolumeUsage[]> {
  const out: VolumeUsage[] = [];
  for (const [volume, group] of Map.groupBy(versions, (version) => version.volume)) {
    const sum = (count: (version: VersionUsage) => number): number =>
      group.reduce((total, version) => total + count(version), 0);
    const uids: VersionUid[] = group.map(({ uid }) => uid);
    const freed = await freedBy(engine, uids);
    out.push({
      volume,
      versions: group.length,
      virtualBytes: sum((version) => version.virtualBytes),
      dataBytes: sum((version) => version.dataBytes),
      uniqueBytes: freed.blockBytes,
      uniqueStoredBytes: freed.storedBytes,
    });
  }
  return out;
}

const right = "right" as const;

function storageTable(engine: Engine, storages: readonly StorageUsage[]): string[] {
  return formatTable(
    [
      { head: "storage" },
      { head: "blocks", align: right },
      { head: "nodes", align: right },
      { head: "bytes", align: right },
      { head: "owed", align: right },
      { head: "bad", align: right },
      { head: "locked", align: right },
      { head: "until" },
    ],
    storages.map(({ storage, blocks, nodes, bytes, owed, bad, waiting }) => [
      engine.nameOf(storage),
      String(blocks),
      String(nodes),
      formatSize(bytes),
      String(owed),
      String(bad),
      waiting.objects === 0 ? "" : formatSize(waiting.bytes),
      waiting.lastMs === undefined ? "" : formatDate(waiting.lastMs),
    ]),
  );
}

function volumeTable(volumes: readonly VolumeUsage[]): string[] {
  return formatTable(
    [
      { head: "volume" },
      { head: "versions", align: right },
      { head: "virtual", align: right },
      { head: "data", align: right },
      { head: "unique", align: right },
      { head: "frees", align: right },
    ],
    volumes.map((usage) => [
      usage.volume,
      String(usage.versions),
      formatSize(usage.virtualBytes),
      formatSize(usage.dataBytes),
      formatSize(usage.uniqueBytes),
      formatSize(usage.uniqueStoredBytes),
    ]),
  );
}

function versionTable(versions: readonly VersionUsage[]): string[] {
  return formatTable(
    [
      { head: "version" },
      { head: "virtual", align: right },
      { head: "data", align: right },
      { head: "unique", align: right },
      { head: "shared", align: right },
      { head: "frees", align: right },
    ],
    versions.map((usage) => [
      usage.uid,
      formatSize(usage.virtualBytes),
      formatSize(usage.dataBytes),
      formatSize(usage.uniqueBytes),
      formatSize(usage.sharedBytes),
      formatSize(usage.uniqueStoredBytes),
    ]),
  );
}
