/** Ashlar as a contender, through its command line only. */
import { existsSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import type { BackupCounts, Contender, Outcome, Restored } from "./contender.ts";
import { probe, runMeasured, runPlain, type Measurement } from "./measured-run.ts";
import { folderBytes } from "./workspace.ts";

const STORAGE = "storage";
const CONFIG = "config";

/** The document that `ashlar backup --json` prints, as far as the benchmark reads it. */
type BackupDocument = Readonly<Record<keyof BackupCounts, unknown>>;

function readCounts(run: Measurement): BackupCounts {
  const document = JSON.parse(run.stdout) as Partial<BackupDocument>;
  const { uid } = document;
  if (typeof uid !== "string") throw new Error("the document of `backup --json` has no uid");
  const count = (name: keyof BackupCounts): number => {
    const value = document[name];
    if (typeof value !== "number")
      throw new Error(`the document of \`backup --json\` has no ${name}`);
    return value;
  };
  return {
    uid,
    bytesRead: count("bytesRead"),
    blocksRead: count("blocksRead"),
    blocksKnown: count("blocksKnown"),
    bytesStored: count("bytesStored"),
  };
}

/** Ashlar, which remembers the version that each repository's last plain backup made. */
export class AshlarContender implements Contender {
  readonly name = "ashlar";
  readonly version: string;
  readonly #program: string;
  readonly #uids = new Map<string, string>();

  constructor(program: string, version: string) {
    this.#program = program;
    this.version = version;
  }

  async #run(
    repository: string,
    args: readonly string[],
    timeoutMs?: number,
  ): Promise<Measurement> {
    return await runMeasured({
      program: this.#program,
      args: ["--config", path.join(repository, CONFIG), ...args],
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
  }

  async create(repository: string, blockSize?: string): Promise<void> {
    await mkdir(repository, { recursive: true });
    const storage = pathToFileURL(path.join(repository, STORAGE)).href;
    await runPlain({
      program: this.#program,
      args: [
        "init",
        path.join(repository, CONFIG),
        "--storage",
        `a=${storage}`,
        ...(blockSize === undefined ? [] : ["--block-size", blockSize]),
      ],
    });
  }

  /** A backup with further arguments; it does not count as the repository's last one. */
  async backupWith(
    repository: string,
    image: string,
    args: readonly string[],
    timeoutMs?: number,
  ): Promise<Outcome & { readonly counts: BackupCounts }> {
    const run = await this.#run(
      repository,
      ["backup", image, "bench", "--json", ...args],
      timeoutMs,
    );
    const storedBytes = await folderBytes(path.join(repository, STORAGE));
    return { ...run, storedBytes, counts: readCounts(run) };
  }

  async backup(repository: string, image: string): Promise<Outcome> {
    const outcome = await this.backupWith(repository, image, []);
    this.#uids.set(repository, outcome.counts.uid);
    return outcome;
  }

  backupAgain(repository: string, image: string): Promise<Outcome> {
    return this.backup(repository, image);
  }

  /** The version that the last plain backup made. */
  uidOf(repository: string): string {
    const uid = this.#uids.get(repository);
    if (uid === undefined) throw new Error("there is no backup in this repository");
    return uid;
  }

  async restore(repository: string, _image: string, folder: string): Promise<Restored> {
    await mkdir(folder, { recursive: true });
    const file = path.join(folder, "restored.img");
    const outcome = await this.#run(repository, [
      "restore",
      this.uidOf(repository),
      file,
      "--force",
    ]);
    return { outcome, file };
  }

  async verify(repository: string): Promise<Outcome> {
    return await this.#run(repository, ["scrub", "--deep"]);
  }

  /** Bytes of the metadata beside the storage. */
  async metadataBytes(repository: string): Promise<number> {
    return await folderBytes(path.join(repository, CONFIG));
  }

  /** Forgets a repository and removes it. */
  async drop(repository: string): Promise<void> {
    this.#uids.delete(repository);
    await rm(repository, { recursive: true, force: true });
  }
}

/** Ashlar, or undefined where it does not run. */
export async function findAshlar(program: string): Promise<AshlarContender | undefined> {
  if (!existsSync(program)) return undefined;
  const version = await probe(program, ["version"]);
  return version === undefined ? undefined : new AshlarContender(program, version);
}
