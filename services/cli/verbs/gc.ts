// ashlar gc: collects what nobody refers to any more, and deletes it.
import type { Command } from "commander";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatSize } from "#lib/core/size.ts";
import type { GcResult } from "#services/coordinator/gc-job.ts";
import type { Engine } from "../compose.ts";
import { formatFields, formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { startCounter } from "../progress-bar.ts";
import { figuresText, planDocument } from "../removal-plan.ts";
import { waitingDocument, waitingLines } from "../waiting-trash.ts";
import { withEngine } from "../with-engine.ts";

interface GcOptions {
  readonly abandon?: boolean;
  readonly sweep?: boolean;
  readonly trim?: boolean;
  readonly dryRun?: boolean;
}

const HELP = `
Backups may run meanwhile: what they were told is known stays until they have used it. --abandon gives
unfinished backups up that nobody works on, and with them what only they hold; a running one is never
touched. --sweep compares each storage's listing with the metadata and deletes what no record names.
--trim looks through all copies for those that no policy asks for: a version was removed that went to more storages than
others that share its blocks.

Examples:
  ashlar gc
  ashlar gc --dry-run
  ashlar gc --abandon --sweep`;

/** Adds the verb. */
export function addGc(program: Command, act: Act): void {
  program
    .command("gc")
    .summary("delete what no version needs any more")
    .description(
      "Collects blocks that nothing refers to any more, and deletes their objects from the storages.",
    )
    .option("--abandon", "give up unfinished backups that nobody works on")
    .option("--sweep", "look for objects that no record names, too")
    .option("--trim", "look for copies that no policy asks for any more, too")
    .option("-n, --dry-run", "only tell what would go, and the bytes that would be freed")
    .addHelpText("after", HELP)
    .action(
      act(async (context, options: GcOptions) => {
        await withEngine(context, (engine) => runGc(engine, options));
      }),
    );
}

async function runGc(engine: Engine, options: GcOptions): Promise<void> {
  const { context, nameOf } = engine;
  const { output } = context;
  const { collectGarbage, planCollection } = await import("#services/coordinator/gc-job.ts");
  const coordinator = await engine.coordinator();
  const abandon = options.abandon === true;
  if (options.dryRun === true && options.trim === true) {
    throw new AshlarError(ErrorCode.Usage, "--dry-run does not tell what --trim would find", {
      remedy: "leave one of them out",
    });
  }
  if (options.dryRun === true) {
    const plan = await planCollection(coordinator, { abandon, signal: context.signal });
    output.result({ dryRun: true, ...planDocument(engine, plan) }, () => [
      `would free ${figuresText(engine, plan.total)}`,
    ]);
    return;
  }
  const counter = startCounter(context, "collecting");
  let result: GcResult;
  try {
    result = await collectGarbage(coordinator, {
      abandon,
      sweep: options.sweep === true,
      trim: options.trim === true,
      signal: context.signal,
      onProgress: ({ phase, bytesDone }) => counter.show(bytesDone, phase),
    });
  } finally {
    counter.stop();
  }
  const { storages, heldBy, ...collected } = result;
  output.result(
    {
      dryRun: false,
      ...collected,
      storages: storages.map(({ storage, refused, waiting, ...each }) => ({
        name: nameOf(storage),
        ...each,
        waiting: waitingDocument(waiting),
        refused: refused !== undefined,
      })),
      heldBy,
    },
    () => lines(engine, result),
  );
  const refused = storages.find((each) => each.refused !== undefined)?.refused;
  if (refused !== undefined) throw refused;
}

function lines(engine: Engine, result: GcResult): string[] {
  const right = "right" as const;
  return [
    ...formatFields([
      ["sessions ended", String(result.sessionsEnded)],
      ["blocks removed", String(result.blocksRemoved)],
      ["nodes removed", String(result.nodesRemoved)],
      ["copies that left storages", String(result.copiesLeft)],
      ["bytes freed", formatSize(result.bytesFreed)],
    ]),
    "",
    ...formatTable(
      [
        { head: "storage" },
        { head: "deleted", align: right },
        { head: "not deleted", align: right },
        { head: "orphans", align: right },
        { head: "filled", align: right },
        { head: "owed", align: right },
        { head: "" },
      ],
      result.storages.map((each) => [
        engine.nameOf(each.storage),
        String(each.deleted),
        String(each.deleteFailed),
        String(each.orphans),
        String(each.filled),
        String(each.owed),
        each.reasons.join("; "),
      ]),
    ),
    ...result.storages.flatMap(({ storage, extended = 0 }) =>
      extended === 0 ? [] : [`${engine.nameOf(storage)}: ${extended} locks were extended`],
    ),
    ...result.storages.flatMap(({ storage, waiting }) =>
      waitingLines(engine.nameOf(storage), waiting),
    ),
    ...result.heldBy.map(({ uid, reason }) => `held up by ${uid}: ${reason}`),
  ];
}
