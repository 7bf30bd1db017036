/** What --dry-run of rm, enforce and gc says would be freed is what is then freed on the disk, to the byte. */
import assert from "node:assert/strict";
import { rename, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { BLOCK, imageBytes, noise, noiseBlocks } from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";

interface Figures {
  readonly blocks: number;
  readonly nodes: number;
  readonly objects: number;
  readonly blockBytes: number;
  readonly storedBytes: number;
  readonly storages: readonly {
    readonly name: string;
    readonly blocks: number;
    readonly nodes: number;
    readonly storedBytes: number;
  }[];
}

interface Plan {
  readonly frees: Figures;
  readonly garbage: Figures;
  readonly total: Figures;
}

interface OnDisk {
  readonly blocks: number;
  readonly nodes: number;
  readonly bytes: number;
}

/** What blocks and nodes take at each storage, by the sizes of their files. */
async function measure(repo: TestRepository): Promise<Map<string, OnDisk>> {
  const found = new Map<string, OnDisk>();
  for (const storage of repo.storages) {
    const blocks = await repo.objects(storage, "blocks");
    const nodes = await repo.objects(storage, "nodes");
    const bytes = [...blocks, ...nodes].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    found.set(storage, { blocks: blocks.length, nodes: nodes.length, bytes });
  }
  return found;
}

/** Asserts that the disks lost exactly what was promised. */
function assertFreed(
  promised: Figures,
  before: ReadonlyMap<string, OnDisk>,
  after: ReadonlyMap<string, OnDisk>,
): void {
  let [objects, bytes] = [0, 0];
  for (const [storage, then] of before) {
    const now = after.get(storage) ?? { blocks: 0, nodes: 0, bytes: 0 };
    const at = promised.storages.find(({ name }) => name === storage);
    const told = { blocks: at?.blocks ?? 0, nodes: at?.nodes ?? 0, bytes: at?.storedBytes ?? 0 };
    assert.deepEqual(
      {
        blocks: then.blocks - now.blocks,
        nodes: then.nodes - now.nodes,
        bytes: then.bytes - now.bytes,
      },
      told,
      `at storage ${storage}`,
    );
    objects += told.blocks + told.nodes;
    bytes += told.bytes;
  }
  assert.equal(promised.objects, objects);
  assert.equal(promised.storedBytes, bytes);
}

/** Content that compresses to another size for every block. */
function compressible(seed: string, count: number): Buffer {
  const bytes = imageBytes(noiseBlocks(seed, count));
  for (let at = 0; at < count; at += 1)
    bytes.fill(at + 1, at * BLOCK + 16 + at * 997, (at + 1) * BLOCK);
  return bytes;
}

async function backUp(repo: TestRepository, volume: string, stdin: Buffer): Promise<string> {
  return (await repo.backup("-", volume, [], { stdin })).uid;
}

describe("--dry-run", { timeout: TEST_TIMEOUT_MS }, () => {
  it("of rm prints the blocks and bytes that rm and gc then free on the disks", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const common = compressible("common", 20);
    const one = await backUp(repo, "one", Buffer.concat([common, compressible("one", 20)]));
    const two = await backUp(repo, "two", Buffer.concat([common, compressible("two", 300)]));
    const kept = await backUp(repo, "kept", Buffer.concat([common.subarray(0, 5 * BLOCK), common]));
    const before = await measure(repo);
    const single = await repo.json<Plan>(["rm", "--dry-run", one]);
    assert.equal(single.frees.blocks, 20, "the common ones stay");
    const both = await repo.json<Plan>(["rm", "--dry-run", one, two]);
    assert.equal(both.frees.blocks, 320);
    assert.deepEqual(await measure(repo), before, "nothing was changed");
    assert.equal((await repo.versions()).length, 3);

    await repo.run(["rm", one, two]);
    await repo.run(["gc"]);
    assertFreed(both.frees, before, await measure(repo));
    await repo.assertNoOrphans();

    const last = await repo.json<Plan>(["rm", "--dry-run", kept]);
    const rest = await measure(repo);
    await repo.run(["rm", kept]);
    await repo.run(["gc"]);
    assertFreed(last.frees, rest, await measure(repo));
    assert.equal(await repo.blockCount("a"), 0);
  });

  it("of enforce prints what goes, why, and what is then freed", async () => {
    await using repo = await TestRepository.make();
    const uids: string[] = [];
    for (let version = 0; version < 4; version += 1) {
      const bytes = Buffer.concat([compressible("base", 10), compressible(`v${version}`, 5)]);
      uids.push(await backUp(repo, "vol", bytes));
    }
    const before = await measure(repo);
    const plan = await repo.json<
      Plan & { versions: readonly { uid: string; keep: boolean; reason: string }[] }
    >(["enforce", "--dry-run", "latest2"]);
    const going = plan.versions.filter(({ keep }) => !keep).map(({ uid }) => uid);
    assert.deepEqual(going.toSorted(), uids.slice(0, 2).toSorted());
    assert.ok(plan.versions.every(({ reason }) => reason.length > 0));
    assert.equal(plan.frees.blocks, 10);
    assert.deepEqual(await measure(repo), before);

    await repo.run(["enforce", "latest2"]);
    assert.deepEqual(
      (await repo.versions()).map(({ uid }) => uid).toSorted(),
      uids.slice(2).toSorted(),
    );
    await repo.run(["gc"]);
    assertFreed(plan.frees, before, await measure(repo));
    await repo.assertNoOrphans();
  });

  it("of gc prints what it then frees: what was removed, and with --abandon what was given up", async () => {
    await using repo = await TestRepository.make();
    await repo.configure([["memory", "budget"], "32MiB"]);
    const kept = await backUp(repo, "kept", compressible("kept", 10));
    const gone = await backUp(repo, "gone", compressible("gone", 30));
    await repo.run(["rm", gone]);
    const running = repo.start(["backup", "-", "stream"], { stdin: "pipe" });
    running.child.stdin?.on("error", () => undefined);
    const started = await repo.blockCount();
    await running.write(noise("stream", 64 * BLOCK + 1));
    for (let count = started; count < started + 64; count = await repo.blockCount()) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.ok(!running.hasEnded, running.stderr);
    }
    // Its transaction may be a moment behind the files.
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await running.kill();

    const before = await measure(repo);
    const plain = await repo.json<Plan>(["gc", "--dry-run"]);
    assert.equal(plain.total.blocks, 30);
    const all = await repo.json<Plan>(["gc", "--dry-run", "--abandon"]);
    assert.equal(all.total.blocks, 94);
    assert.deepEqual(await measure(repo), before);

    await repo.run(["gc"]);
    const between = await measure(repo);
    assertFreed(plain.total, before, between);
    await repo.run(["gc", "--abandon"]);
    assertFreed(all.total, before, await measure(repo));
    const nothing = await repo.json<Plan>(["gc", "--dry-run", "--abandon"]);
    assert.equal(nothing.total.objects, 0);
    await repo.assertNoOrphans();
    assert.equal((await repo.versions())[0]?.uid, kept);
  });

  it("counts nothing for a storage that has nothing of it yet", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const folder = repo.storageFolder("b");
    await rename(folder, `${folder}.aside`);
    const image = repo.home.at("image");
    await writeFile(image, compressible("x", 12));
    const { uid } = await repo.backup(image);
    await rename(`${folder}.aside`, folder);
    const before = await measure(repo);
    const plan = await repo.json<Plan>(["rm", "--dry-run", uid]);
    assert.deepEqual(
      plan.frees.storages.map(({ name }) => name),
      ["a"],
    );
    await repo.run(["rm", uid]);
    await repo.run(["gc"]);
    assertFreed(plan.frees, before, await measure(repo));
    await repo.assertNoOrphans();
  });
});
