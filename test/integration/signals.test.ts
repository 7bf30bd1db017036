/** SIGINT and SIGTERM stop cleanly and resumably; SIGSTOP beyond the lease is survived by everybody. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BLOCK, MIB, noise, writeNoise } from "#test/fixtures/integration-image.ts";
import { describeEnd, until, type RunningProcess } from "#test/fixtures/integration-process.ts";
import {
  parseJson,
  TEST_TIMEOUT_MS,
  TestRepository,
  type BackupDocument,
} from "#test/fixtures/integration-repository.ts";

const EXIT_TRY_AGAIN = 75;
const EXIT_BY_SIGNAL = { SIGINT: 130, SIGTERM: 143 } as const;
const IMAGE_BYTES = 32 * MIB;

interface StatusDocument {
  readonly sessions: readonly { readonly kind: string; readonly state: string }[];
}

/** Little memory, so that a backup that is stopped has work left. */
async function smallMemory(lease?: string): Promise<TestRepository> {
  const repo = await TestRepository.make();
  await repo.configure([["memory", "budget"], "32MiB"]);
  if (lease !== undefined) await repo.configure([["sessions", "lease"], lease]);
  return repo;
}

/** Waits until the command has stored something beyond `before` blocks. */
async function untilStored(
  repo: TestRepository,
  running: RunningProcess,
  before = 0,
): Promise<void> {
  await until(async () => {
    assert.ok(!running.hasEnded, `ended too early: ${running.stderr}`);
    return (await repo.blockCount()) > before ? true : undefined;
  });
}

async function sessionStates(repo: TestRepository): Promise<string[]> {
  const { sessions } = await repo.json<StatusDocument>(["status"]);
  return sessions.map(({ state }) => state);
}

/** Waits until others take the session of a stopped process for lost. */
async function untilLost(repo: TestRepository): Promise<void> {
  await until(async () => {
    const states = await sessionStates(repo);
    return states.every((state) => state === "vanished") ? true : undefined;
  }, 200);
}

describe("signals", { timeout: TEST_TIMEOUT_MS }, () => {
  for (const [signal, code] of Object.entries(EXIT_BY_SIGNAL) as ["SIGINT" | "SIGTERM", number][]) {
    it(`stops a backup cleanly on ${signal}, with ${code}, resumable`, async () => {
      await using repo = await smallMemory();
      const image = repo.home.at("image");
      const bytes = await writeNoise(image, signal, IMAGE_BYTES);
      const running = repo.start(["backup", image, "vol"]);
      await untilStored(repo, running);
      running.signal(signal);
      const ended = await running.ended;
      assert.equal(ended.code, code, describeEnd(ended));
      // A stop that took too long ends without a word.
      assert.match(ended.stderr, /can be resumed/);
      assert.deepEqual(await sessionStates(repo), ["dead"]);
      const stored = await repo.blockCount();
      const again = await repo.backup(image);
      assert.equal(again.resumed, true);
      assert.ok(again.blocksNew <= bytes.length / BLOCK - stored + 16, `${stored} were stored`);
      assert.equal(await repo.blockCount(), bytes.length / BLOCK);
      await repo.assertRestores(again.uid, bytes);
    });
  }

  it("stops commands that hang at their source or target on SIGTERM, with 143", async () => {
    await using repo = await TestRepository.make();
    const bytes = noise("hangs", 8 * MIB);
    const { uid } = await repo.backup("-", "vol", [], { stdin: bytes });
    const before = await repo.blockCount();

    const backup = repo.start(["backup", "-", "stream"], { stdin: "pipe" });
    backup.child.stdin?.on("error", () => undefined);
    await backup.write(noise("stream", 4 * MIB + 1));
    await untilStored(repo, backup, before);
    backup.signal("SIGTERM");
    const stoppedBackup = await backup.ended;
    assert.equal(stoppedBackup.code, EXIT_BY_SIGNAL.SIGTERM, describeEnd(stoppedBackup));

    const restore = repo.start(["restore", uid, "-"]);
    restore.child.stdout?.pause();
    await until(async () => ((await sessionStates(repo)).includes("live") ? true : undefined));
    restore.signal("SIGTERM");
    restore.child.stdout?.resume();
    const stoppedRestore = await restore.ended;
    assert.equal(stoppedRestore.code, EXIT_BY_SIGNAL.SIGTERM, describeEnd(stoppedRestore));

    await repo.assertRestores(uid, bytes);
    await repo.run(["gc", "--abandon", "--sweep"]);
    await repo.assertNoOrphans();
    assert.equal(await repo.blockCount(), before);
  });

  it("stops gc and scrub on SIGTERM, with 143, and the next ones end their work", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const bytes = noise("kept", 8 * MIB);
    const { uid } = await repo.backup("-", "kept", [], { stdin: bytes });
    for (const args of [
      ["gc", "--sweep"],
      ["scrub", "--deep"],
    ]) {
      const doomed = await repo.backup("-", "doomed", [], { stdin: noise(args.join(), 8 * MIB) });
      await repo.run(["rm", doomed.uid]);
      const running = repo.start(args);
      // Right after its start: it may be anywhere, even done.
      await new Promise((resolve) => setTimeout(resolve, 700));
      running.signal("SIGTERM");
      const ended = await running.ended;
      assert.ok([0, 143, null].includes(ended.code), describeEnd(ended));
      await repo.run(args);
    }
    await repo.run(["gc", "--sweep"]);
    await repo.assertNoOrphans();
    await repo.assertRestores(uid, bytes);
  });
});

