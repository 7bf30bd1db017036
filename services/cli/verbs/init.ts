// ashlar init: makes a repository.
import path from "node:path";
import { hostname } from "node:os";
import { Option, type Command } from "commander";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { AccessSecret } from "#lib/repository/access-key.ts";
import type { HashKeys } from "#lib/repository/keys.ts";
import type { WrapScheme } from "#proto/sealed-object.ts";
import type { Compression } from "#proto/sealed-object.ts";
import type { Config } from "#lib/process/config-file.ts";
import type { CommandContext } from "../context.ts";
import { collect, parseCount } from "../option-values.ts";
import { urlWithin, within } from "../paths.ts";
import type { Act } from "../program.ts";

interface InitOptions {
  readonly keyFile?: string;
  readonly passphraseFile?: string;
  readonly passphrase?: boolean;
  readonly blockSize?: string;
  readonly hash: HashKeys["hash"];
  readonly compression: Compression;
  readonly repositoryKey: WrapScheme;
  readonly storage?: string[];
  readonly quorum?: number;
}

const CONFIG_NAME = "ashlar.yaml";
const KEY_NAME = "ashlar.key";

const HELP = `
DIR gets the configuration, the key, the metadata, and, unless --storage is given, a storage of its own in
DIR/storage. It must be empty or new. Storages are paths or file: URLs of new or empty folders, s3://BUCKET/PREFIX or b2://BUCKET/PREFIX (docs/storages.md).

COPY THE KEY, or the passphrase, off this machine: without it, nobody can read the backups.

Examples:
  ashlar init /srv/ashlar
  ashlar init /srv/ashlar --storage main=/srv/backup --storage offsite=/mnt/nas/ashlar --quorum 1
  ashlar init /srv/ashlar --key-file /root/ashlar.key --block-size 1MiB
  ashlar init /srv/ashlar --passphrase-file /root/passphrase`;

/** Adds the verb. */
export function addInit(program: Command, act: Act): void {
  program
    .command("init")
    .summary("make a repository")
    .description("Makes a repository: configuration, key, metadata and storages.")
    .argument("<dir>", "a new or empty folder")
    .option("--key-file <file>", "where the key goes; default: DIR/ashlar.key")
    .option(
      "--passphrase-file <file>",
      "protect it with the passphrase in this file, instead of a key",
    )
    .option("--passphrase", "protect it with $ASHLAR_PASSPHRASE or one that is asked for")
    .option("--block-size <size>", "size of blocks, 64KiB to 16MiB; default: 4MiB")
    .addOption(
      new Option("--hash <name>", "how blocks are named")
        .choices(["blake3", "hmac-sha256"])
        .default("blake3"),
    )
    .addOption(
      new Option("--compression <name>", "how blocks are compressed")
        .choices(["zstd", "lz4", "none"])
        .default("zstd"),
    )
    .addOption(
      new Option(
        "--repository-key <kind>",
        "what blocks are sealed under; with x25519, access keys can be write-only",
      )
        .choices(["aes", "x25519"])
        .default("aes"),
    )
    .option("--storage <name=url>", "a storage (repeatable); default: main=DIR/storage", collect)
    .option(
      "--quorum <count>",
      "how many storages must have a version whole; default: 1",
      parseCount,
    )
    .addHelpText("after", HELP)
    .action(
      act(async (context, dir: string, options: InitOptions) => {
        const folder = path.resolve(context.cwd, dir);
        const { configText, config, keyPath } = await planConfig(context, folder, options);
        const { secret, keyText } = await makeSecret(context, options);
        const { makeRepository } = await import("../make-repository.ts");
        const { systemPorts } = await import("#lib/process/open-repository.ts");
        const { repository } = await makeRepository(
          {
            folder,
            configText,
            config,
            secret,
            keyFile: keyText === undefined ? undefined : { path: keyPath, text: keyText },
            hash: options.hash,
            repositoryKey: options.repositoryKey,
          },
          systemPorts(context),
          context.signal,
        );
        report(context, { folder, repository, config });
      }),
    );
}

interface PlannedConfig {
  readonly configText: string;
  readonly config: Config;
  readonly keyPath: string;
}

