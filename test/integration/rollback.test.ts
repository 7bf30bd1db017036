/**
 * Metadata or a storage put back from an older copy, and metadata used twice: recognised before anything is written or
 * deleted, refused with the remedy, and mended by it without loss.
 */
import assert from "node:assert/strict";
import { cp, readFile, rename, rm } from "node:fs/promises";
import { describe, it } from "node:test";
import {
  BLOCK,
  type BlockContent,
  imageBytes,
  noise,
  noiseBlocks,
} from "#test/fixtures/integration-image.ts";
import { describeEnd, until } from "#test/fixtures/integration-process.ts";
import {
  filesBelow,
  parseJson,
  TEST_TIMEOUT_MS,
  TestRepository,
  type BackupDocument,
} from "#test/fixtures/integration-repository.ts";

const EXIT_DAMAGED = 65;
const EXIT_REFUSED = 77;

interface Made {
  readonly uid: string;
  readonly bytes: Buffer;
}

async function backUp(
  repo: TestRepository,
  volume: string,
  content: BlockContent[],
): Promise<Made> {
  const bytes = imageBytes(content);
  const { uid } = await repo.backup("-", volume, [], { stdin: bytes });
  return { uid, bytes };
}

function copy(from: string, to: string): Promise<void> {
  return cp(from, to, { recursive: true, preserveTimestamps: true });
}

async function putBack(folder: string, from: string): Promise<void> {
  await rm(folder, { recursive: true });
  await copy(from, folder);
}

/** Everything on a repository's storages, with its content. */
async function photograph(repo: TestRepository): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const storage of repo.storages) {
    const folder = repo.storageFolder(storage);
    for (const name of await filesBelow(folder)) {
      if (name.startsWith("tmp/")) continue;
      found.set(`${storage}/${name}`, (await readFile(`${folder}/${name}`)).toString("base64"));
    }
  }
  return found;
}

/** Every command that writes or deletes is refused with the remedy, and changes nothing on any storage. */
async function assertRefused(
  repo: TestRepository,
  doomed: string,
  others: readonly (readonly string[])[] = [],
): Promise<void> {
  const before = await photograph(repo);
  const stdin = imageBytes(noiseBlocks("after", 3));
  const commands = [["backup", "-", "after"], ["gc", "--sweep"], ["rm", doomed], ...others];
  for (const args of commands) {
    const error = await repo.fails(EXIT_REFUSED, args, args[0] === "backup" ? { stdin } : {});
    const { stderr, stdout } = error.ended;
    const said = `${error.message} ${error.remedy ?? ""} ${stderr} ${stdout.toString()}`;
    assert.ok(said.includes("rebuild --from"), `${args.join(" ")} names the remedy: ${said}`);
  }
  assert.deepEqual(await photograph(repo), before, "nothing was written or deleted");
}

/** After the remedy: all of it is there, every object at every storage is good, and the repository works. */
async function assertMended(repo: TestRepository, kept: readonly Made[]): Promise<void> {
  await repo.run(["gc"]);
  const next = await backUp(repo, "next", noiseBlocks("next", 4));
  await repo.run(["gc", "--sweep"]);
  await repo.run(["scrub", "--deep"]);
  await repo.assertNoOrphans();
  for (const { uid, bytes } of [...kept, next]) await repo.assertRestores(uid, bytes);
}

