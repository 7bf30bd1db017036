// ashlar storage drain and remove: storages that versions leave, and that are there no more.
import type { Command } from "commander";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatSize } from "#lib/core/size.ts";
import type { Engine } from "../compose.ts";
import type { Drained, Loss } from "../leave-storage.ts";
import { collect } from "../option-values.ts";
import type { Act } from "../program.ts";
import { withEngine } from "../with-engine.ts";

const DRAIN_HELP = `
The storage gets nothing new from now on. Each version leaves it once as many of its other storages have it
whole as its policy wants; --to gives versions other storages first. It can be stopped and given again.
\`ashlar storage enable\` puts the storage in use again; what has left it stays away.

Examples:
  ashlar storage drain old --to new
  ashlar storage drain old`;

const REMOVE_HELP = `
Without --lost the storage is drained first, and removed when nothing is left there. What remains on it (its
marker, keys and stamps) can be deleted by hand.

With --lost it is given up as it is, whether it is there or not: its identity never counts again, versions make
do with their other storages, and what only it had is lost. --dry-run tells what that is.

Examples:
  ashlar storage remove old
  ashlar storage remove burnt --lost --dry-run
  ashlar storage remove burnt --lost`;

interface RemoveOptions {
  readonly lost?: boolean;
  readonly dryRun?: boolean;
  readonly to?: string[];
}

/** Adds the verbs. */
export function addLeaving(storage: Command, act: Act): void {
  storage
    .command("drain")
    .summary("empty a storage")
    .description("Lets versions leave a storage, and deletes there what no version needs any more.")
    .argument("<name>", "a storage of the repository")
    .option("--to <name>", "make its versions go to this storage first (repeatable)", collect)
    .addHelpText("after", DRAIN_HELP)
    .action(
      act(async (context, name: string, { to = [] }: { readonly to?: string[] }) => {
        await withEngine(context, async (engine) => {
          const { drainStorage } = await import("../leave-storage.ts");
          const drained = await drainStorage(engine, name, to);
          context.output.result(drained, () => drainedLines(drained));
          requireEmpty(drained);
        });
      }),
    );
  storage
    .command("remove")
    .summary("remove a storage, or give up a lost one")
    .description(
      "Empties a storage and takes it out of the repository, or gives up one that is lost.",
    )
    .argument("<name>", "a storage of the repository")
    .option("--lost", "give it up with all that only it has")
    .option("--to <name>", "make its versions go to this storage first (repeatable)", collect)
    .option("-n, --dry-run", "only tell what would be lost, with --lost")
    .addHelpText("after", REMOVE_HELP)
    .action(
      act(async (context, name: string, options: RemoveOptions) => {
        checkOptions(options);
        await withEngine(context, (engine) =>
          options.lost === true ? giveUp(engine, name, options) : remove(engine, name, options),
        );
      }),
    );
}

function checkOptions({ lost, dryRun, to }: RemoveOptions): void {
  const problem =
    lost === true && to !== undefined
      ? "from a storage that is lost nothing goes to another one: --to and --lost exclude one another"
      : dryRun === true && lost !== true
        ? "--dry-run needs --lost"
        : undefined;
  if (problem === undefined) return;
  throw new AshlarError(ErrorCode.Usage, problem, { remedy: "see `ashlar help storage remove`" });
}

async function remove(engine: Engine, name: string, { to = [] }: RemoveOptions): Promise<void> {
  const { drainStorage, forgetAgain, retireEmpty } = await import("../leave-storage.ts");
  if (await forgetAgain(engine, name)) {
    engine.context.output.result({ name, removed: true }, () => [`removed storage ${name}`]);
    return;
  }
  const drained = await drainStorage(engine, name, to);
  if (drained.left.length === 0) await retireEmpty(engine, name);
  const removed = drained.left.length === 0;
  engine.context.output.result({ ...drained, removed }, () => [
    ...drainedLines(drained),
    ...(removed ? [`removed storage ${name}`] : []),
  ]);
  requireEmpty(drained);
}

async function giveUp(engine: Engine, name: string, { dryRun }: RemoveOptions): Promise<void> {
  const { giveUp: giveUpStorage, lossOf } = await import("../leave-storage.ts");
  const isDry = dryRun === true;
  const loss = isDry ? await lossOf(engine, name) : await giveUpStorage(engine, name);
  engine.context.output.result({ dryRun: isDry, ...loss }, () => lossLines(loss, isDry));
}

function drainedLines({ name, versions, copies, bytes, kept, left }: Drained): string[] {
  return [
    `${versions} versions have left ${name}, and ${copies} copies (${formatSize(bytes)})`,
    ...kept.map(({ uid, reason }) => `${uid} stays: ${reason}`),
    ...left.map((each) => `not empty: ${each}`),
  ];
}

function lossLines({ name, lost, belowQuorum }: Loss, isDry: boolean): string[] {
  return [
    isDry ? `without ${name}:` : `gave up storage ${name}`,
    `lost: ${lost.length === 0 ? "no version" : lost.join(", ")}`,
    `at fewer storages than they want: ${belowQuorum.length === 0 ? "no version" : belowQuorum.join(", ")}`,
  ];
}

function requireEmpty({ name, left }: Drained): void {
  if (left.length === 0) return;
  throw new AshlarError(ErrorCode.TryAgain, `storage ${name} is not empty: ${left.join("; ")}`, {
    remedy: "give the command again when that is over",
  });
}
