// ashlar key: who can open the repository.
import path from "node:path";
import { Option, type Command } from "commander";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { WrapScheme } from "#proto/sealed-object.ts";
import type { SpreadOutcome } from "../access-keys.ts";
import type { AccessKeyList } from "../list-access-keys.ts";
import type { CommandContext } from "../context.ts";
import { formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { confirm } from "../prompt.ts";
import { withEngine } from "../with-engine.ts";

interface SecretOptions {
  readonly keyFile?: string;
  readonly passphraseFile?: string;
  readonly passphrase?: boolean;
}

interface AddOptions extends SecretOptions {
  readonly label?: string;
  readonly writeOnly?: boolean;
}

interface KitOptions {
  readonly output?: string;
  readonly withKey?: boolean;
}

const HELP = `
Access keys are what people and hosts hold: key files and passphrases. Each opens the repository's own keys,
which are kept sealed in the metadata and on every storage. Adding and removing one touches nothing else
that is stored. Secrets come from files, the environment or a prompt, never from arguments.

Examples:
  ashlar key ls
  ashlar key add --key-file /root/second.key --label second
  ashlar key remove second
  ashlar key rotate
  ashlar key kit --output /root/emergency.txt`;

/** Adds the verbs. */
export function addKey(program: Command, act: Act): void {
  const key = program
    .command("key")
    .summary("list, add, remove and rotate keys; print an emergency kit")
    .description("Manages who can open the repository, and its own keys.")
    .addHelpText("after", HELP);
  addLs(key, act);
  addAdd(key, act);
  addRemove(key, act);
  addRotate(key, act);
  addKit(key, act);
}

function addLs(key: Command, act: Act): void {
  key
    .command("ls")
    .summary("list access keys")
    .description("Lists the access keys, which one is in use, and which storages have them.")
    .addHelpText("after", "\nExamples:\n  ashlar key ls\n  ashlar key ls --json")
    .action(
      act(async (context) => {
        await withEngine(context, async (engine) => {
          const { listAccessKeys } = await import("../list-access-keys.ts");
          const list = await listAccessKeys(engine);
          context.output.result(list, () => keyTable(list));
        });
      }),
    );
}

function addSecretOptions(command: Command, keyFile: string): Command {
  return command
    .option("--key-file <file>", keyFile)
    .option("--passphrase-file <file>", "the passphrase in this file")
    .option("--passphrase", "the passphrase in $ASHLAR_NEW_PASSPHRASE, or one that is asked for");
}

function addAdd(key: Command, act: Act): void {
  addSecretOptions(
    key
      .command("add")
      .summary("add an access key")
      .description("Adds an access key: a key file or a passphrase."),
    "the key in this file; it is made where it is not there",
  )
    .option("--label <label>", "a name for it; whoever can read a storage can read it, too")
    .option("--write-only", "it backs up, collects and replicates, and cannot read backups")
    .addHelpText(
      "after",
      "\nOpens the repository with the access key that is configured, which must be a full one. The new one opens all\nbackups, also those that there are; with --write-only none. Write-only keys need an X25519 repository key.\n\nExamples:\n  ashlar key add --key-file /root/second.key --label second\n  ashlar key add --passphrase --label office\n  ashlar key add --write-only --key-file /root/web1.key --label web1",
    )
    .action(
      act(async (context, options: AddOptions) => {
        await withEngine(context, async (engine) => {
          const { addAccessKey } = await import("../access-keys.ts");
          const { newSecret } = await import("../access-secrets.ts");
          const { Undo } = await import("../undo.ts");
          const label = checkLabel(options.label ?? "");
          const capability = options.writeOnly === true ? "write-only" : "full";
          // Before anything is made: a wrong key must show now.
          await engine.repository();
          await Undo.during(async (undo) => {
            const { secret, madeFile } = await newSecret(context, options, undo);
            const { id, storages } = await addAccessKey(engine, { secret, label, capability });
            const keyFile = madeFile ?? null;
            context.output.result({ id, label, capability, keyFile, storages }, () => [
              `added access key ${id}`,
              ...(madeFile === undefined ? [] : [`its key is in ${madeFile}`]),
            ]);
            warnOfStorages(context, storages);
          });
        });
      }),
    );
}

function addRemove(key: Command, act: Act): void {
  addSecretOptions(
    key
      .command("remove")
      .summary("remove an access key")
      .description("Removes an access key: it opens the repository no more.")
      .argument("<key>", "an access key, by its id or label"),
    "another full key, to show that it opens when the one in use is removed",
  )
    .addHelpText(
      "after",
      "\nThe last full access key stays. Who has copied what is in keys/ of a storage, and has the removed key, can still\nopen what was stored before: `ashlar key rotate` afterwards keeps from him what is stored from then on.\n\nExamples:\n  ashlar key remove second\n  ashlar key remove 8b5a0c1f2d3e4f60 --key-file /root/second.key",
    )
    .action(
      act(async (context, name: string, options: SecretOptions) => {
        await withEngine(context, async (engine) => {
          const { removeAccessKey } = await import("../access-keys.ts");
          const { shownSecret } = await import("../access-secrets.ts");
          const other = await shownSecret(context, options);
          await confirm(context, `Remove access key ${name}?`);
          const { id, storages } = await removeAccessKey(engine, name, other);
          context.output.result({ id, storages }, () => [`removed access key ${id}`]);
          warnOfStorages(context, storages);
          context.output.stderrLine(
            "Who copied its key object and has its secret can still open what is stored: `ashlar key rotate` keeps from him what comes after.",
          );
        });
      }),
    );
}

function addRotate(key: Command, act: Act): void {
  key
    .command("rotate")
    .summary("make a new repository key")
    .description(
      "Makes a new repository key for what is stored from now on, sealed to every access key; the one before is retired.",
    )
    .addOption(
      new Option("--repository-key <kind>", "what the new one is; default: as before").choices([
        "aes",
        "x25519",
      ]),
    )
    .addHelpText(
      "after",
      "\nAll access keys stay as they are; nobody needs a new key file or passphrase. Running processes change over within\nhalf a minute. What is stored already is wrapped anew, and replaced, by `ashlar scrub --deep` as it comes to it; the retired\nkey is kept.\n\nProcesses of the first release must be stopped: they do not know the new key, and would take what is sealed under it\nfor damaged.\n\nExamples:\n  ashlar key rotate\n  ashlar key rotate --repository-key x25519",
    )
    .action(
      act(async (context, options: { readonly repositoryKey?: WrapScheme }) => {
        await withEngine(context, async (engine) => {
          const { rotateRepositoryKey } = await import("../access-keys.ts");
          const rotation = await rotateRepositoryKey(engine, options.repositoryKey);
          context.output.result(rotation, () => [
            `made repository key ${rotation.repositoryKey}, sealed to ${rotation.accessKeys} ${rotation.accessKeys === 1 ? "access key" : "access keys"}; retired ${rotation.retired}`,
          ]);
          warnOfStorages(context, rotation.storages);
          context.output.stderrLine(
            "What is stored already stays under the retired key until `ashlar scrub --deep` has read it, which wraps it anew; `ashlar storage stats --keys` tells what is left.",
          );
        });
      }),
    );
}

function addKit(key: Command, act: Act): void {
  key
    .command("kit")
    .summary("print what a restore needs when all else is lost")
    .description(
      "Writes one page that says how to restore on a new machine, from the storages alone. Print it.",
    )
    .option("--output <file>", "where it goes (mode 0600); default: stdout")
    .option("--with-key", "with the key itself; only into a file, or onto a terminal")
    .addHelpText(
      "after",
      "\nExamples:\n  ashlar key kit | lpr\n  ashlar key kit --with-key --output /root/emergency.txt",
    )
    .action(
      act(async (context, options: KitOptions) => {
        await withEngine(context, async (engine) => {
          const { writeKit } = await import("../emergency-kit.ts");
          const output =
            options.output === undefined ? undefined : path.resolve(context.cwd, options.output);
          await writeKit(engine, { output, withKey: options.withKey === true });
        });
      }),
    );
}

const LABEL = /^[\p{L}\p{N}][\p{L}\p{N} ._@-]{0,63}$/u;

function checkLabel(label: string): string {
  if (label === "" || (LABEL.test(label) && !/^[0-9a-f]{16}$/.test(label))) return label;
  throw new AshlarError(
    ErrorCode.Usage,
    `label ${JSON.stringify(label)}: expected up to 64 letters, digits, blanks and . _ @ -, and not what looks like an id`,
  );
}

function warnOfStorages({ log }: CommandContext, storages: readonly SpreadOutcome[]): void {
  for (const { storage, reason } of storages) {
    if (reason === null) continue;
    log.warn(`storage ${storage} follows when something is written to it: ${reason}`);
  }
}

function keyTable({ keys, strangers, away, repositoryKeys }: AccessKeyList): string[] {
  const rotates = { yes: "", no: "used by no newer Ashlar yet", forged: "FORGED", unknown: "" };
  const active = repositoryKeys.find(({ state }) => state === "active");
  const retired = repositoryKeys.length - 1;
  return [
    ...formatTable(
      [
        { head: "id" },
        { head: "label" },
        { head: "type" },
        { head: "good for" },
        { head: "created" },
        { head: "storages" },
        { head: "" },
      ],
      keys.map((each) => [
        each.id,
        each.label,
        each.type,
        each.capability,
        each.createdAt?.slice(0, 16).replace("T", " ") ?? "",
        [...each.storages, ...each.missingAt.map((name) => `not ${name}`)].join(", "),
        [each.inUse ? "in use" : "", rotates[each.rotates]].filter(Boolean).join(", "),
      ]),
    ),
    "",
    `repository key: ${active?.id ?? "none"} (${active?.kind ?? "none"})${retired > 0 ? `, ${retired} retired` : ""}`,
    ...away.map(({ storage, reason }) => `storage ${storage} is away: ${reason}`),
    ...strangers.map(({ storage, name, removed }) =>
      removed
        ? `storage ${storage} still has ${name}, which was removed`
        : `storage ${storage} has ${name}, which is no access key of this repository`,
    ),
  ];
}
