/** The machine's limit as a contender: `limit.ts` in a process of its own. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { parseSize } from "#lib/core/size.ts";
import type { Contender, Outcome, Restored } from "./contender.ts";
import type { LimitResult, LimitStage } from "./limit.ts";
import { runMeasured } from "./measured-run.ts";
import { folderBytes } from "./workspace.ts";

/**
 * The allocator as it suits buffers of megabytes: large pages, and memory that is kept between blocks.
 * With glibc's defaults each block's output is mapped and unmapped again, which in a virtual machine
 * costs microseconds for each 4 KiB page. Elsewhere than on glibc these variables mean nothing.
 */
const ALLOCATOR: Readonly<Record<string, string>> = {
  GLIBC_TUNABLES: "glibc.malloc.hugetlb=1",
  MALLOC_MMAP_THRESHOLD_: String(32 * 1024 ** 2),
  MALLOC_TRIM_THRESHOLD_: String(256 * 1024 ** 2),
  UV_THREADPOOL_SIZE: "16",
};
const PROGRAM = path.join(import.meta.dirname, "limit.ts");

/** Runs one stage. */
async function runLimit(
  stage: LimitStage,
  files: readonly string[],
  blockSize: string,
): Promise<Outcome> {
  const args = [PROGRAM, stage, ...files, "--block-size", String(parseSize(blockSize))];
  const run = await runMeasured({ program: process.execPath, args, env: ALLOCATOR });
  const result = JSON.parse(run.stdout) as LimitResult;
  return { ...run, workSeconds: result.seconds, workCpuSeconds: result.cpuSeconds };
}

/** MB per second of a stage on blocks of 4 MiB; `more` are further arguments. */
export async function limitRate(
  stage: LimitStage,
  files: readonly string[],
  more: readonly string[],
): Promise<number> {
  const args = [PROGRAM, stage, ...files, ...more];
  const { stdout } = await runMeasured({ program: process.execPath, args, env: ALLOCATOR });
  const { bytes, seconds } = JSON.parse(stdout) as LimitResult;
  return bytes / 1e6 / seconds;
}

/** Runs `primitives.ts` under the same allocator and returns what it printed. */
export async function runPrimitives(image: string, blockSize: string): Promise<string> {
  const program = path.join(import.meta.dirname, "primitives.ts");
  const args = [program, image, String(parseSize(blockSize))];
  return (await runMeasured({ program: process.execPath, args, env: ALLOCATOR })).stdout;
}

/** The limit, which remembers the block size of each of its folders. */
export class LimitContender implements Contender {
  readonly name = "limit";
  readonly version: string = `Node ${process.versions.node}`;
  readonly #blockSizes = new Map<string, string>();

  async create(repository: string, blockSize = "4MiB"): Promise<void> {
    await mkdir(repository, { recursive: true });
    this.#blockSizes.set(repository, blockSize);
  }

  async #run(stage: LimitStage, repository: string, files: readonly string[]): Promise<Outcome> {
    return await runLimit(stage, files, this.#blockSizes.get(repository) ?? "4MiB");
  }

  async backup(repository: string, image: string): Promise<Outcome> {
    const outcome = await this.#run("store", repository, [image, repository]);
    return { ...outcome, storedBytes: await folderBytes(repository) };
  }

  async backupAgain(repository: string, image: string): Promise<Outcome> {
    return await this.#run("hash", repository, [image]);
  }

  async restore(repository: string, _image: string, folder: string): Promise<Restored> {
    await mkdir(folder, { recursive: true });
    const file = path.join(folder, "restored.img");
    return { outcome: await this.#run("restore", repository, [file, repository]), file };
  }

  async verify(repository: string): Promise<Outcome> {
    return await this.#run("verify", repository, ["", repository]);
  }
}
