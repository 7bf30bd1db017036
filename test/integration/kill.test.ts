/**
 * SIGKILL of every other command that changes something, at any moment: the next command works, and nothing is lost or left
 * over. ASHLAR_IT_SEED chooses other moments, ASHLAR_IT_ROUNDS=10 has ten times as many of them.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import {
  below,
  BLOCK,
  imageBytes,
  noise,
  overwrite,
  seededRandom,
} from "#test/fixtures/integration-image.ts";
import {
  IMAGE_BLOCKS,
  IMAGE_BYTES,
  killAtRandomMoment,
  planFor,
  prepare,
  rounds,
  SEED,
  timed,
} from "#test/fixtures/integration-kill.ts";
import { runAshlar, startAshlar } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";

const EXIT_NOT_FOUND = 66;
const EXIT_EXISTS = 73;

describe(`SIGKILL (seed ${SEED})`, { timeout: TEST_TIMEOUT_MS }, () => {
  it("of gc: the next one ends its work, and every version that was kept restores", async () => {
    await using prepared = await prepare(["a", "b"]);
    const { repo, first } = prepared;
    // How long a collection takes is found out by one that nobody kills.
    const probe = await repo.backup("-", "probe", [], { stdin: noise("probe", IMAGE_BYTES) });
    await repo.run(["rm", probe.uid]);
    const plan = planFor(repo, "gc", await timed(() => repo.run(["gc", "--sweep"])));
    for (const round of rounds(3)) {
      const stdin = Buffer.concat([first.bytes, noise(`garbage ${round}`, IMAGE_BYTES)]);
      const { uid } = await repo.backup("-", "garbage", [], { stdin });
      await repo.run(["rm", uid]);
      await killAtRandomMoment(repo.start(["gc", "--sweep"]), plan);
      await repo.run(["gc", "--sweep"]);
      await repo.assertNoOrphans();
      assert.equal(await repo.blockCount("a"), IMAGE_BLOCKS);
    }
    await repo.assertRestores(first.uid, first.bytes);
  });

  it("of rm: the version is there or gone, the others stay", async () => {
    await using prepared = await prepare(["a", "b"]);
    const { repo, first } = prepared;
    const small = (seed: string): Buffer => noise(seed, 3 * BLOCK);
    const probe = await repo.backup("-", "probe", [], { stdin: small("probe") });
    const plan = planFor(repo, "rm", await timed(() => repo.run(["rm", probe.uid])));
    for (const round of rounds(3)) {
      const bytes = small(`doomed ${round}`);
      const { uid } = await repo.backup("-", "doomed", [], { stdin: bytes });
      const killed = await killAtRandomMoment(repo.start(["rm", uid]), plan);
      const listed = (await repo.versions()).some((version) => version.uid === uid);
      if (killed.code === 0) assert.ok(!listed, "what was acknowledged as removed is gone");
      if (listed) await repo.assertRestores(uid, bytes);
      await repo.run(["rm", uid], { code: listed ? 0 : EXIT_NOT_FOUND });
    }
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
    assert.equal(await repo.blockCount("b"), IMAGE_BLOCKS);
    await repo.assertRestores(first.uid, first.bytes);
  });

  it("of scrub: the next one finds and heals the same damage", async () => {
    await using prepared = await prepare(["a", "b"]);
    const { repo, first } = prepared;
    const plan = planFor(repo, "scrub", await timed(() => repo.run(["scrub", "--deep"])));
    const { random } = plan;
    for (const round of rounds(3)) {
      for (const storage of repo.storages) {
        const objects = await repo.objects(storage, "blocks");
        // Other blocks at each: what is damaged at both could not be healed.
        const half = objects.filter(
          ({ name }) => (name.charCodeAt(7) % 2 === 0) === (storage === "a"),
        );
        const victim = half[below(random, half.length)];
        assert.ok(victim);
        await overwrite(victim.file, noise(`rot ${round}`, 64), victim.sizeBytes - 200);
      }
      await killAtRandomMoment(repo.start(["scrub", "--deep"]), plan);
      // Damaged, unless the killed one had healed it already.
      const ended = await repo.start(["scrub", "--deep"]).ended;
      assert.ok(ended.code === 65 || ended.code === 0, ended.stderr);
      await repo.run(["scrub", "--deep"]);
      await repo.run(["gc"]);
      await repo.assertNoOrphans();
    }
    for (const storage of repo.storages) await repo.assertRestores(first.uid, first.bytes, storage);
  });

  it("of restore: it can be repeated, and holds nothing up", async () => {
    await using prepared = await prepare(["main"]);
    const { repo, first } = prepared;
    const target = repo.home.at("target");
    const plan = planFor(
      repo,
      "restore",
      await timed(() => repo.run(["restore", first.uid, target])),
    );
    for (const round of rounds(3)) {
      await writeFile(target, noise(`old ${round}`, IMAGE_BYTES));
      await killAtRandomMoment(repo.start(["restore", first.uid, target, "--force"]), plan);
      await repo.run(["restore", first.uid, target, "--force", "--differential"]);
      assert.ok((await readFile(target)).equals(first.bytes));
    }
    await repo.run(["rm", first.uid]);
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
    assert.equal(await repo.blockCount(), 0, "nothing is held by a restore that is dead");
  });

  it("of rebuild: repeating the command makes the repository", async () => {
    await using prepared = await prepare(["main"]);
    const { repo, first } = prepared;
    const { env } = repo;
    const command = (machine: string): string[] => [
      "rebuild",
      machine,
      "--from",
      repo.storageFolder(),
      "--key-file",
      repo.keyFile,
    ];
    const probe = repo.fresh("machine");
    const plan = planFor(repo, "rebuild", await timed(() => runAshlar(command(probe), { env })));
    for (const _ of rounds(3)) {
      const machine = repo.fresh("machine");
      await killAtRandomMoment(startAshlar(command(machine), { env }), plan);
      if (!existsSync(`${machine}/ashlar.yaml`)) await runAshlar(command(machine), { env });
      const config = ["--config", machine];
      const { stdout } = await runAshlar([...config, "restore", first.uid, "-"], { env });
      assert.ok(stdout.equals(first.bytes));
      await runAshlar([...config, "backup", repo.home.at("image"), "vol"], { env });
      await runAshlar([...config, "fsck"], { env });
      await rm(machine, { recursive: true });
    }
  });

  it("of rebuild without DIR: repeating the command reconciles the repository", async () => {
    await using prepared = await prepare(["a", "b"]);
    const { repo, image, first } = prepared;
    const plan = planFor(repo, "reconcile", await timed(() => repo.run(["rebuild"])));
    for (const _ of rounds(3)) {
      await killAtRandomMoment(repo.start(["rebuild"]), plan);
      await repo.run(["rebuild"]);
      await repo.backup(image);
      await repo.run(["gc"]);
      await repo.assertNoOrphans();
    }
    for (const storage of repo.storages) await repo.assertRestores(first.uid, first.bytes, storage);
  });

  it("of init: what is half-made can be removed, and repeating the command makes the repository", async () => {
    await using home = await TestRepository.plan({ storages: ["a", "b"] });
    const durationMs = await timed(async () => {
      await using probe = await TestRepository.make({ storages: ["a", "b"] });
      void probe;
    });
    const random = seededRandom(`${SEED}/init`);
    for (const round of rounds(3)) {
      await using repo = await TestRepository.plan({ storages: ["a", "b"] });
      const started = startAshlar(repo.initArguments(), { env: repo.env });
      await killAtRandomMoment(started, { random, durationMs, storages: [home.home.path] });
      // Half-made folders are refused like any others that are not empty; nothing in them is worth anything yet.
      if (!existsSync(repo.configFile)) {
        for (const folder of [
          repo.folder,
          ...repo.storages.map((name) => repo.storageFolder(name)),
        ]) {
          await rm(folder, { recursive: true, force: true });
        }
      }
      const again = await startAshlar(repo.initArguments(), { env: repo.env }).ended;
      const wasDone = existsSync(repo.configFile) && again.code === EXIT_EXISTS;
      assert.ok(again.code === 0 || wasDone, `round ${round}: ${again.stderr}`);
      const bytes = imageBytes([{ noise: "x" }, { noise: "y" }]);
      const { uid } = await repo.backup("-", "vol", [], { stdin: bytes });
      await repo.assertRestores(uid, bytes);
      await repo.run(["gc", "--sweep"]);
      await repo.assertNoOrphans();
    }
  });
});
