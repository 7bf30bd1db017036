// ashlar enforce: removes what retention rules do not keep, and says why.
import type { Command } from "commander";
import { decideRetention, type EnforceDecision } from "#services/coordinator/enforce-job.ts";
import { removeVersions, type FailedRemoval } from "#services/coordinator/remove-job.ts";
import { formatFields, formatTable } from "../output.ts";
import { prepareChange, putHeadsNow } from "../owed-heads.ts";
import type { Act } from "../program.ts";
import { confirm } from "../prompt.ts";
import { planDocument, planFields, planRemovalOf } from "../removal-plan.ts";
import { compileSelection } from "#services/coordinator/selection.ts";
import { formatDate } from "../version-document.ts";
import { withEngine } from "../with-engine.ts";

interface EnforceOptions {
  readonly dryRun?: boolean;
}

const HELP = `
RULES is a list such as latest3,hours24,days7,weeks4,months12,years2: the N youngest versions are kept,
then the oldest valid one of each hour, day, week, month and year as far back as the count says. FILTER
limits the command to some versions, as in \`ashlar ls\`; the rules count each volume for itself. Protected
and unfinished versions stay, and an invalid version is never the one that is kept. On a terminal the
command asks before it removes anything, unless --yes is given; in a script it does not.

Examples:
  ashlar enforce --dry-run latest3,days7,weeks4
  ashlar enforce days14,months6 'volume == "web"'`;

/** Adds the verb. */
export function addEnforce(program: Command, act: Act): void {
  program
    .command("enforce")
    .summary("remove what retention rules do not keep")
    .description(
      "Removes the versions that retention rules do not keep, and says of each why it stays or goes.",
    )
    .argument("<rules>", "what to keep")
    .argument("[filter]", "which versions the rules are about")
    .option("-n, --dry-run", "only tell what would go, and the bytes that would be freed")
    .addHelpText("after", HELP)
    .action(
      act(async (context, text: string, filter: string | undefined, options: EnforceOptions) => {
        const { parseRetentionRules } = await import("#lib/core/retention.ts");
        const rules = parseRetentionRules(text);
        await withEngine(context, async (engine) => {
          const { kv, ports, nameOf } = engine;
          const nowMs = ports.clock.now();
          const include = await compileSelection(filter, nameOf, nowMs);
          const decisions = await decideRetention(kv, rules, include, nowMs);
          for (const { uid, reason, warning } of decisions) {
            if (warning) context.log.warn(`${uid}: ${reason}`);
          }
          const uids = decisions.filter(({ keep }) => !keep).map(({ uid }) => uid);
          const { output } = context;
          if (options.dryRun === true) {
            const plan = await planRemovalOf(engine, uids);
            output.result(
              {
                dryRun: true,
                versions: decisions.map((each) => describe(each, [])),
                ...planDocument(engine, plan),
              },
              () => [...table(decisions), ...formatFields(planFields(engine, plan))],
            );
            return;
          }
          if (uids.length > 0) await prepareChange(engine);
          if (uids.length > 0)
            await confirm(context, `Remove ${uids.length} of ${decisions.length} versions?`);
          const { removed, failed } = await removeVersions(kv, uids, context.signal);
          const headsOwed = removed.length === 0 ? 0 : await putHeadsNow(engine);
          output.result(
            {
              dryRun: false,
              versions: decisions.map((each) => describe(each, failed)),
              removed,
              headsOwed,
            },
            () => table(decisions),
          );
          if (removed.length > 0) output.note("`ashlar gc` frees the space");
          if (failed[0] !== undefined) throw failed[0].error;
        });
      }),
    );
}

function describe(decision: EnforceDecision, failed: readonly FailedRemoval[]): object {
  const { uid, volume, keep, reason, createdMs } = decision;
  const failure = failed.find((each) => each.uid === uid);
  return {
    uid,
    volume,
    date: new Date(createdMs).toISOString(),
    keep,
    reason,
    ...(failure === undefined ? {} : { failed: failure.error.message }),
  };
}

function table(decisions: readonly EnforceDecision[]): string[] {
  if (decisions.length === 0) return ["no versions"];
  return formatTable(
    [
      { head: "date" },
      { head: "uid" },
      { head: "volume" },
      { head: "verdict" },
      { head: "reason" },
    ],
    decisions.map(({ createdMs, uid, volume, keep, reason }) => [
      formatDate(createdMs),
      uid,
      volume,
      keep ? "stays" : "goes",
      reason,
    ]),
  );
}
