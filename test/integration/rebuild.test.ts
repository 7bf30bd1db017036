/** A storage and the key alone restore everything: `ashlar rebuild DIR --from URL` on an empty machine. */
import assert from "node:assert/strict";
import { rename, rm, unlink, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import {
  BLOCK,
  below,
  imageBytes,
  noise,
  seededRandom,
  writeImage,
  type BlockContent,
} from "#test/fixtures/integration-image.ts";
import { killAtRandomMoment, timed } from "#test/fixtures/integration-kill.ts";
import { Machine } from "#test/fixtures/integration-machine.ts";
import { startAshlar } from "#test/fixtures/integration-process.ts";
import {
  idsOf,
  TEST_TIMEOUT_MS,
  TestRepository,
  type BackupDocument,
} from "#test/fixtures/integration-repository.ts";

const EXIT_DAMAGED = 65;
const EXIT_EXISTS = 73;
const EXIT_REFUSED = 77;
const SEED = process.env["ASHLAR_IT_SEED"] ?? "ashlar";

function holedBlocks(seed: string, count: number): BlockContent[] {
  return Array.from({ length: count }, (_, at): BlockContent =>
    at % 7 === 3 ? "hole" : { noise: `${seed}/${at}` },
  );
}

interface Made {
  readonly uid: string;
  readonly bytes: Buffer;
}

/** Backs an image up under a volume. */
async function backUp(
  repo: TestRepository,
  volume: string,
  content: BlockContent[],
): Promise<Made> {
  const bytes = imageBytes(content, content.length * BLOCK - 99);
  const { uid } = await repo.backup("-", volume, [], { stdin: bytes });
  return { uid, bytes };
}

describe("rebuild on an empty machine", { timeout: TEST_TIMEOUT_MS }, () => {
  it("recreates the metadata from one storage and the key: restore, new backups, gc and fsck work", async () => {
    await using repo = await TestRepository.make();
    const image = repo.home.at("image");
    const one = await backUp(repo, "one", holedBlocks("one", 300));
    const two = await backUp(repo, "two", [...holedBlocks("one", 10), ...holedBlocks("two", 5)]);
    const gone = await backUp(repo, "gone", holedBlocks("gone", 4));
    await repo.run(["label", two.uid, "owner=db"]);
    await repo.run(["protect", two.uid]);
    await repo.run(["rm", gone.uid]);
    await repo.run(["gc"]);
    const before = await repo.versions();
    await rm(repo.metadata, { recursive: true });
    await rm(repo.configFile);

    const from = [repo.storageFolder()];
    const key = ["--key-file", repo.keyFile];
    const machine = await Machine.rebuild(repo.home.at("machine"), from, key);
    assert.deepEqual(machine.result.problems, []);
    assert.ok(machine.result.versions.every(({ state }) => state === "valid"));
    const after = await machine.versions();
    const told = (versions: typeof before): unknown[] =>
      versions.map(({ uid, labels, status, restorable }) => ({ uid, labels, status, restorable }));
    assert.deepEqual(told(after), told(before), "the same versions with the same labels");
    for (const { uid, bytes } of [one, two]) await machine.assertRestores(uid, bytes);
    await machine.run(["rm", two.uid], { code: EXIT_REFUSED });

    const bytes = await writeImage(image, [...holedBlocks("one", 20), ...holedBlocks("new", 3)]);
    const again = await machine.json<BackupDocument>(["backup", image, "three"]);
    assert.ok(again.blocksKnown > 0, "what the storage has is known");
    assert.equal(again.blocksNew, 3);
    await machine.assertRestores(again.uid, bytes);
    await machine.run(["rm", one.uid]);
    await machine.run(["gc", "--sweep"]);
    const fsck = await machine.json<{ findings: unknown[]; counts: Record<string, number> }>([
      "fsck",
    ]);
    assert.deepEqual(fsck.findings, []);
    assert.equal(fsck.counts["orphans"], 0);
    assert.equal(await repo.blockCount(), fsck.counts["blocks"]);
    await machine.run(["scrub", "--deep"]);
    for (const { uid, bytes: content } of [two, { uid: again.uid, bytes }]) {
      await machine.assertRestores(uid, content);
    }
  });

  it("recreates the metadata from one storage and the passphrase", async () => {
    const passphrase = "correct horse battery staple";
    const file = "passphrase";
    await using repo = await TestRepository.plan();
    await writeFile(repo.home.at(file), `${passphrase}\n`, { mode: 0o600 });
    const args = [...repo.initArguments(), "--passphrase-file", repo.home.at(file)];
    await startAshlar(args, { env: repo.env }).ended;
    const made = await backUp(repo, "vol", holedBlocks("p", 9));
    await rm(repo.folder, { recursive: true });
    const from = [repo.storageFolder()];
    const byFile = ["--passphrase-file", repo.home.at(file)];
    const one = await Machine.rebuild(repo.home.at("machine-1"), from, byFile);
    await one.assertRestores(made.uid, made.bytes);
    await rm(repo.home.at(file));
    const env = { ASHLAR_PASSPHRASE: passphrase };
    const two = await Machine.rebuild(repo.home.at("machine-2"), from, [], { env });
    await two.assertRestores(made.uid, made.bytes);
  });

  it("does not lose a backup to a later one, as Benji does after its metadata were lost", async () => {
    // Benji: versions va and vb; the database is lost; vb is imported again; backing up vc then overwrites vb's blocks.
    await using repo = await TestRepository.make();
    const key = repo.home.at("key");
    await rename(repo.keyFile, key);
    await repo.configure([["keyFile"], key]);
    const va = await backUp(repo, "va", holedBlocks("va", 6));
    const vb = await backUp(repo, "vb", holedBlocks("vb", 6));
    await rm(repo.folder, { recursive: true });
    const before = await repo.objects();
    const from = [repo.storageFolder()];
    const machine = await Machine.rebuild(repo.home.at("machine"), from, ["--key-file", key]);
    const vc = noise("vc", 6 * BLOCK);
    const made = await machine.json<BackupDocument>(["backup", "-", "vc"], { stdin: vc });
    const after = await repo.objects();
    const names = new Set(after.map(({ name }) => name));
    for (const { name } of before) assert.ok(names.has(name), `${name} is still there`);
    assert.equal(idsOf(after).length, new Set(idsOf(after)).size, "no block has two objects");
    await machine.assertRestores(va.uid, va.bytes);
    await machine.assertRestores(vb.uid, vb.bytes);
    await machine.assertRestores(made.uid, vc);
    await machine.run(["gc", "--sweep"]);
    await machine.run(["scrub", "--deep"]);
    await machine.assertRestores(vb.uid, vb.bytes);
  });

  it("reports a version whose tree is not complete, imports it as invalid, and restores the rest of it", async () => {
    await using repo = await TestRepository.make();
    const good = await backUp(repo, "good", holedBlocks("good", 3));
    const known = new Set((await repo.objects(undefined, "blocks")).map(({ name }) => name));
    const content: BlockContent[] = [{ noise: "b/0" }, { noise: "b/1" }, { noise: "b/2" }];
    const broken = await backUp(repo, "broken", content);
    const lost = (await repo.objects(undefined, "blocks")).find(({ name }) => !known.has(name));
    await unlink(lost?.file ?? "");
    const from = [repo.storageFolder()];
    const key = ["--key-file", repo.keyFile];
    const folder = repo.home.at("machine");
    const machine = await Machine.rebuild(folder, from, key, { code: EXIT_DAMAGED });
    const states = new Map(machine.result.versions.map((version) => [version.uid, version]));
    assert.equal(states.get(good.uid)?.state, "valid");
    assert.equal(states.get(broken.uid)?.state, "invalid");
    const [missing] = states.get(broken.uid)?.missing ?? [];
    assert.ok(missing !== undefined && missing.offset % BLOCK === 0);
    await machine.assertRestores(good.uid, good.bytes);
    const target = ["restore", broken.uid, "-", "--keep-going"];
    const { stdout } = await machine.run(target, { code: EXIT_DAMAGED });
    const expected = Buffer.from(broken.bytes);
    expected.fill(0, missing.offset, missing.offset + missing.length);
    assert.ok(stdout.equals(expected), "all that is intact");
    // A backup of the same content repairs it; then everything can go on.
    await machine.run(["backup", "-", "broken"], { stdin: broken.bytes });
    await machine.assertRestores(broken.uid, broken.bytes);
    await machine.run(["gc", "--sweep"]);
    await machine.run(["fsck"]);
  });

  it("refuses a wrong key, a folder that is not empty, and storages of two repositories", async () => {
    await using repo = await TestRepository.make();
    await using other = await TestRepository.make();
    await backUp(repo, "vol", holedBlocks("x", 3));
    const [from, stranger] = [repo.storageFolder(), other.storageFolder()];
    const before = await repo.objects();
    const folder = repo.home.at("machine");
    const attempt = async (args: readonly string[], code: number): Promise<void> => {
      const ended = await startAshlar(["rebuild", ...args], { env: repo.env }).ended;
      assert.equal(ended.code, code, ended.stderr);
    };
    await attempt([folder, "--from", from, "--key-file", other.keyFile], EXIT_REFUSED);
    const both = ["--from", from, "--from", `two=${stranger}`];
    await attempt([folder, ...both, "--key-file", repo.keyFile], EXIT_REFUSED);
    await attempt([repo.folder, "--from", from, "--key-file", repo.keyFile], EXIT_EXISTS);
    assert.deepEqual(await repo.objects(), before);
  });

  for (const seed of [SEED, `${SEED}/2`]) {
    it(`restores every version whose head is on a storage from that storage alone, after random failures (seed ${seed})`, async () => {
      await using repo = await TestRepository.make({ storages: ["a", "b", "c"] });
      const random = seededRandom(`rebuild/${seed}`);
      const made: Made[] = [];
      const kinds = ["away", "kill", "rm", "away", "kill", "gc"] as const;
      const durationMs = await timed(async () => {
        made.push(await backUp(repo, "vol-0", holedBlocks(`${seed}/0`, 40)));
      });
      for (const [round, kind] of kinds.entries()) {
        const storage = repo.storages[below(random, 3)] ?? "";
        const folder = repo.storageFolder(storage);
        const content = [
          ...holedBlocks(`${seed}/${below(random, round + 1)}`, 30),
          ...holedBlocks(`${seed}/${round + 1}`, 30),
        ];
        const bytes = imageBytes(content);
        if (kind === "away") {
          await rename(folder, `${folder}.aside`);
          made.push(await backUp(repo, `vol-${round % 3}`, content));
          await rename(`${folder}.aside`, folder);
        } else if (kind === "kill") {
          const file = repo.fresh("image");
          await writeFile(file, bytes);
          const plan = {
            random,
            durationMs,
            storages: repo.storages.map((name) => repo.storageFolder(name)),
          };
          const ended = await killAtRandomMoment(
            repo.start(["--json", "backup", file, "killed"]),
            plan,
          );
          if (ended.code === 0) {
            const { uid } = JSON.parse(ended.stdout.toString()) as BackupDocument;
            made.push({ uid, bytes });
          }
        } else if (kind === "rm") {
          const [victim] = made.splice(below(random, made.length), 1);
          if (victim !== undefined) await repo.run(["rm", victim.uid]);
        } else {
          const plan = { random, durationMs, storages: [folder] };
          await killAtRandomMoment(repo.start(["gc", "--abandon", "--sweep"]), plan);
        }
      }
      const complete = new Map(
        (await repo.versions()).map(({ uid, completeAt }) => [uid, completeAt]),
      );
      for (const storage of repo.storages) {
        // The last of them to be rebuilt from is a storage that the metadata may still owe something.
        const from = [repo.storageFolder(storage)];
        const key = ["--key-file", repo.keyFile];
        const machine = await Machine.rebuild(repo.home.at(`machine-${storage}`), from, key);
        const found = new Map(machine.result.versions.map(({ uid, state }) => [uid, state]));
        for (const { uid, bytes } of made) {
          if (complete.get(uid)?.includes(storage) === true) {
            assert.equal(found.get(uid), "valid", `${uid} is complete at ${storage}`);
          }
          // A head on a storage means that this storage alone restores the version.
          if (found.has(uid)) await machine.assertRestores(uid, bytes);
        }
        await machine.run(["fsck"]);
      }
    });
  }

  it("rebuilds from several storages what none of them has whole", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const made = await backUp(repo, "vol", holedBlocks("x", 8));
    const atA = await repo.objects("a", "blocks");
    const atB = await repo.objects("b", "blocks");
    await unlink(atA[0]?.file ?? "");
    const other = atB.find(
      ({ name }) => idsOf([{ name, file: "", sizeBytes: 0 }])[0] === idsOf(atA.slice(1, 2))[0],
    );
    await unlink(other?.file ?? "");
    const from = [`a=${repo.storageFolder("a")}`, `b=${repo.storageFolder("b")}`];
    const key = ["--key-file", repo.keyFile];
    const machine = await Machine.rebuild(repo.home.at("machine"), from, key);
    assert.equal(machine.result.versions[0]?.state, "valid");
    await machine.assertRestores(made.uid, made.bytes);
    await machine.run(["gc"]);
    await machine.run(["fsck"]);
    await machine.run(["scrub", "--deep"]);
    assert.deepEqual(
      idsOf(await repo.objects("a", "blocks")),
      idsOf(await repo.objects("b", "blocks")),
    );
    assert.equal((await repo.objects("a", "blocks")).length, atA.length);
  });
});
