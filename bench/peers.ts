/** restic and borg as contenders, where they are installed. Both encrypt, and get no help from caches of files. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import type { Contender, Outcome, Restored } from "./contender.ts";
import { probe, runMeasured, runPlain, type Command } from "./measured-run.ts";
import { folderBytes } from "./workspace.ts";

const PASSWORD = "benchmark";

/** Options that say how borg reads an image. */
export const BORG_SPARSE: readonly string[] = ["--sparse", "--chunker-params", "fixed,4194304"];

/** restic with its defaults: chunks by content, compression auto. */
class ResticContender implements Contender {
  readonly name = "restic";
  readonly version: string;
  readonly #state: string;

  constructor(version: string, state: string) {
    this.version = version;
    this.#state = state;
  }

  #command(repository: string, args: readonly string[]): Command {
    const env = { RESTIC_PASSWORD: PASSWORD, RESTIC_CACHE_DIR: path.join(this.#state, "restic") };
    return { program: "restic", args: ["--repo", repository, "--quiet", ...args], env };
  }

  async create(repository: string): Promise<void> {
    await runPlain(this.#command(repository, ["init"]));
  }

  async backup(repository: string, image: string): Promise<Outcome> {
    // Without --force an image with an old modification time is not read at all.
    const run = await runMeasured(this.#command(repository, ["backup", "--force", image]));
    return { ...run, storedBytes: await folderBytes(repository) };
  }

  backupAgain(repository: string, image: string): Promise<Outcome> {
    return this.backup(repository, image);
  }

  async restore(repository: string, image: string, folder: string): Promise<Restored> {
    const args = ["restore", "latest", "--path", image, "--target", folder];
    const outcome = await runMeasured(this.#command(repository, args));
    return { outcome, file: path.join(folder, image) };
  }

  async verify(repository: string): Promise<Outcome> {
    return await runMeasured(this.#command(repository, ["check", "--read-data"]));
  }
}

/** borg 1.x with zstd level 1, else its defaults. */
export class BorgContender implements Contender {
  readonly name = "borg";
  readonly version: string;
  readonly #state: string;
  readonly #lastArchives = new Map<string, string>();
  #serial = 0;

  constructor(version: string, state: string) {
    this.version = version;
    this.#state = state;
  }

  #command(args: readonly string[], cwd?: string): Command {
    const env = {
      BORG_PASSPHRASE: PASSWORD,
      BORG_BASE_DIR: path.join(this.#state, "borg"),
      BORG_RELOCATED_REPO_ACCESS_IS_OK: "yes",
    };
    return { program: "borg", args, env, ...(cwd === undefined ? {} : { cwd }) };
  }

  async create(repository: string): Promise<void> {
    await mkdir(path.join(this.#state, "borg"), { recursive: true });
    await runPlain(this.#command(["init", "--encryption", "repokey", repository]));
  }

  /** A backup with further options and a limit of time. */
  async backupWith(
    repository: string,
    image: string,
    options: readonly string[],
    timeoutMs?: number,
  ): Promise<Outcome> {
    this.#serial += 1;
    const archive = `${repository}::bench-${this.#serial}`;
    // Without a disabled files cache an image that looks unchanged is not read at all.
    const fixed = ["create", "--compression", "zstd,1", "--files-cache", "disabled"];
    const command = this.#command([...fixed, ...options, archive, image]);
    const run = await runMeasured(timeoutMs === undefined ? command : { ...command, timeoutMs });
    this.#lastArchives.set(repository, archive);
    return { ...run, storedBytes: await folderBytes(repository) };
  }

  backup(repository: string, image: string): Promise<Outcome> {
    return this.backupWith(repository, image, []);
  }

  backupAgain(repository: string, image: string): Promise<Outcome> {
    return this.backup(repository, image);
  }

  async restore(repository: string, image: string, folder: string): Promise<Restored> {
    await mkdir(folder, { recursive: true });
    const archive = this.#lastArchives.get(repository) ?? "";
    const outcome = await runMeasured(this.#command(["extract", archive], folder));
    return { outcome, file: path.join(folder, image) };
  }

  async verify(repository: string): Promise<Outcome> {
    return await runMeasured(this.#command(["check", "--verify-data", repository]));
  }
}

/** The peers that are installed; `state` is a folder for their caches. */
export async function findPeers(state: string): Promise<Contender[]> {
  const restic = await probe("restic", ["version"]);
  const borg = await probe("borg", ["--version"]);
  return [
    ...(restic === undefined ? [] : [new ResticContender(restic, state)]),
    ...(borg === undefined ? [] : [new BorgContender(`${borg}, repokey, zstd,1`, state)]),
  ];
}
