/** The scenarios that every contender runs: full backups, the unchanged image, restore, verification. */
import { rm } from "node:fs/promises";
import type { BenchContext } from "./bench-context.ts";
import { withFlush, type Contender, type Outcome } from "./contender.ts";
import {
  asFactor,
  asPercent,
  atLeast,
  atMost,
  findSummary,
  judgeAgainstLimit,
  judgeAgainstPeers,
  judgeMemory,
  newResult,
  ratio,
  type ScenarioResult,
} from "./scenario-result.ts";
import { assertSame, warmFile, warmFolder } from "./workspace.ts";

const LIMIT_SHARE = 0.7;
const HASH_SHARE = 0.8;
const PEER_FACTOR = 2;
const STORED_FACTOR_MAX = 1.05;

function judgeStored(result: ScenarioResult): void {
  const own = findSummary(result, "ashlar")?.storedBytes;
  const theirs = findSummary(result, "restic")?.storedBytes;
  result.verdicts.push(
    atMost("stores at most 5 % more than restic", ratio(own, theirs), STORED_FACTOR_MAX, asFactor),
  );
}

async function fullBackup(
  context: BenchContext,
  image: string,
  contender: Contender,
  keep: boolean,
): Promise<Outcome> {
  const repository = context.workspace.newPath(`full-${contender.name}`);
  try {
    await contender.create(repository);
    await warmFile(image);
    const outcome = await contender.backup(repository, image);
    if (keep) await context.keepRepository(contender.name, repository);
    return outcome;
  } catch (error) {
    await rm(repository, { recursive: true, force: true });
    throw error;
  } finally {
    if (!keep) await rm(repository, { recursive: true, force: true });
  }
}

/** (1) A full backup of real data. */
export async function fullReal(context: BenchContext): Promise<ScenarioResult> {
  const result = newResult(1, "full backup, real data");
  const image = await context.data.real();
  await context.interleave(result, "backup", context.data.imageBytes, (contender) =>
    fullBackup(context, image, contender, true),
  );
  judgeAgainstLimit(result, LIMIT_SHARE);
  judgeAgainstPeers(result, PEER_FACTOR);
  judgeStored(result);
  judgeMemory(result);
  return result;
}

/** (2) A full backup of data that nothing compresses. */
export async function fullRandom(context: BenchContext): Promise<ScenarioResult> {
  const result = newResult(2, "full backup, random data");
  const image = await context.data.random();
  await context.interleave(result, "backup", context.data.imageBytes, (contender) =>
    fullBackup(context, image, contender, false),
  );
  await context.data.dropRandom();
  judgeAgainstLimit(result, LIMIT_SHARE);
  judgeAgainstPeers(result, PEER_FACTOR);
  judgeStored(result);
  judgeMemory(result);
  return result;
}

/** (3) The same image again, without hints: everything is read and hashed, nothing is stored. */
export async function unchanged(context: BenchContext): Promise<ScenarioResult> {
  const result = newResult(3, "unchanged, without hints");
  const image = await context.data.real();
  await context.interleave(result, "backup", context.data.imageBytes, async (contender) => {
    const repository = await context.repositoryWithReal(contender);
    await warmFile(image);
    return await contender.backupAgain(repository, image);
  });
  const own = findSummary(result, "ashlar");
  const limit = findSummary(result, "limit");
  result.verdicts.push(
    atLeast(
      `at least ${asPercent(HASH_SHARE)} of read + hash on all cores`,
      ratio(own?.megabytesPerSecond, limit?.megabytesPerSecond),
      HASH_SHARE,
      asPercent,
    ),
  );
  judgeMemory(result);
  return result;
}

/** (6) Restore to a new file, and on to the disk. Each restored file is compared with the image. */
export async function restore(context: BenchContext): Promise<ScenarioResult> {
  const result = newResult(6, "restore");
  const image = await context.data.real();
  await context.interleave(result, "restore", context.data.imageBytes, async (contender) => {
    const repository = await context.repositoryWithReal(contender);
    const folder = context.workspace.newPath(`restored-${contender.name}`);
    try {
      await warmFolder(repository);
      const restored = await contender.restore(repository, image, folder);
      const outcome = await withFlush(restored);
      await assertSame(image, restored.file);
      return outcome;
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
  result.notes.push("The time until the target is on the disk is included for everyone.");
  judgeAgainstLimit(result, LIMIT_SHARE);
  judgeMemory(result);
  return result;
}

/** (7) Every stored byte is read, opened and verified. */
export async function scrub(context: BenchContext): Promise<ScenarioResult> {
  const result = newResult(7, "scrub --deep");
  await context.interleave(result, "verify", context.data.imageBytes, async (contender) => {
    const repository = await context.repositoryWithReal(contender);
    await warmFolder(repository);
    return await contender.verify(repository);
  });
  result.notes.push("restic: check --read-data; borg: check --verify-data.");
  judgeAgainstLimit(result, LIMIT_SHARE);
  judgeMemory(result);
  return result;
}
