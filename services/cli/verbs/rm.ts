// ashlar rm: removes versions.
import type { Command } from "commander";
import { checkRemovable, removeVersions } from "#services/coordinator/remove-job.ts";
import { prepareChange, putHeadsNow } from "../owed-heads.ts";
import type { Act } from "../program.ts";
import { confirm } from "../prompt.ts";
import { planDocument, planFields, planRemovalOf } from "../removal-plan.ts";
import { resolveVersions } from "../selection.ts";
import { formatFields } from "../output.ts";
import { withEngine } from "../with-engine.ts";

interface RmOptions {
  readonly dryRun?: boolean;
}

const HELP = `
All versions are looked at first: where one is protected, none is removed. On a terminal the command asks
before it removes anything, unless --yes is given; in a script it does not. The space is freed by
\`ashlar gc\`.

Examples:
  ashlar rm web-x3k2p9
  ashlar rm --dry-run web-x3k2p9 web-b71sd0
  ashlar rm --yes web@latest`;

/** Adds the verb. */
export function addRm(program: Command, act: Act): void {
  program
    .command("rm")
    .summary("remove versions")
    .description("Removes versions. What only they refer to is collected by `ashlar gc`.")
    .argument("<uids...>", "versions")
    .option("-n, --dry-run", "only tell what would go, and the bytes that would be freed")
    .addHelpText("after", HELP)
    .action(
      act(async (context, references: string[], options: RmOptions) => {
        await withEngine(context, async (engine) => {
          const { kv } = engine;
          const { output } = context;
          const uids = await resolveVersions(kv, references);
          await checkRemovable(kv, uids);
          if (options.dryRun === true) {
            const plan = await planRemovalOf(engine, uids);
            output.result({ dryRun: true, uids, ...planDocument(engine, plan) }, () => [
              ...uids.map((uid) => `would remove ${uid}`),
              ...formatFields(planFields(engine, plan)),
            ]);
            return;
          }
          // Before anything goes: heads are sealed, and a wrong key must show now.
          await prepareChange(engine);
          await confirm(context, `Remove ${uids.join(", ")}?`);
          const { removed, failed } = await removeVersions(kv, uids, context.signal);
          const owed = await putHeadsNow(engine);
          output.result(
            {
              removed,
              failed: failed.map(({ uid, error }) => ({ uid, reason: error.message })),
              headsOwed: owed,
            },
            () => removed.map((uid) => `removed ${uid}`),
          );
          output.note("`ashlar gc` frees the space");
          if (failed[0] !== undefined) throw failed[0].error;
        });
      }),
    );
}
