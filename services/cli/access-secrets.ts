// Secrets of access keys that are to be made, or shown: from files, the environment or a prompt.
import path from "node:path";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { promptSecret } from "#lib/process/secret-prompt.ts";
import { givenPassphrase, loadNewPassphrase, readKeyFile } from "#lib/process/secrets.ts";
import { passphraseSecret, type AccessSecret } from "#lib/repository/access-key.ts";
import { createKeyFile, KEY_FILE_MODE } from "#lib/repository/key-file.ts";
import type { CommandContext } from "./context.ts";
import { writeNewFile } from "./make-repository.ts";
import type { Undo } from "./undo.ts";

/** Where a secret comes from. */
export interface SecretChoice {
  readonly keyFile?: string;
  readonly passphraseFile?: string;
  readonly passphrase?: boolean;
}

/** The environment variable of a passphrase beside that of the one in use. */
const NEW_PASSPHRASE = "ASHLAR_NEW_PASSPHRASE";

/** The secret of an access key that is to be added; a key file that is not there is made, and taken back by `undo`. */
export async function newSecret(
  context: CommandContext,
  choice: SecretChoice,
  undo: Undo,
): Promise<{ readonly secret: AccessSecret; readonly madeFile?: string }> {
  requireOne(choice);
  if (choice.keyFile === undefined) {
    const sources = { ...passphraseSources(context, choice), keyFile: undefined };
    return { secret: await loadNewPassphrase({ ...sources, terminal: terminalOf(context) }) };
  }
  const file = path.resolve(context.cwd, choice.keyFile);
  try {
    return { secret: await readKeyFile(file, (message) => context.log.warn(message)) };
  } catch (error) {
    if (!isErrorCode(error, ErrorCode.NotFound)) throw error;
  }
  const { secret, text } = createKeyFile();
  await writeNewFile(file, text, KEY_FILE_MODE, undo);
  return { secret, madeFile: file };
}

/** The secret of an access key that there is; undefined where none is named. */
export async function shownSecret(
  context: CommandContext,
  choice: SecretChoice,
): Promise<AccessSecret | undefined> {
  if (ways(choice) === 0) return undefined;
  requireOne(choice);
  const warn = (message: string): void => context.log.warn(message);
  if (choice.keyFile !== undefined) {
    return readKeyFile(path.resolve(context.cwd, choice.keyFile), warn);
  }
  const given = await givenPassphrase(passphraseSources(context, choice));
  return (
    given ?? passphraseSecret(await promptSecret("The other passphrase: ", terminalOf(context)))
  );
}

function ways({ keyFile, passphraseFile, passphrase }: SecretChoice): number {
  return [keyFile, passphraseFile, passphrase].filter(Boolean).length;
}

function requireOne(choice: SecretChoice): void {
  if (ways(choice) === 1) return;
  throw new AshlarError(
    ErrorCode.Usage,
    "expected one of --key-file, --passphrase-file and --passphrase",
  );
}

/** The variables for the passphrase in use name another one. */
function passphraseSources(
  { cwd, env, log }: CommandContext,
  { passphraseFile }: SecretChoice,
): Parameters<typeof givenPassphrase>[0] {
  return {
    passphraseFile: passphraseFile === undefined ? undefined : path.resolve(cwd, passphraseFile),
    env: { ASHLAR_PASSPHRASE: env[NEW_PASSPHRASE] },
    warn: (message) => log.warn(message),
  };
}

function terminalOf({ stdin, stderr, signal }: CommandContext): Parameters<typeof promptSecret>[1] {
  return { input: stdin, output: stderr, signal };
}
