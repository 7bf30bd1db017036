/**
 * SIGKILL of a backup at any moment: nothing acknowledged is lost, nothing is left over, nothing is sent twice.
 * ASHLAR_IT_SEED chooses other moments, ASHLAR_IT_ROUNDS=10 has ten times as many of them.
 */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { BLOCK, noise, overwrite, writeNoise } from "#test/fixtures/integration-image.ts";
import {
  IMAGE_BLOCKS,
  IMAGE_BYTES,
  killAtRandomMoment,
  planFor,
  prepare,
  rounds,
  SEED,
} from "#test/fixtures/integration-kill.ts";
import type { Ended } from "#test/fixtures/integration-process.ts";
import {
  idsOf,
  TEST_TIMEOUT_MS,
  type BackupDocument,
  type TestRepository,
} from "#test/fixtures/integration-repository.ts";

/** The uid that a backup printed before it was killed, if it came so far. */
function acknowledgedUid(ended: Ended): string | undefined {
  try {
    return (JSON.parse(ended.stdout.toString()) as BackupDocument).uid;
  } catch {
    return undefined;
  }
}

interface UsageDocument {
  readonly storages: readonly { readonly name: string; readonly blocks: number }[];
}

/** How many blocks the metadata call placed at a storage. */
async function placedBlocks(repo: TestRepository, storage: string): Promise<number> {
  const { storages } = await repo.json<UsageDocument>(["usage"]);
  return storages.find(({ name }) => name === storage)?.blocks ?? 0;
}

describe(`SIGKILL of a backup (seed ${SEED})`, { timeout: TEST_TIMEOUT_MS }, () => {
  it("nothing acknowledged is lost, and repeating it sends only what was not stored", async () => {
    await using prepared = await prepare(["main"]);
    const { repo, image, first, backupMs } = prepared;
    const acknowledged = [first];
    const plan = planFor(repo, "backup", backupMs);
    for (const round of rounds(5)) {
      const bytes = await writeNoise(image, `round ${round}`, IMAGE_BYTES);
      const before = await repo.blockCount();
      const killed = await killAtRandomMoment(repo.start(["--json", "backup", image, "vol"]), plan);
      const uid = acknowledgedUid(killed);
      if (uid !== undefined) acknowledged.push({ uid, bytes });
      // Every earlier round came to its end: what lies there is all placed.
      const placed = (await placedBlocks(repo, "main")) - before;
      assert.ok(placed >= 0 && placed <= IMAGE_BLOCKS, `${placed} blocks were placed`);
      const again = await repo.backup(image);
      assert.equal(again.blocksNew, IMAGE_BLOCKS - placed, `${placed} were stored already`);
      assert.equal(await repo.blockCount(), before + IMAGE_BLOCKS, "and none lies there twice");
      acknowledged.push({ uid: again.uid, bytes });
    }
    const ids = idsOf(await repo.objects("main", "blocks"));
    assert.equal(new Set(ids).size, ids.length);
    for (const { uid, bytes } of acknowledged) await repo.assertRestores(uid, bytes);
    await repo.run(["gc", "--abandon"]);
    await repo.assertNoOrphans();
  });

  it("gc --abandon leaves no orphan at any storage, and every acknowledged version", async () => {
    await using prepared = await prepare(["a", "b"]);
    const { repo, image, first, backupMs } = prepared;
    const acknowledged = [first];
    const plan = planFor(repo, "abandon", backupMs);
    for (const round of rounds(4)) {
      const bytes = await writeNoise(image, `round ${round}`, IMAGE_BYTES);
      // Half of it is known: what a dead backup was told is known must stay as well.
      first.bytes.copy(bytes, 0, 0, IMAGE_BYTES / 2);
      await writeFile(image, bytes);
      const killed = await killAtRandomMoment(repo.start(["--json", "backup", image, "vol"]), plan);
      const uid = acknowledgedUid(killed);
      if (uid !== undefined) acknowledged.push({ uid, bytes });
      await repo.run(["gc", "--abandon", "--sweep"]);
      await repo.assertNoOrphans();
    }
    for (const storage of repo.storages) {
      for (const { uid, bytes } of acknowledged) await repo.assertRestores(uid, bytes, storage);
    }
  });

  it("an incremental can be repeated that goes on from an incremental's base, with hints", async () => {
    await using prepared = await prepare(["main"]);
    const { repo, image, first, backupMs } = prepared;
    const bytes = Buffer.from(first.bytes);
    let base = first.uid;
    const hints = repo.home.at("hints.json");
    const plan = planFor(repo, "hints", backupMs);
    for (const round of rounds(2)) {
      const extent = { offset: 10 * BLOCK, length: 30 * BLOCK, exists: true };
      noise(`round ${round}`, extent.length).copy(bytes, extent.offset);
      await overwrite(image, bytes.subarray(extent.offset), extent.offset);
      await writeFile(hints, JSON.stringify([extent]));
      const args = ["backup", image, "vol", "--base", base, "--hints", hints];
      await killAtRandomMoment(repo.start(args), plan);
      const again = await repo.backup(image, "vol", ["--base", base, "--hints", hints]);
      await repo.assertRestores(again.uid, bytes);
      base = again.uid;
    }
    await repo.assertRestores(first.uid, first.bytes);
    await repo.run(["gc", "--abandon"]);
    await repo.assertNoOrphans();
  });
});
