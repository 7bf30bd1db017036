// The emergency kit: one page of paper that says what a restore needs when all machines are gone but a storage.
import { open } from "node:fs/promises";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { withoutSecrets } from "#lib/drivers/bucket-url.ts";
import { readKeyFile } from "#lib/process/secrets.ts";
import { refusedToWriters } from "#lib/repository/key-wrap.ts";
import { canOpen } from "#lib/repository/keys.ts";
import { formatKeyDigits, KEY_FILE_MODE } from "#lib/repository/key-file.ts";
import { readAccessKeys } from "#lib/repository/transactions/access-keys.ts";
import { findAccessKey, openKeysOf } from "./access-keys.ts";
import type { Engine } from "./compose.ts";

/** What is on the page. */
export interface KitContent {
  readonly repository: string;
  readonly createdAt: Date;
  readonly storages: readonly { readonly name: string; readonly url: string }[];
  readonly accessKey: {
    readonly id: string;
    readonly label: string;
    readonly type: "keyfile" | "passphrase";
    /** Of a key file, where it is to be printed. */
    readonly digits: string | undefined;
  };
  readonly repositoryKey: string;
}

/** Lines and columns of a page that every printer takes. */
export const KIT_LINES_MAX = 66;
export const KIT_COLUMNS_MAX = 80;
const NO_DIGITS = Array.from({ length: 14 }, () => "____").join("-");

/** Writes the kit of an open repository to a file of its own, or to stdout. */
export async function writeKit(
  engine: Engine,
  options: { readonly output: string | undefined; readonly withKey: boolean },
): Promise<void> {
  const { context } = engine;
  const { output, withKey } = options;
  if (withKey && output === undefined && !context.stdout.isTTY) {
    throw new AshlarError(
      ErrorCode.Usage,
      "the key is written into a file or onto a terminal, and nowhere else",
      { remedy: "name a new file with --output" },
    );
  }
  const lines = formatKit(await gather(engine, withKey));
  if (output === undefined) {
    context.output.result({ lines }, () => lines);
    return;
  }
  await writePrivately(output, `${lines.join("\n")}\n`);
  context.output.result({ file: output, withKey }, () => [
    `wrote ${output}: print it, and ${
      withKey ? "destroy the file" : "keep a copy of the key beside it"
    }`,
  ]);
}

async function gather(engine: Engine, withKey: boolean): Promise<KitContent> {
  const { config, record, ports, context } = engine;
  const { keys, object } = (await openKeysOf(engine)).opened;
  if (!canOpen(keys)) throw refusedToWriters("no emergency kit was made");
  const { accessId, method } = object;
  const { label } = findAccessKey(await readAccessKeys(engine.kv), accessId).record;
  let digits: string | undefined;
  if (withKey) {
    const secret =
      config.keyFile === undefined
        ? undefined
        : await readKeyFile(config.keyFile, (message) => context.log.warn(message));
    if (secret?.type !== "keyfile") {
      throw new AshlarError(ErrorCode.Usage, "the access key in use is a passphrase", {
        remedy: "write it onto the page by hand; it is not printed",
      });
    }
    digits = formatKeyDigits(secret.key);
  }
  return {
    repository: record.repository,
    createdAt: new Date(ports.clock.now()),
    storages: config.storages.map(({ name, url }) => ({ name, url: withoutSecrets(url) })),
    accessKey: { id: accessId, label, type: method.type, digits },
    repositoryKey: keys.activeKeyId,
  };
}

/** Only for its owner, and never over what is there. */
async function writePrivately(file: string, text: string): Promise<void> {
  try {
    const handle = await open(file, "wx", KEY_FILE_MODE);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw fromSystemError(error, `writing the emergency kit ${file}`);
  }
}

/** The page, at most {@link KIT_LINES_MAX} lines of {@link KIT_COLUMNS_MAX} columns. */
export function formatKit(content: KitContent): string[] {
  for (let count = content.storages.length; ; count -= 1) {
    const lines = formatPage(content, content.storages.slice(0, count));
    // With one storage whose URL fills pages, the end is what can be missed.
    if (lines.length <= KIT_LINES_MAX || count <= 1) return lines.slice(0, KIT_LINES_MAX);
  }
}