/** The configuration, read as it will be read later, so that nothing is made that could not be opened. */
async function planConfig(
  context: CommandContext,
  folder: string,
  options: InitOptions,
): Promise<PlannedConfig> {
  const { parseBlockSize, permitsSmallBlocks, BLOCK_BYTES_DEFAULT } =
    await import("#lib/process/config-schema.ts");
  const { absoluteUrl, parseConfig } = await import("#lib/process/config-file.ts");
  const { renderConfig } = await import("../render-config.ts");
  const { cwd, env } = context;
  const ways = [options.keyFile, options.passphraseFile, options.passphrase].filter(Boolean);
  if (ways.length > 1) {
    throw new AshlarError(
      ErrorCode.Usage,
      "--key-file, --passphrase-file and --passphrase exclude each other",
    );
  }
  const usesKey = options.passphraseFile === undefined && options.passphrase !== true;
  const keyPath = path.resolve(cwd, options.keyFile ?? path.join(folder, KEY_NAME));
  const storages = (options.storage ?? ["main=storage"]).map((text) => {
    const [, name, url] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    if (name === undefined || url === undefined) {
      throw new AshlarError(ErrorCode.Usage, `storage ${JSON.stringify(text)}: expected NAME=URL`);
    }
    if (options.storage === undefined) return { name, url };
    const absolute = absoluteUrl(url, cwd, (message) => new AshlarError(ErrorCode.Usage, message));
    return { name, url: urlWithin(absolute, folder) };
  });
  const configText = renderConfig({
    metadata: "metadata",
    ...(usesKey ? { keyFile: within(keyPath, folder) } : {}),
    ...(options.passphraseFile === undefined
      ? {}
      : { passphraseFile: within(path.resolve(cwd, options.passphraseFile), folder) }),
    blockBytes:
      options.blockSize === undefined
        ? BLOCK_BYTES_DEFAULT
        : parseBlockSize(options.blockSize, permitsSmallBlocks(env)),
    compression: options.compression,
    quorum: options.quorum ?? 1,
    storages,
  });
  const file = path.join(folder, CONFIG_NAME);
  try {
    const config = parseConfig(configText, file, { env, cwd, hostname: hostname() });
    return { configText, config, keyPath };
  } catch (error) {
    if (!isErrorCode(error, ErrorCode.Config)) throw error;
    // The file is not there yet: its line numbers help nobody.
    const message = error.message.replaceAll(
      new RegExp(`^${RegExp.escape(file)}:\\d+:\\d+: `, "gm"),
      "",
    );
    throw new AshlarError(ErrorCode.Usage, message, { cause: error });
  }
}

async function makeSecret(
  context: CommandContext,
  options: InitOptions,
): Promise<{ readonly secret: AccessSecret; readonly keyText: string | undefined }> {
  if (options.passphraseFile === undefined && options.passphrase !== true) {
    const { createKeyFile } = await import("#lib/repository/key-file.ts");
    const { secret, text } = createKeyFile();
    return { secret, keyText: text };
  }
  const { loadNewPassphrase } = await import("#lib/process/secrets.ts");
  const secret = await loadNewPassphrase({
    keyFile: undefined,
    passphraseFile:
      options.passphraseFile === undefined
        ? undefined
        : path.resolve(context.cwd, options.passphraseFile),
    env: context.env,
    terminal: { input: context.stdin, output: context.stderr, signal: context.signal },
    warn: (message) => context.log.warn(message),
  });
  return { secret, keyText: undefined };
}

function report(
  context: CommandContext,
  made: { readonly folder: string; readonly repository: string; readonly config: Config },
): void {
  const { folder, repository, config } = made;
  const document = {
    repository,
    config: config.file,
    metadata: config.metadata,
    keyFile: config.keyFile ?? null,
    passphraseFile: config.passphraseFile ?? null,
    blockBytes: config.defaults.blockBytes,
    quorum: config.defaults.quorum,
    storages: config.storages.map(({ name, url }) => ({ name, url })),
  };
  context.output.result(document, () => [
    `made repository ${repository} in ${folder}`,
    ...config.storages.map(({ name, url }) => `storage ${name}: ${url}`),
  ]);
  // Not to be missed, whatever is asked for on stdout.
  context.output.stderrLine(
    config.keyFile === undefined
      ? "COPY THE PASSPHRASE OFF THIS MACHINE NOW: without it, nobody can read the backups."
      : `COPY THE KEY OFF THIS MACHINE NOW: without ${config.keyFile}, nobody can read the backups.`,
  );
  context.output.note(`next: ashlar --config ${folder} backup SOURCE VOLUME`);
}
