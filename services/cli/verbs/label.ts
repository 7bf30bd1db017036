// ashlar label: sets and removes labels.
import type { Command } from "commander";
import { parseLabel } from "#lib/core/uid.ts";
import { resolveVersion } from "#services/coordinator/listing.ts";
import { changeVersion } from "#lib/repository/transactions/version.ts";
import { prepareChange, putHeadsNow } from "../owed-heads.ts";
import type { Act } from "../program.ts";
import { withEngine } from "../with-engine.ts";

const HELP = `
NAME=VALUE sets a label, NAME- removes it. Removing one that is not there is fine.

Examples:
  ashlar label web@latest env=prod ticket=4711
  ashlar label web-x3k2p9 ticket-`;

/** Adds the verb. */
export function addLabel(program: Command, act: Act): void {
  program
    .command("label")
    .summary("set and remove labels of a version")
    .description("Sets and removes labels of a version.")
    .argument("<uid>", "version")
    .argument("<labels...>", "NAME=VALUE or NAME-")
    .addHelpText("after", HELP)
    .action(
      act(async (context, reference: string, texts: string[]) => {
        const changes = texts.map(parseLabel);
        await withEngine(context, async (engine) => {
          const uid = await resolveVersion(engine.kv, reference);
          await prepareChange(engine);
          const labels = Object.fromEntries(
            changes.map((change) => [
              change.name,
              change.kind === "set" ? change.value : undefined,
            ]),
          );
          const version = await changeVersion(engine.kv, uid, { labels });
          const headsOwed = await putHeadsNow(engine);
          context.output.result({ uid, labels: version.labels, headsOwed }, () =>
            Object.entries(version.labels).map(([name, value]) => `${name}=${value}`),
          );
        });
      }),
    );
}