describe("rollback", { timeout: TEST_TIMEOUT_MS }, () => {
  it("recognises a metadata folder that was put back from an older copy, and mends it without loss", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const one = await backUp(repo, "one", noiseBlocks("one", 5));
    const older = repo.home.at("older");
    await copy(repo.metadata, older);
    const two = await backUp(repo, "two", [...noiseBlocks("one", 3), ...noiseBlocks("two", 4)]);
    await putBack(repo.metadata, older);
    assert.deepEqual(
      (await repo.versions()).map(({ uid }) => uid),
      [one.uid],
    );
    await assertRefused(repo, one.uid, [["gc"], ["scrub", "--deep"], ["protect", one.uid]]);
    // Reading is allowed: it changes nothing.
    await repo.assertRestores(one.uid, one.bytes);
    await repo.run([
      "rebuild",
      "--from",
      repo.storageFolder("a"),
      "--from",
      repo.storageFolder("b"),
    ]);
    await assertMended(repo, [one, two]);
  });

  it("recognises older metadata also when versions were only removed and collected since", async () => {
    await using repo = await TestRepository.make();
    const one = await backUp(repo, "one", noiseBlocks("one", 5));
    const two = await backUp(repo, "two", [...noiseBlocks("one", 2), ...noiseBlocks("two", 4)]);
    const older = repo.home.at("older");
    await copy(repo.metadata, older);
    await repo.run(["rm", two.uid]);
    await repo.run(["gc"]);
    await putBack(repo.metadata, older);
    await assertRefused(repo, one.uid);
    // What these metadata had is not there any more: that is told, and not taken for a removal without being asked.
    const rebuilt = await repo.fails(EXIT_DAMAGED, ["rebuild", "--from", repo.storageFolder()]);
    assert.match(rebuilt.message, /not complete/);
    await repo.run(["rm", two.uid]);
    await assertMended(repo, [one]);
  });

  it("mends older metadata whose trash and claims name what lives by now", async () => {
    await using repo = await TestRepository.make();
    const one = await backUp(repo, "one", noiseBlocks("one", 5));
    const doomed = await backUp(repo, "doomed", noiseBlocks("shared", 5));
    await repo.run(["rm", doomed.uid]);
    const older = repo.home.at("older");
    // What nobody refers to is waiting to be collected in this copy, and is referred to again afterwards.
    await copy(repo.metadata, older);
    const two = await backUp(repo, "two", [...noiseBlocks("shared", 5), ...noiseBlocks("two", 2)]);
    await putBack(repo.metadata, older);
    await assertRefused(repo, one.uid);
    await repo.run(["rebuild", "--from", repo.storageFolder()]);
    await assertMended(repo, [one, two]);
  });

  it("recognises metadata that were cloned and used twice, and mends it without loss of either's versions", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const one = await backUp(repo, "one", noiseBlocks("one", 5));
    const original = repo.home.at("original");
    await copy(repo.metadata, original);
    // The clone works on, then the original is used again.
    const clones = await backUp(repo, "clone", [
      ...noiseBlocks("one", 2),
      ...noiseBlocks("clone", 3),
    ]);
    const cloned = repo.home.at("cloned");
    await rename(repo.metadata, cloned);
    await copy(original, repo.metadata);
    await assertRefused(repo, one.uid);
    await repo.run([
      "rebuild",
      "--from",
      repo.storageFolder("a"),
      "--from",
      repo.storageFolder("b"),
    ]);
    const own = await backUp(repo, "own", noiseBlocks("own", 4));
    await assertMended(repo, [one, clones, own]);

    // And the clone, started again, notices in its turn.
    const mended = repo.home.at("mended");
    await rename(repo.metadata, mended);
    await copy(cloned, repo.metadata);
    await assertRefused(repo, clones.uid);
    await rm(repo.metadata, { recursive: true });
    await rename(mended, repo.metadata);
    await repo.assertRestores(own.uid, own.bytes);
  });

  it("recognises a storage folder that was put back from an older copy, and mends it from the other storage", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const one = await backUp(repo, "one", noiseBlocks("one", 5));
    const older = repo.home.at("older");
    await copy(repo.storageFolder("a"), older);
    const two = await backUp(repo, "two", [...noiseBlocks("one", 3), ...noiseBlocks("two", 4)]);
    await putBack(repo.storageFolder("a"), older);
    await assertRefused(repo, one.uid);
    await repo.run(["rebuild", "--from", repo.storageFolder("a")]);
    await assertMended(repo, [one, two]);
  });

  it("recognises an older storage folder also when versions were only removed and collected since", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const one = await backUp(repo, "one", noiseBlocks("one", 5));
    const two = await backUp(repo, "two", noiseBlocks("two", 4));
    const older = repo.home.at("older");
    await copy(repo.storageFolder("b"), older);
    await repo.run(["rm", two.uid]);
    await repo.run(["gc"]);
    await putBack(repo.storageFolder("b"), older);
    await assertRefused(repo, one.uid);
    await repo.run(["rebuild", "--from", repo.storageFolder("b")]);
    assert.deepEqual(
      (await repo.versions()).map(({ uid }) => uid),
      [one.uid],
      "removed it stays",
    );
    await assertMended(repo, [one]);
  });

  it("reports what an older copy of the only storage has lost, and goes on with the rest", async () => {
    await using repo = await TestRepository.make();
    const one = await backUp(repo, "one", noiseBlocks("one", 5));
    const older = repo.home.at("older");
    await copy(repo.storageFolder(), older);
    const two = await backUp(repo, "two", [...noiseBlocks("one", 3), ...noiseBlocks("two", 4)]);
    await putBack(repo.storageFolder(), older);
    await assertRefused(repo, one.uid);
    // Nothing else has it: no remedy brings it back, and none may hide that.
    const ended = await repo.run(["rebuild", "--from", repo.storageFolder()], { code: 65 });
    assert.ok(ended.stdout.toString().includes(two.uid), describeEnd(ended));
    await repo.assertRestores(one.uid, one.bytes);
    assert.equal((await repo.show(two.uid)).status, "invalid");
    const again = await repo.backup("-", "two", [], { stdin: two.bytes });
    await repo.assertRestores(again.uid, two.bytes);
    await assertMended(repo, [one, two]);
  });
});

describe("a backup from a stream", { timeout: TEST_TIMEOUT_MS }, () => {
  it("never fails because versions were removed and collected meanwhile", async () => {
    await using repo = await TestRepository.make();
    // What the stream brings is known from versions that go one by one while it comes.
    const parts = Array.from({ length: 3 }, (_, at) => imageBytes(noiseBlocks(`part ${at}`, 64)));
    const versions: string[] = [];
    for (const [at, bytes] of parts.entries()) {
      versions.push((await repo.backup("-", `part-${at}`, [], { stdin: bytes })).uid);
    }
    const before = await repo.blockCount();
    const running = repo.start(["--json", "backup", "-", "stream"], { stdin: "pipe" });
    for (const [at, bytes] of parts.entries()) {
      // Half of the part, and time to claim it; then what it was known from goes.
      await running.write(bytes.subarray(0, 32 * BLOCK));
      if (at === 0) {
        await until(async () => {
          const { sessions } = await repo.json<{ sessions: unknown[] }>(["status"]);
          return sessions.length > 0 ? true : undefined;
        });
      }
      await repo.run(["rm", versions[at] ?? ""]);
      await repo.run(["gc"]);
      await repo.run(["gc", "--abandon", "--sweep"]);
      await running.write(bytes.subarray(32 * BLOCK));
      await repo.run(["gc"]);
      assert.ok(!running.hasEnded, running.stderr);
    }
    const tail = noise("tail", 777);
    await running.write(tail);
    running.child.stdin?.end();
    const ended = await running.ended;
    assert.equal(ended.code, 0, describeEnd(ended));
    const { uid } = parseJson<BackupDocument>(ended);
    await repo.assertRestores(uid, Buffer.concat([...parts, tail]));
    await repo.run(["gc", "--sweep"]);
    await repo.assertNoOrphans();
    assert.equal(await repo.blockCount(), before + 1);
    await repo.run(["scrub", "--deep"]);
  });
});
