/**
 * `npm run bench`: Ashlar beside the machine's limit, restic and borg. See docs/benchmarks.md for what
 * it found last, and `npm run bench -- --help` for what it can be told.
 */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { findAshlar } from "./ashlar.ts";
import { BenchContext, InterruptedError } from "./bench-context.ts";
import { DataSet } from "./data-set.ts";
import { LimitContender, limitRate, runPrimitives } from "./limit-contender.ts";
import { describeMachine } from "./machine.ts";
import { killRunning } from "./measured-run.ts";
import { FULL_IMAGE_BYTES, parseOptions, ROOT, USAGE, type BenchOptions } from "./options.ts";
import { findPeers } from "./peers.ts";
import type { Primitives } from "./primitives.ts";
import {
  formatFigures,
  formatReport,
  formatScenario,
  formatStartUps,
  formatVerdicts,
  notesOf,
  type ReportParts,
} from "./report.ts";
import { newResult, type ScenarioResult } from "./scenario-result.ts";
import { fullRandom, fullReal, restore, scrub, unchanged } from "./scenarios-all.ts";
import { changedWithHints, smallBlocks, sparse } from "./scenarios-ashlar.ts";
import { freeBytes, settle, Workspace } from "./workspace.ts";

/** Images, repositories of all contenders, and a restored target: the most that lies on the disk at once. */
const ROOM_FACTOR = 7;
const RESULTS = path.join(ROOT, "bench", "results");

/** The page cache should hold the image and what is made of it. */
const CACHE_FACTOR = 2;
const DURABLE_SAMPLE_BYTES = 2 * 1024 ** 3;

async function measurePrimitives(image: string): Promise<Map<string, Primitives>> {
  const primitives = new Map<string, Primitives>();
  for (const blockSize of ["4MiB", "64KiB"])
    primitives.set(blockSize, JSON.parse(await runPrimitives(image, blockSize)) as Primitives);
  return primitives;
}

