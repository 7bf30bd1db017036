// ashlar replicate: gives storages what they are owed.
import type { Command } from "commander";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatSize } from "#lib/core/size.ts";
import { collect } from "../option-values.ts";
import { formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { startCounter } from "../progress-bar.ts";
import { withEngine } from "../with-engine.ts";

interface ReplicateOptions {
  readonly storage?: string[];
}

interface ReplicateOutcome {
  readonly name: string;
  readonly copied: number;
  readonly bytes: number;
  readonly owed: number;
  readonly headsOwed: number;
  readonly reason: string | undefined;
}

const HELP = `
What a storage could not take while it was away, or was added later, is copied from another storage, never
from the source, and verified on the way. Every backup does this for its own storages at its end.

Examples:
  ashlar replicate
  ashlar replicate --storage offsite`;

/** Adds the verb. */
export function addReplicate(program: Command, act: Act): void {
  program
    .command("replicate")
    .summary("give storages what they are owed")
    .description(
      "Copies to storages what they are owed, from the others, and puts the heads that wait for it.",
    )
    .option("--storage <name>", "only this storage (repeatable)", collect)
    .addHelpText("after", HELP)
    .action(
      act(async (context, options: ReplicateOptions) => {
        await withEngine(context, async (engine) => {
          const { upkeep, repo } = await engine.coordinator();
          const names = options.storage ?? repo.storages.list().map(({ name }) => name);
          const outcomes: ReplicateOutcome[] = [];
          const counter = startCounter(context, "copying");
          try {
            for (const name of names) {
              const { id } = repo.storages.byName(name);
              const filled = await upkeep.fill(id, {
                signal: context.signal,
                onProgress: counter.show,
              });
              const [heads] = await upkeep.putHeads({ storage: id }, { signal: context.signal });
              outcomes.push({
                name,
                copied: filled.filled,
                bytes: filled.bytes,
                owed: filled.owed,
                headsOwed: heads?.owed ?? 0,
                reason: filled.reason ?? heads?.reason,
              });
            }
          } finally {
            counter.stop();
          }
          context.output.result({ storages: outcomes }, () =>
            formatTable(
              [
                { head: "storage" },
                { head: "copied", align: "right" },
                { head: "bytes", align: "right" },
                { head: "still owed", align: "right" },
                { head: "heads owed", align: "right" },
                { head: "" },
              ],
              outcomes.map((each) => [
                each.name,
                String(each.copied),
                formatSize(each.bytes),
                String(each.owed),
                String(each.headsOwed),
                each.reason ?? "",
              ]),
            ),
          );
          const behind = outcomes.filter(({ owed, headsOwed }) => owed + headsOwed > 0);
          if (behind.length === 0) return;
          throw new AshlarError(
            ErrorCode.Unavailable,
            `still owed: ${behind.map(({ name, reason }) => `${name} (${reason ?? "later"})`).join(", ")}`,
            { remedy: "give the command again when the storages are there" },
          );
        });
      }),
    );
}
