// ashlar fsck: walks all metadata and all storages, and says what is not as it must be.
import type { Command } from "commander";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatFields, formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { confirm } from "../prompt.ts";
import { withEngine } from "../with-engine.ts";

interface FsckCommandOptions {
  readonly repair?: boolean;
  readonly storages?: boolean;
}

/** Findings that are listed for people; --json lists more. */
const FINDINGS_SHOWN = 100;

const HELP = `
It shares no code with what makes, changes and collects records, so that one cannot hide a mistake of the
other. --repair mends what can be mended without touching good data. The exit code is 65 when something
stays wrong. Damage of objects is the business of \`ashlar scrub\`.

Examples:
  ashlar fsck
  ashlar fsck --no-storages
  ashlar fsck --repair`;

/** Adds the verb. */
export function addFsck(program: Command, act: Act): void {
  program
    .command("fsck")
    .summary("check the metadata against themselves and the storages")
    .description(
      "Checks every record of the metadata, and what the storages have, against each other.",
    )
    .option("--repair", "mend what can be mended without touching good data")
    .option("--no-storages", "do not list the storages")
    .addHelpText("after", HELP)
    .action(
      act(async (context, options: FsckCommandOptions) => {
        await withEngine(context, async (engine) => {
          const { runFsck } = await import("#services/coordinator/fsck/fsck.ts");
          const { output } = context;
          const repair = options.repair === true;
          const repo = await engine.repository();
          if (repair) await confirm(context, "Repair the metadata?");
          const result = await runFsck(repo, {
            repair,
            storages: options.storages !== false,
            signal: context.signal,
          });
          output.result(result, () => [
            ...findings(result.findings),
            ...result.skipped.map(
              ({ storage, reason }) =>
                `storage ${engine.nameOf(storage)} was not looked at: ${reason}`,
            ),
            ...formatFields(
              Object.entries(result.counts).map(
                ([name, count]) => [words(name), String(count)] satisfies [string, string],
              ),
            ),
          ]);
          if (result.unrepairedCount === 0) {
            output.note(result.findingCount === 0 ? "no problems" : "all problems were repaired");
            return;
          }
          throw new AshlarError(
            ErrorCode.Damaged,
            `${result.unrepairedCount} problems were found${repair ? " that could not be repaired" : ""}`,
            {
              remedy: repair
                ? "`ashlar rebuild --from URL` takes over what a storage still knows"
                : "`ashlar fsck --repair` mends what can be mended",
            },
          );
        });
      }),
    );
}

function findings(
  all: readonly {
    readonly invariant: string;
    readonly what: string;
    readonly where: string;
    readonly repaired: boolean;
  }[],
): string[] {
  if (all.length === 0) return [];
  const lines = formatTable(
    [{ head: "problem of" }, { head: "where" }, { head: "what" }, { head: "repaired" }],
    all
      .slice(0, FINDINGS_SHOWN)
      .map(({ invariant, where, what, repaired }) => [
        invariant,
        where,
        what,
        repaired ? "yes" : "no",
      ]),
  );
  if (all.length > FINDINGS_SHOWN)
    lines.push(`and ${all.length - FINDINGS_SHOWN} more; --json lists them`);
  return [...lines, ""];
}

/** `invalidVersions` as words. */
function words(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
