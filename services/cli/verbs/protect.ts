// ashlar protect, ashlar unprotect: whether a version may be removed.
import type { Command } from "commander";
import { changeVersion } from "#lib/repository/transactions/version.ts";
import { prepareChange, putHeadsNow } from "../owed-heads.ts";
import type { Act } from "../program.ts";
import { resolveVersions } from "../selection.ts";
import { withEngine } from "../with-engine.ts";

/** Adds both verbs. */
export function addProtect(program: Command, act: Act): void {
  add(program, act, {
    verb: "protect",
    value: true,
    summary: "keep versions from being removed",
    description:
      "Protects versions: neither `rm` nor `enforce` removes them until they are unprotected.",
  });
  add(program, act, {
    verb: "unprotect",
    value: false,
    summary: "let versions be removed again",
    description: "Takes the protection off versions.",
  });
}

function add(
  program: Command,
  act: Act,
  what: {
    readonly verb: string;
    readonly value: boolean;
    readonly summary: string;
    readonly description: string;
  },
): void {
  program
    .command(what.verb)
    .summary(what.summary)
    .description(what.description)
    .argument("<uids...>", "versions")
    .addHelpText(
      "after",
      `\nExamples:\n  ashlar ${what.verb} web@latest\n  ashlar ${what.verb} web-x3k2p9 db-0a9fq1`,
    )
    .action(
      act(async (context, references: string[]) => {
        await withEngine(context, async (engine) => {
          const uids = await resolveVersions(engine.kv, references);
          await prepareChange(engine);
          for (const uid of uids) await changeVersion(engine.kv, uid, { protected: what.value });
          const headsOwed = await putHeadsNow(engine);
          context.output.result({ uids, protected: what.value, headsOwed }, () =>
            uids.map((uid) => `${what.verb}ed ${uid}`),
          );
        });
      }),
    );
}
