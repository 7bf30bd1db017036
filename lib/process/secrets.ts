// Where the secret that opens a repository comes from: the configuration's key file or passphrase file, the environment, or
// a terminal. Never from an argument: those are for everybody to see.
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { passphraseSecret, type AccessSecret } from "#lib/repository/access-key.ts";
import { parseKeyFile } from "#lib/repository/key-file.ts";
import { promptSecret } from "./secret-prompt.ts";
import type { SecretTerminal } from "./secret-prompt.ts";

/** A key file has a few hundred bytes, and a passphrase fewer; a disk image named by mistake has more. */
const SECRET_BYTES_MAX = 64 * 1024;
/** Permissions that nobody but the owner should have. */
const OTHERS_MODE = 0o077;

/** What secrets may come from. */
export interface SecretSources {
  readonly keyFile: string | undefined;
  readonly passphraseFile: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly terminal: SecretTerminal;
  /** Told of a file that others can read. */
  readonly warn: (message: string) => void;
}

/**
 * The secret that opens the repository. The first of these that there is: the configuration's key file or passphrase file,
 * ASHLAR_PASSPHRASE_FILE, ASHLAR_PASSPHRASE, a prompt.
 */
export async function loadSecret(sources: SecretSources): Promise<AccessSecret> {
  if (sources.keyFile !== undefined) return await readKeyFile(sources.keyFile, sources.warn);
  const given = await givenPassphrase(sources);
  if (given !== undefined) return given;
  return passphraseSecret(await promptSecret("Passphrase: ", sources.terminal));
}

/** The passphrase for a new repository, from the same sources; a prompt asks twice. */
export async function loadNewPassphrase(sources: SecretSources): Promise<AccessSecret> {
  const given = await givenPassphrase(sources);
  if (given !== undefined) return given;
  const first = await promptSecret("New passphrase: ", sources.terminal);
  const second = await promptSecret("Once more: ", sources.terminal);
  if (first !== second) {
    throw new AshlarError(ErrorCode.Usage, "the two passphrases differ; nothing was done");
  }
  return passphraseSecret(first);
}

/** The passphrase of the files or the environment; undefined where there is none. */
export async function givenPassphrase(
  sources: Omit<SecretSources, "keyFile" | "terminal">,
): Promise<AccessSecret | undefined> {
  if (sources.passphraseFile !== undefined) {
    return await readPassphraseFile(sources.passphraseFile, sources.warn);
  }
  const file = sources.env["ASHLAR_PASSPHRASE_FILE"];
  const passphrase = sources.env["ASHLAR_PASSPHRASE"];
  if (file !== undefined && file !== "") {
    if (passphrase !== undefined && passphrase !== "") {
      throw new AshlarError(
        ErrorCode.Usage,
        "ASHLAR_PASSPHRASE and ASHLAR_PASSPHRASE_FILE are both set; expected one of them",
      );
    }
    return await readPassphraseFile(file, sources.warn);
  }
  return passphrase === undefined || passphrase === "" ? undefined : passphraseSecret(passphrase);
}

/** Reads a key file. */
export async function readKeyFile(
  path: string,
  warn: (message: string) => void,
): Promise<AccessSecret> {
  const text = await readSecretFile(path, "key file", warn);
  return named(path, () => parseKeyFile(text));
}

async function readPassphraseFile(
  path: string,
  warn: (message: string) => void,
): Promise<AccessSecret> {
  const text = await readSecretFile(path, "passphrase file", warn);
  return named(path, () => passphraseSecret(text));
}

/** Puts the file's name before what is wrong with its content. */
function named<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof AshlarError)) throw error;
    throw new AshlarError(error.code, `${path}: ${error.message}`, {
      cause: error,
      ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    });
  }
}

async function readSecretFile(
  path: string,
  what: string,
  warn: (message: string) => void,
): Promise<string> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOCTTY);
    const stats = await file.stat();
    // A pipe (`<(pass show backup)`) has modes that mean nothing.
    if (stats.isFile() && (stats.mode & OTHERS_MODE) !== 0) {
      const mode = (stats.mode & 0o777).toString(8).padStart(4, "0");
      warn(`${what} ${path} can be read or written by others (mode ${mode}); expected 0600`);
    }
    const { buffer, bytesRead } = await readUpTo(file, SECRET_BYTES_MAX + 1);
    if (bytesRead > SECRET_BYTES_MAX) {
      throw new AshlarError(
        ErrorCode.Refused,
        `${path} is no ${what}: it has more than ${SECRET_BYTES_MAX} bytes`,
      );
    }
    return buffer.toString("utf8", 0, bytesRead);
  } catch (error) {
    throw fromSystemError(error, `reading the ${what} ${path}`, {
      remedy: `The configuration or the environment names this ${what}; without it the repository stays shut. Put a copy of it there.`,
    });
  }
}

async function readUpTo(
  file: {
    read(
      buffer: Buffer,
      offset: number,
      length: number,
      position: null,
    ): Promise<{ bytesRead: number }>;
  },
  limit: number,
): Promise<{ readonly buffer: Buffer; readonly bytesRead: number }> {
  const buffer = Buffer.alloc(limit);
  let total = 0;
  while (total < limit) {
    const { bytesRead } = await file.read(buffer, total, limit - total, null);
    if (bytesRead === 0) break;
    total += bytesRead;
  }
  return { buffer, bytesRead: total };
}