function formatPage(content: KitContent, shown: KitContent["storages"]): string[] {
  const { repository, createdAt, storages, accessKey, repositoryKey } = content;
  const isFile = accessKey.type === "keyfile";
  const label = accessKey.label === "" ? "" : `, ${accessKey.label}`;
  const from = shellWord(shown[0]?.url ?? "URL");
  return [
    "ASHLAR EMERGENCY KIT",
    "====================",
    "",
    `Made on        ${createdAt.toISOString().slice(0, 16).replace("T", " ")} UTC`,
    `Repository     ${grouped(repository)}`,
    ...fold(`Access key     ${grouped(accessKey.id)}  ${accessKey.type}${label}`),
    `Repository key ${grouped(repositoryKey)} was the active one`,
    "",
    "Storages. Each that has a version whole restores it alone:",
    ...shown.flatMap(({ name, url }) => fold(`  ${name}  ${url}`)),
    ...(storages.length > shown.length
      ? [`  and ${storages.length - shown.length} more, which the configuration names`]
      : []),
    "",
    ...keyLines(accessKey),
    "",
    "How to restore on a new machine:",
    "",
    "1. Install Ashlar. Attach or mount one of the storages. For a bucket set its",
    "   credentials in the environment (docs/storages.md): they are not on this page.",
    "",
    ...(isFile
      ? [
          "2. Type the key into a file that only you can read, in one line behind",
          "   ASHLAR-KEY-1: (dashes, blanks and case do not matter), then Ctrl-D:",
          "",
          "     umask 077; cat > /root/ashlar.key",
        ]
      : ["2. Have the passphrase ready: it is asked for."]),
    "",
    "3. Make the metadata again, in a new folder:",
    "",
    `     ashlar rebuild /srv/ashlar${isFile ? " --key-file /root/ashlar.key" : ""} \\`,
    ...foldCommand(`       --from ${from}`),
    "",
    "4. Look for the version, and restore it:",
    "",
    "     ashlar --config /srv/ashlar ls",
    "     ashlar --config /srv/ashlar restore VERSION TARGET",
    "",
    `The ${isFile ? "key" : "passphrase"} is the one thing that cannot be made again.`,
  ];
}

function keyLines({ type, digits }: KitContent["accessKey"]): string[] {
  if (type === "passphrase") return ["The passphrase:", "", `  ${"_".repeat(KIT_COLUMNS_MAX - 4)}`];
  if (digits !== undefined) {
    return ["THE KEY. Whoever reads it can read the backups:", "", `  ${digits}`];
  }
  return ["The key, if this page is kept as safe as it (from the key file):", "", `  ${NO_DIGITS}`];
}

function grouped(hex: string): string {
  return hex.replaceAll(/.{4}(?=.)/g, "$& ");
}

/** For a POSIX shell; double quotes, in which a line may be continued. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `"${text.replaceAll(/["$`\\]/g, "\\$&")}"`;
}

/** A line that is too long goes on in the next one. */
function fold(line: string): string[] {
  const lines: string[] = [];
  let rest = line;
  while (rest.length > KIT_COLUMNS_MAX) {
    lines.push(rest.slice(0, KIT_COLUMNS_MAX));
    rest = `      ${rest.slice(KIT_COLUMNS_MAX)}`;
  }
  return [...lines, rest];
}

/** The same so that a shell takes it for one: nothing stands before what goes on. */
function foldCommand(line: string): string[] {
  const lines: string[] = [];
  let rest = line;
  while (rest.length > KIT_COLUMNS_MAX) {
    // Never between a backslash and what it escapes.
    let cut = KIT_COLUMNS_MAX - 1;
    if (/(?<!\\)(?:\\\\)*\\$/.test(rest.slice(0, cut))) cut -= 1;
    lines.push(`${rest.slice(0, cut)}\\`);
    rest = rest.slice(cut);
  }
  return [...lines, rest];
}