/** The limit's speed at writing objects, and nothing else. */
async function measureDurableObjects(context: BenchContext, image: string): Promise<number> {
  const folder = context.workspace.newPath("durable");
  try {
    await settle();
    return await limitRate("write", [image, folder], ["--bytes", String(DURABLE_SAMPLE_BYTES)]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function runScenario(
  context: BenchContext,
  number: number,
  earlier: readonly ScenarioResult[],
): Promise<ScenarioResult> {
  const full = earlier.find((result) => result.number === 1);
  const scenarios = new Map<number, () => Promise<ScenarioResult>>([
    [1, () => fullReal(context)],
    [2, () => fullRandom(context)],
    [3, () => unchanged(context)],
    [4, () => changedWithHints(context, full)],
    [5, () => sparse(context)],
    [6, () => restore(context)],
    [7, () => scrub(context)],
    [8, () => smallBlocks(context)],
  ]);
  try {
    return (await scenarios.get(number)?.()) ?? newResult(number, "unknown");
  } catch (error) {
    if (error instanceof InterruptedError) throw error;
    // One scenario that cannot run must not cost the others.
    const result = newResult(number, "could not run");
    result.failures.push((error as Error).message);
    return result;
  }
}

async function warnAboutRoom(options: BenchOptions, workspace: Workspace): Promise<void> {
  const wanted = options.imageBytes * ROOM_FACTOR;
  const free = await freeBytes(workspace.folder);
  if (free < wanted)
    console.error(`warning: ${free} bytes are free, and a whole run may need ${wanted}`);
  const memory = /^MemAvailable:\s+(\d+) kB$/m.exec(await readFile("/proc/meminfo", "utf8"))?.[1];
  if (Number(memory) * 1024 < options.imageBytes * CACHE_FACTOR)
    console.error("warning: the page cache may not hold the image; the disk will be measured too");
}

async function writeReport(parts: ReportParts, options: BenchOptions): Promise<void> {
  await mkdir(RESULTS, { recursive: true });
  const name = new Date().toISOString().replace(/[:.]/g, "-");
  const plain = (_key: string, value: unknown): unknown =>
    value instanceof Map ? Object.fromEntries(value) : value;
  await writeFile(path.join(RESULTS, `${name}.json`), `${JSON.stringify(parts, plain, 2)}\n`);
  const report =
    options.report ?? (options.isWhole ? path.join(ROOT, "docs", "benchmarks.md") : undefined);
  if (report === undefined) {
    console.error(
      `docs/benchmarks.md is left as it is: it is about whole runs of ${FULL_IMAGE_BYTES} bytes or more`,
    );
    return;
  }
  const earlier = await readFile(report, "utf8").catch(() => "");
  await writeFile(report, formatReport(parts, notesOf(earlier)));
}

async function runAll(context: BenchContext): Promise<boolean> {
  const { options, data } = context;
  const image = await data.real();
  const failures = await context.measureStartUps();
  const parts = {
    machine: await describeMachine(),
    versions: new Map(context.contenders.map(({ name, version }) => [name, version])),
    imageBytes: options.imageBytes,
    repeat: options.repeat,
    primitives: await measurePrimitives(image),
    // The machine of reference had two cores.
    chainTwoCores: await limitRate("seal", [image], ["--threads", "2"]),
    durableObjects: await measureDurableObjects(context, image),
    startUps: context.startUps,
    results: [] as ScenarioResult[],
    failures,
  };
  console.log(formatStartUps(parts.startUps));
  for (const number of options.scenarios) {
    const result = await runScenario(context, number, parts.results);
    parts.results.push(result);
    console.log(formatScenario(result));
  }
  console.log(formatFigures(parts));
  console.log(formatVerdicts(parts.results));
  for (const failure of failures) console.error(`failed: ${failure}`);
  await writeReport(parts, options);
  return failures.length === 0 && parts.results.every((result) => result.failures.length === 0);
}

async function createContext(
  options: BenchOptions,
  workspace: Workspace,
  isInterrupted: () => boolean,
): Promise<BenchContext> {
  const isWanted = (name: string): boolean => options.contenders.includes(name);
  const state = workspace.newPath("state");
  await mkdir(state);
  const ashlar = isWanted("ashlar") ? await findAshlar(options.ashlar) : undefined;
  if (isWanted("ashlar") && ashlar === undefined)
    console.error("ashlar does not run here: the others are measured without it");
  const peers = await findPeers(state);
  for (const name of ["restic", "borg"]) {
    if (isWanted(name) && !peers.some((peer) => peer.name === name))
      console.error(`${name} is not installed, and left out`);
  }
  return new BenchContext({
    options,
    workspace,
    data: new DataSet(workspace, options.imageBytes, options.keepData),
    limit: isWanted("limit") ? new LimitContender() : undefined,
    ashlar,
    peers: peers.filter(({ name }) => isWanted(name)),
    isInterrupted,
  });
}

async function main(): Promise<void> {
  if (process.argv[2] === "cluster") {
    const { benchCluster } = await import("./cluster/main.ts");
    process.exitCode = await benchCluster(process.argv.slice(3));
    return;
  }
  if (process.argv[2] === "s3") {
    const { benchS3 } = await import("./s3/main.ts");
    process.exitCode = await benchS3(process.argv.slice(3));
    return;
  }
  let options: BenchOptions | undefined;
  try {
    options = parseOptions(process.argv.slice(2));
  } catch (error) {
    console.error((error as Error).message);
    process.exitCode = 64;
    return;
  }
  if (options === undefined) {
    console.log(USAGE);
    return;
  }
  const workspace = await Workspace.create(options.directory);
  let interruptedBy: NodeJS.Signals | undefined;
  for (const [signal, exitCode] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    process.on(signal, () => {
      if (interruptedBy !== undefined) return;
      interruptedBy = signal;
      console.error(`${signal}: cleaning up …`);
      killRunning();
      void workspace.close().finally(() => process.exit(exitCode));
    });
  }
  try {
    await warnAboutRoom(options, workspace);
    const context = await createContext(options, workspace, () => interruptedBy !== undefined);
    if (!(await runAll(context))) process.exitCode = 1;
  } catch (error) {
    // While an interrupted benchmark cleans up, whatever was under way fails.
    if (interruptedBy === undefined) throw error;
  } finally {
    await workspace.close();
  }
}

await main();