describe("SIGSTOP beyond the lease", { timeout: TEST_TIMEOUT_MS }, () => {
  it("lets a backup go on that others have noticed as dead meanwhile", async () => {
    await using repo = await smallMemory("1s");
    const image = repo.home.at("image");
    const bytes = await writeNoise(image, "stopped", IMAGE_BYTES);
    const stopped = repo.start(["--json", "backup", image, "vol"]);
    await untilStored(repo, stopped);
    stopped.signal("SIGSTOP");
    await untilLost(repo);
    // Notices the dead session, and leaves it resumable.
    await repo.run(["gc"]);
    assert.deepEqual(await sessionStates(repo), ["dead"]);
    stopped.signal("SIGCONT");
    const ended = await stopped.ended;
    assert.equal(ended.code, 0, describeEnd(ended));
    await repo.assertRestores(parseJson<BackupDocument>(ended).uid, bytes);
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
  });

  it("lets somebody else take the backup over: one version, and the stopped process does no harm", async () => {
    await using repo = await smallMemory("1s");
    const image = repo.home.at("image");
    const bytes = await writeNoise(image, "taken over", IMAGE_BYTES);
    const stopped = repo.start(["--json", "backup", image, "vol"]);
    await untilStored(repo, stopped);
    stopped.signal("SIGSTOP");
    await untilLost(repo);
    const other = await repo.backup(image);
    assert.equal(other.resumed, true);
    await repo.assertRestores(other.uid, bytes);
    stopped.signal("SIGCONT");
    const ended = await stopped.ended;
    assert.equal(ended.code, EXIT_TRY_AGAIN, describeEnd(ended));
    // Its temporary files go when the storage is opened for writing next.
    await repo.run(["gc"]);
    await repo.run(["gc", "--sweep"]);
    await repo.assertNoOrphans();
    assert.equal(await repo.blockCount(), bytes.length / BLOCK);
    await repo.assertRestores(other.uid, bytes);
    assert.deepEqual(
      (await repo.versions()).map(({ uid }) => uid),
      [other.uid],
    );
  });

  it("lets gc --abandon give it up: the stopped process fails, leaves nothing, and can be run again", async () => {
    await using repo = await smallMemory("1s");
    const image = repo.home.at("image");
    const bytes = await writeNoise(image, "abandoned", IMAGE_BYTES);
    const stopped = repo.start(["--json", "backup", image, "vol"]);
    await untilStored(repo, stopped);
    stopped.signal("SIGSTOP");
    await untilLost(repo);
    await repo.run(["gc", "--abandon"]);
    assert.equal(await repo.blockCount(), 0);
    stopped.signal("SIGCONT");
    const ended = await stopped.ended;
    assert.equal(ended.code, EXIT_TRY_AGAIN, describeEnd(ended));
    await repo.run(["gc", "--abandon", "--sweep"]);
    await repo.assertNoOrphans();
    assert.equal(await repo.blockCount(), 0, "what the stopped process still put was swept");
    const again = await repo.backup(image);
    await repo.assertRestores(again.uid, bytes);
  });
});
