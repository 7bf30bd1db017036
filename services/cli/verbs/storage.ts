// ashlar storage: the places that backups go to.
import type { Command } from "commander";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatDuration } from "#lib/core/size.ts";
import type { Engine } from "../compose.ts";
import { formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { withEngine } from "../with-engine.ts";
import { addLeaving } from "./storage-leaving.ts";

interface ListedStorage {
  readonly name: string;
  readonly id: string | null;
  readonly site: string | null;
  /** Of its record; `not added` where the repository does not have it, `not configured` where this machine does not. */
  readonly state: string;
  readonly url: string | null;
  readonly available: boolean;
  readonly reason: string | null;
  /** For how long its objects are locked, in ms. */
  readonly lockMs: number | null;
}

const LS_HELP = `
A storage locks its objects where its option objectLockMode says so: with governance, whoever has a special
permission can delete them nevertheless; with compliance nobody can (docs/storages.md).

Examples:
  ashlar storage ls
  ashlar storage ls --json`;

const STATS_HELP = `
After \`ashlar key rotate\`, \`ashlar scrub --deep\` and \`ashlar gc\`, --keys tells whether anything is left under a
retired repository key. It asks for a few bytes of each object, also of those that are to be deleted.

Examples:
  ashlar storage stats
  ashlar storage stats offsite --json
  ashlar storage stats --keys`;

/** Adds the verbs. */
export function addStorage(program: Command, act: Act): void {
  const storage = program
    .command("storage")
    .summary("list, check, add and disable storages")
    .description(
      "Lists, measures, checks, adds, enables and disables the storages that backups go to.",
    )
    .addHelpText(
      "after",
      "\nExamples:\n  ashlar storage ls\n  ashlar storage stats offsite\n  ashlar storage add offsite=/mnt/nas/ashlar",
    );
  storage
    .command("ls")
    .summary("list storages")
    .description(
      "Lists the storages of the repository and of the configuration, and whether they are there.",
    )
    .addHelpText("after", LS_HELP)
    .action(
      act(async (context) => {
        await withEngine(context, async (engine) => {
          const storages = await listStorages(engine);
          context.output.result({ storages }, () => storageTable(storages));
        });
      }),
    );
  storage
    .command("stats")
    .summary("count what is on storages")
    .description(
      "Counts the objects that are on the storages, by listing them, and tells since when all were verified.",
    )
    .argument("[name]", "only this storage")
    .option("--keys", "count blocks, nodes and heads by repository key, reading the start of each")
    .addHelpText("after", STATS_HELP)
    .action(
      act(async (context, name: string | undefined, { keys }: { readonly keys?: boolean }) => {
        await withEngine(context, async (engine) => {
          const { measureStorages, statsTable } = await import("../storage-stats.ts");
          const stats = await measureStorages(engine, name, keys === true);
          context.output.result({ storages: stats }, () => statsTable(stats));
        });
      }),
    );
  storage
    .command("add")
    .summary("add a storage to the repository")
    .description(
      "Makes a storage and adds it to the repository. With =URL it is added to the configuration, too.",
    )
    .argument("<name[=url]>", "a storage of the configuration, or a new one")
    .addHelpText(
      "after",
      "\nNew versions go to it as the configuration says; versions that there are stay where they are.\n\nExamples:\n  ashlar storage add offsite\n  ashlar storage add offsite=/mnt/nas/ashlar",
    )
    .action(
      act(async (context, text: string) => {
        const { addToRepository } = await import("../add-storage.ts");
        const added = await addToRepository(context, text);
        context.output.result(added, () => [`added storage ${added.name} (${added.id})`]);
      }),
    );
  addCheck(storage, act);
  addStates(storage, act);
  addLeaving(storage, act);
}

const STATES = [
  {
    verb: "enable",
    state: "in-use",
    summary: "put a storage in use",
    description:
      "Puts a storage in use. What it missed while it was readonly or disabled it is owed, and gets by the next backup or `ashlar replicate`.",
  },
  {
    verb: "readonly",
    state: "readonly",
    summary: "give a storage nothing new",
    description: "Keeps a storage as it is: it counts, is read from, and gets nothing new.",
  },
  {
    verb: "disable",
    state: "disabled",
    summary: "let a storage count for nothing",
    description:
      "Takes a storage out of use: it counts for nothing, and nothing is written or deleted there. What it has stays there.",
  },
] as const;

/** Adds `storage enable`, `readonly` and `disable`. */
function addStates(storage: Command, act: Act): void {
  for (const { verb, state, summary, description } of STATES) {
    storage
      .command(verb)
      .summary(summary)
      .description(description)
      .argument("<name>", "a storage of the repository")
      .addHelpText("after", `\nExamples:\n  ashlar storage ${verb} offsite`)
      .action(
        act(async (context, name: string) => {
          await withEngine(context, async (engine) => {
            const { changeState } = await import("../storage-state.ts");
            const changed = await changeState(engine, name, state);
            context.output.result(changed, () => [
              `storage ${name} is ${state === "in-use" ? "in use" : state}`,
            ]);
          });
        }),
      );
  }
}

/** Adds `storage check`. */
function addCheck(storage: Command, act: Act): void {
  storage
    .command("check")
    .summary("try out what Ashlar needs of a storage")
    .description(
      "Tries out everything that Ashlar needs of a storage, with small objects that it deletes again, and looks at how the storage is set up.",
    )
    .argument("[name]", "a storage of the configuration, or the URL of one that is yet to be made")
    .addHelpText(
      "after",
      "\nExits with 69 when something that is needed does not work.\n\nExamples:\n  ashlar storage check\n  ashlar storage check offsite\n  ashlar storage check 's3://backups/vm?region=eu-central-1'",
    )
    .action(
      act(async (context, name: string | undefined) => {
        const { checkStorages, checkTable } = await import("../check-storage.ts");
        const storages = await checkStorages(context, name);
        context.output.result({ storages }, () => checkTable(storages));
        const failed = storages.filter(({ findings }) =>
          findings.some(({ outcome }) => outcome === "failed"),
        );
        if (failed.length === 0) return;
        const names = failed.map((each) => each.name).join(", ");
        throw new AshlarError(ErrorCode.Unavailable, `not fit for backups as it is: ${names}`, {
          remedy: "see what failed above, and docs/storages.md",
        });
      }),
    );
}

async function listStorages(engine: Engine): Promise<ListedStorage[]> {
  const { set, unknown } = await engine.storages();
  const urls = new Map(engine.config.storages.map(({ name, url }) => [name, url]));
  const sorted = engine.knownStorages.toSorted((a, b) => (a.record.name < b.record.name ? -1 : 1));
  const known = sorted.map(({ storage, record }): ListedStorage => {
    const attached = set.list().find(({ id }) => id === storage);
    const reason =
      attached === undefined
        ? "it is not in the configuration"
        : attached.store instanceof AshlarError
          ? attached.store.message
          : null;
    return {
      name: attached?.name ?? record.name,
      id: storage,
      site: attached?.site ?? record.site,
      state: record.state,
      url: attached === undefined ? null : (urls.get(attached.name) ?? null),
      available: reason === null,
      reason,
      lockMs: record.lockMs ?? null,
    };
  });
  const missing = unknown.map(({ name, url, wasRemoved }): ListedStorage => ({
    name,
    id: null,
    site: null,
    state: wasRemoved ? "retired" : "not added",
    url,
    available: false,
    reason: wasRemoved
      ? "it was removed: take it out of the configuration"
      : `\`ashlar storage add ${name}\` adds it`,
    lockMs: null,
  }));
  return [...known, ...missing];
}

function storageTable(storages: readonly ListedStorage[]): string[] {
  return formatTable(
    [
      { head: "storage" },
      { head: "identity" },
      { head: "site" },
      { head: "state" },
      { head: "there" },
      { head: "locks for" },
      { head: "url" },
      { head: "" },
    ],
    storages.map((each) => [
      each.name,
      each.id ?? "",
      each.site ?? "",
      each.state,
      each.available ? "yes" : "no",
      each.lockMs === null ? "" : formatDuration(each.lockMs),
      each.url ?? "",
      each.reason ?? "",
    ]),
  );
}
