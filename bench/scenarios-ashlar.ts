/** The scenarios that are about Ashlar's own ways: hints, holes, small blocks. */
import { rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import type { AshlarContender } from "./ashlar.ts";
import type { BenchContext } from "./bench-context.ts";
import type { Contender, Outcome } from "./contender.ts";
import { EXTENT_BYTES, SPARSE_BYTES, SPARSE_DATA_BYTES, writeSparseImage } from "./data.ts";
import type { ChangedImage } from "./data-set.ts";
import { BORG_SPARSE, BorgContender } from "./peers.ts";
import {
  asPercent,
  asSeconds,
  atMost,
  findRow,
  findSummary,
  judgeMemory,
  newResult,
  ratio,
  type ScenarioResult,
} from "./scenario-result.ts";
import { findSparsePlace } from "./sparse-place.ts";
import { settle, warmFile } from "./workspace.ts";

/** Scenario 5 may take this long beyond the data itself. */
const SPARSE_EXTRA_SECONDS_MAX = 10;
const SPARSE_TIMEOUT_MS = 600_000;
/** Scenario 4: the change may cost this much more than its share of a full backup. */
const PROPORTION_MAX = 1.5;
/** Scenario 4: blocks read beyond the change, of the image: the sample is 0.1 %, rounded up to blocks. */
const SAMPLE_SHARE_MAX = 0.003;
/** Of a small image the sample is more than its share. */
const SAMPLE_BLOCKS_MIN = 2;
const KNOWN_BLOCK_MICROSECONDS_MAX = 20;
const SMALL_BLOCK = "64KiB";
const SMALL_BLOCK_BYTES = 64 * 1024;

async function repeatHints(
  context: BenchContext,
  result: ScenarioResult,
  ashlar: AshlarContender,
  changed: ChangedImage,
): Promise<void> {
  const base = await context.data.real();
  const hints = path.join(path.dirname(changed.image), "none.json");
  await writeFile(hints, "[]");
  const sampled: Outcome[] = [];
  const full: Outcome[] = [];
  for (let round = 0; round < context.options.repeat; round++) {
    await context.attempt(result, `ashlar, round ${round + 1}`, async () => {
      // A repository of its own for each round, or the second would find the change known already.
      const repository = context.workspace.newPath("hints-ashlar");
      try {
        await ashlar.create(repository);
        await ashlar.backup(repository, base);
        const uid = ashlar.uidOf(repository);
        await settle();
        await warmFile(changed.image);
        sampled.push(await ashlar.backupWith(repository, base, ["--hints", hints, "--base", uid]));
        const args = ["--hints", changed.hints, "--base", uid];
        full.push(await ashlar.backupWith(repository, changed.image, args));
      } finally {
        await ashlar.drop(repository);
      }
    });
  }
  if (sampled.length > 0)
    context.addRow(result, "ashlar", "no change: the sample alone", 0, sampled);
  if (full.length > 0) context.addRow(result, "ashlar", "1 % changed", changed.changedBytes, full);
}

function judgeHints(
  result: ScenarioResult,
  full: ScenarioResult | undefined,
  changed: ChangedImage,
  imageBytes: number,
): void {
  const share = changed.changedBytes / imageBytes;
  const withChange = findSummary(result, "ashlar", "1 % changed")?.netSeconds;
  const sample = findSummary(result, "ashlar", "no change: the sample alone")?.netSeconds;
  const whole = full === undefined ? undefined : findSummary(full, "ashlar")?.netSeconds;
  const extra = withChange === undefined || sample === undefined ? undefined : withChange - sample;
  const proportional = whole === undefined ? undefined : whole * share;
  result.verdicts.push(
    atMost(
      `the change costs at most ${PROPORTION_MAX} times its share of a full backup`,
      ratio(extra, proportional),
      PROPORTION_MAX,
      (value) => `${value.toFixed(2)}× (${((extra ?? 0) * 1000).toFixed(0)} ms)`,
    ),
  );
  const counts = findRow(result, "ashlar", "1 % changed")?.outcomes.at(-1)?.counts;
  result.verdicts.push(
    atMost(
      "reads the change, the sample, and nothing else",
      ratio(counts?.bytesRead, imageBytes),
      share + Math.max(SAMPLE_SHARE_MAX, (SAMPLE_BLOCKS_MIN * EXTENT_BYTES) / imageBytes),
      (value) => `${(value * 100).toFixed(2)} % of the image`,
    ),
  );
}

/** (4) One percent changed, and hints that say where; the sample of what they call unchanged apart. */
export async function changedWithHints(
  context: BenchContext,
  full: ScenarioResult | undefined,
): Promise<ScenarioResult> {
  const result = newResult(4, "1 % changed, with hints");
  const folder = context.workspace.newPath("changed");
  try {
    const changed = await context.data.changed(folder);
    const { ashlar, limit } = context;
    if (limit !== undefined) {
      await context.attempt(result, "limit", async () => {
        const repository = path.join(folder, "limit");
        await limit.create(repository);
        const outcome = await limit.backup(repository, changed.changes);
        context.addRow(result, "limit", "the changed blocks alone", changed.changedBytes, [
          outcome,
        ]);
      });
    }
    if (ashlar !== undefined) await repeatHints(context, result, ashlar, changed);
    judgeHints(result, full, changed, context.data.imageBytes);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  result.notes.push("restic and borg take no hints: they read the whole image, as in (3).");
  judgeMemory(result);
  return result;
}

interface SparseFiles {
  readonly sparse: string;
  readonly dense: string;
}

async function backupOnce(
  context: BenchContext,
  contender: Contender,
  backup: (repository: string) => Promise<Outcome>,
): Promise<Outcome> {
  const repository = context.workspace.newPath(`sparse-${contender.name}`);
  try {
    await contender.create(repository);
    await settle();
    return await backup(repository);
  } finally {
    await rm(repository, { recursive: true, force: true });
  }
}

async function sparseRounds(
  context: BenchContext,
  result: ScenarioResult,
  files: SparseFiles,
  dataBytes: number,
): Promise<void> {
  const { limit, ashlar } = context;
  const outcomes = { limit: [] as Outcome[], dense: [] as Outcome[], sparse: [] as Outcome[] };
  for (let round = 0; round < context.options.repeat; round++) {
    if (limit !== undefined) {
      await context.attempt(result, `limit, round ${round + 1}`, async () => {
        const run = (repository: string): Promise<Outcome> => limit.backup(repository, files.dense);
        outcomes.limit.push(await backupOnce(context, limit, run));
      });
    }
    if (ashlar === undefined) continue;
    await context.attempt(result, `ashlar, round ${round + 1}`, async () => {
      const run = (repository: string): Promise<Outcome> => ashlar.backup(repository, files.dense);
      outcomes.dense.push(await backupOnce(context, ashlar, run));
      outcomes.sparse.push(
        await backupOnce(context, ashlar, (repository) =>
          ashlar.backupWith(repository, files.sparse, [], SPARSE_TIMEOUT_MS),
        ),
      );
    });
  }
  const add = (contender: string, what: string, list: readonly Outcome[]): void => {
    if (list.length > 0) context.addRow(result, contender, what, dataBytes, list);
  };
  add("limit", "its data alone", outcomes.limit);
  add("ashlar", "its data alone", outcomes.dense);
  add("ashlar", "16 TiB sparse", outcomes.sparse);
}

/** (5) 16 TiB, of which 1 GiB is data. */
export async function sparse(context: BenchContext): Promise<ScenarioResult> {
  const result = newResult(5, "sparse image of 16 TiB with 1 GiB of data");
  const dataBytes = Math.min(SPARSE_DATA_BYTES, context.data.imageBytes);
  await context.attempt(result, "making the sparse image", async () => {
    const real = await context.data.real();
    // Twice the data: with and without the holes.
    const place = await findSparsePlace(context.workspace, dataBytes * 2, context.options.sparseOn);
    const files = {
      sparse: path.join(place.folder, "sparse.img"),
      dense: path.join(place.folder, "dense.img"),
    };
    try {
      await writeSparseImage(real, files, dataBytes);
      result.notes.push(
        `On ${place.kind}; ${dataBytes / 1024 ** 2} MiB of data in extents of 4 MiB.`,
      );
      await sparseRounds(context, result, files, dataBytes);
      const borg = context.contenders.find((contender) => contender instanceof BorgContender);
      if (borg !== undefined) {
        await context.attempt(result, "borg --sparse", async () => {
          const outcome = await backupOnce(context, borg, (repository) =>
            borg.backupWith(repository, files.sparse, BORG_SPARSE, SPARSE_TIMEOUT_MS),
          );
          context.addRow(result, "borg", "16 TiB sparse", dataBytes, [outcome]);
        });
      }
    } finally {
      for (const file of Object.values(files)) await rm(file, { force: true });
    }
  });
  result.notes.push(
    `restic 0.x reads holes as zeros: ${SPARSE_BYTES / 1024 ** 4} TiB of them would take hours.`,
  );
  const whole = findSummary(result, "ashlar", "16 TiB sparse")?.wallSeconds;
  const data = findSummary(result, "ashlar", "its data alone")?.wallSeconds;
  const extra = whole === undefined || data === undefined ? undefined : whole - data;
  const target = `under ${SPARSE_EXTRA_SECONDS_MAX} s beyond its data`;
  result.verdicts.push(atMost(target, extra, SPARSE_EXTRA_SECONDS_MAX, asSeconds));
  judgeMemory(result);
  return result;
}

async function smallBlockRounds(
  context: BenchContext,
  result: ScenarioResult,
  image: string,
): Promise<void> {
  for (const contender of [context.limit, context.ashlar]) {
    if (contender === undefined) continue;
    const repository = context.workspace.newPath(`small-${contender.name}`);
    const again: Outcome[] = [];
    try {
      const isStored = await context.attempt(result, `${contender.name}, full`, async () => {
        await contender.create(repository, SMALL_BLOCK);
        await settle();
        await warmFile(image);
        const outcome = await contender.backup(repository, image);
        context.addRow(result, contender.name, "full", context.data.imageBytes, [outcome]);
      });
      const rounds = isStored ? context.options.repeat : 0;
      for (let round = 0; round < rounds; round++) {
        await context.attempt(result, `${contender.name}, unchanged ${round + 1}`, async () => {
          await settle();
          await warmFile(image);
          again.push(await contender.backupAgain(repository, image));
        });
      }
    } finally {
      await rm(repository, { recursive: true, force: true });
    }
    if (again.length > 0)
      context.addRow(result, contender.name, "unchanged", context.data.imageBytes, again);
  }
}

/** (8) Blocks of 64 KiB: full, and unchanged, which tells what a known block costs. */
export async function smallBlocks(context: BenchContext): Promise<ScenarioResult> {
  const result = newResult(8, "blocks of 64 KiB");
  const image = await context.data.real();
  const { size } = await stat(image);
  await smallBlockRounds(context, result, image);

  const full = ratio(
    findSummary(result, "ashlar", "full")?.megabytesPerSecond,
    findSummary(result, "limit", "full")?.megabytesPerSecond,
  );
  if (full !== undefined)
    result.notes.push(`The full backup reaches ${asPercent(full)} of the limit.`);
  const own = findSummary(result, "ashlar", "unchanged");
  const limit = findSummary(result, "limit", "unchanged");
  const counts = findRow(result, "ashlar", "unchanged")?.outcomes.at(-1)?.counts;
  // Zero blocks are not known blocks; an image of real data has few, and then the count tells.
  const blocks = counts?.blocksKnown || Math.ceil(size / SMALL_BLOCK_BYTES);
  if (own !== undefined && limit !== undefined) {
    const cpuStartUp = context.startUp("ashlar", "backup").cpuSeconds;
    const cpu = ((own.cpuSeconds - cpuStartUp - limit.cpuSeconds) / blocks) * 1e6;
    result.notes.push(
      `CPU of all cores for a known block: ${cpu.toFixed(1)} µs beyond read + hash.`,
    );
  }
  const extra =
    own === undefined || limit === undefined
      ? undefined
      : ((own.netSeconds - limit.netSeconds) / blocks) * 1e6;
  result.verdicts.push(
    atMost(
      `a known block costs under ${KNOWN_BLOCK_MICROSECONDS_MAX} µs beyond read + hash`,
      extra,
      KNOWN_BLOCK_MICROSECONDS_MAX,
      (value) => `${value.toFixed(1)} µs`,
    ),
  );
  judgeMemory(result);
  return result;
}
