// ashlar kv: where the metadata are.
import { resolve } from "node:path";
import type { Command } from "commander";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatSize } from "#lib/core/size.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { Config } from "#lib/process/config-file.ts";
import type { MetadataPlace } from "#lib/process/metadata-store.ts";
import type { CopyResult, NamedStore } from "#services/coordinator/copy-metadata.ts";
import type { CommandContext } from "../context.ts";
import type { Act } from "../program.ts";
import { readConfig } from "../with-engine.ts";

interface CopyCommandOptions {
  readonly clusterFile: string;
  readonly prefix: string;
  readonly cancel?: boolean;
}

const PLACES = ["foundationdb", "lmdb"];
const PREFIX = /^[-A-Za-z0-9_]{1,64}$/;
/** Agents elsewhere look every ten seconds whether the metadata are still theirs. */
const QUIESCE_MS = 15_000;

const HELP = `
PLACE is foundationdb, a part of a cluster, or lmdb, the folder of the configuration. Everything is copied and
compared; from the beginning on nobody can use the old metadata, and the new ones only when all of them are
there. STOP EVERY AGENT AND COMMAND of the repository first: those that are seen to run are refused, and
agents elsewhere stop by themselves. A copy that was stopped is gone on with by running it again, or given up
with --cancel. Afterwards the configuration has to name the new place: the command says how.

Examples:
  ashlar kv copy foundationdb --prefix main
  ashlar kv copy foundationdb --prefix main --cancel
  ashlar kv copy lmdb`;

/** Adds the verbs. */
export function addKv(program: Command, act: Act): void {
  const kv = program
    .command("kv")
    .summary("move the metadata to FoundationDB or back")
    .description("Moves the metadata between LMDB and FoundationDB.")
    .addHelpText("after", "\nExamples:\n  ashlar kv copy foundationdb --prefix main");
  kv.command("copy")
    .summary("move the metadata to another place")
    .description("Moves the metadata from where the configuration has them to another place.")
    .argument("<place>", PLACES.join(" or "))
    .option("--cluster-file <file>", "of the FoundationDB cluster", "/etc/foundationdb/fdb.cluster")
    .option("--prefix <name>", "tells repositories in one cluster apart", "ashlar")
    .option("--cancel", "give up a copy that did not come to its end")
    .addHelpText("after", HELP)
    .action(
      act(async (context, place: string, options: CopyCommandOptions) => {
        const config = await readConfig(context);
        const target = targetOf(context, config, place, options);
        await move(context, config, target, options.cancel === true);
      }),
    );
}

function targetOf(
  { cwd }: CommandContext,
  { metadata, foundationdb, file }: Config,
  place: string,
  { clusterFile, prefix }: CopyCommandOptions,
): MetadataPlace {
  if (!PLACES.includes(place)) {
    throw new AshlarError(
      ErrorCode.Usage,
      `place: expected ${PLACES.join(" or ")}, found ${place}`,
    );
  }
  if (!PREFIX.test(prefix)) {
    throw new AshlarError(
      ErrorCode.Usage,
      `--prefix: expected up to 64 letters, digits, - and _, found ${JSON.stringify(prefix)}`,
    );
  }
  if (place === "foundationdb") {
    return { metadata, foundationdb: { clusterFile: resolve(cwd, clusterFile), prefix } };
  }
  if (foundationdb !== undefined) return { metadata, foundationdb: undefined };
  throw new AshlarError(ErrorCode.Usage, `${file} names the LMDB already`, {
    remedy: "a copy begins where the configuration has the metadata now",
  });
}

async function move(
  context: CommandContext,
  config: Config,
  target: MetadataPlace,
  isCancel: boolean,
): Promise<void> {
  const { metadataUrl, openMetadataStore } = await import("#lib/process/metadata-store.ts");
  const { makeMetadataFolder, takeOwnLock } = await import("#lib/process/metadata-folder.ts");
  const { systemPorts } = await import("#lib/process/open-repository.ts");
  const { cancelCopy } = await import("#services/coordinator/copy-metadata.ts");
  const ports = systemPorts(context);
  await makeMetadataFolder(config.metadata);
  const { name: own, lock } = takeOwnLock(config.metadata);
  const stores: NamedStore[] = [];
  try {
    await refuseOthers(config.metadata, own);
    for (const place of [config, target]) {
      stores.push({ kv: await openMetadataStore(place, ports), url: metadataUrl(place) });
    }
    const [from, to] = stores as [NamedStore, NamedStore];
    if (from.url === to.url)
      throw new AshlarError(ErrorCode.Usage, `they are in ${to.url} already`);
    if (isCancel) {
      await cancelCopy(from, to);
      context.output.result({ inUse: from.url }, () => [`${from.url} is used again`]);
      return;
    }
    const copied = await copy(context, config, own, from, to);
    context.output.result({ from: from.url, to: to.url, ...copied }, () => [
      copied === undefined
        ? `the metadata were moved to ${to.url} before`
        : `moved ${copied.entries} entries (${formatSize(copied.bytes)}) to ${to.url}`,
      ...advice(config, target),
    ]);
  } finally {
    for (const { kv } of stores) await kv.close();
    lock.release();
  }
}

async function copy(
  context: CommandContext,
  { foundationdb, metadata }: Config,
  own: string,
  from: NamedStore,
  to: NamedStore,
): Promise<CopyResult | undefined> {
  const { setTimeout } = await import("node:timers/promises");
  const { copyMetadata } = await import("#services/coordinator/copy-metadata.ts");
  const { log, signal } = context;
  const quiesce = async (): Promise<void> => {
    // Whoever came between sees the mark, or is seen here.
    await refuseOthers(metadata, own);
    if (foundationdb === undefined) return;
    log.info(`waiting ${QUIESCE_MS / 1000} s for agents elsewhere to stop`);
    await setTimeout(QUIESCE_MS, undefined, { signal });
  };
  return copyMetadata(from, to, {
    random: systemRandom(),
    quiesce,
    signal,
    onProgress: (entries, phase) => log.debug(`${phase}: ${entries} entries`),
  });
}

async function refuseOthers(metadata: string, own: string): Promise<void> {
  const { countOtherProcesses } = await import("#lib/process/metadata-folder.ts");
  const others = await countOtherProcesses(metadata, own);
  if (others === 0) return;
  throw new AshlarError(
    ErrorCode.TryAgain,
    `${others} other ${others === 1 ? "process works" : "processes work"} with this repository`,
    { remedy: "stop them first: metadata are moved while nobody uses them" },
  );
}

/** What the configuration of every host has to say from now on. */
function advice({ file }: Config, { foundationdb }: MetadataPlace): string[] {
  if (foundationdb === undefined) return [`now remove the section foundationdb from ${file}`];
  const { clusterFile, prefix } = foundationdb;
  return [
    `now add to ${file}, and to the configurations of other hosts:`,
    `foundationdb: { clusterFile: ${JSON.stringify(clusterFile)}, prefix: ${prefix} }`,
  ];
}
