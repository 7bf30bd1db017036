// Every documented exit code, with its message and remedy.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { open, rename, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { EXIT_CODES } from "#lib/process/exit-codes.ts";
import { imageBytes, noise } from "#test/fixtures/integration-image.ts";
import { ASHLAR, runAshlar, until } from "#test/fixtures/integration-process.ts";
import {
  TemporaryFolder,
  TestRepository,
  TEST_TIMEOUT_MS,
} from "#test/fixtures/integration-repository.ts";

const options = { timeout: TEST_TIMEOUT_MS };

/** The codes that these tests have seen; the last test compares them with the table. */
const seen = new Set([0]);

describe("exit codes", options, () => {
  it("64: a usage that makes no sense", async () => {
    await using repository = await TestRepository.make();
    const wrong: readonly (readonly string[])[] = [
      ["nothing-like-this"],
      ["ls", "a", "b"],
      ["ls", "--no-such-option"],
      ["ls", "volume =="],
      ["ls", "nothing == 1"],
      ["rm"],
      ["enforce", "days0"],
      ["enforce", "fortnights2"],
      ["backup", "-", "-bad-"],
      ["restore", "--range", "1", "x", "y"],
      ["scrub", "--sample", "0%"],
      ["scrub", "--budget", "much"],
      ["completion", "csh"],
      ["--log-level", "loud", "ls"],
      ["storage"],
      [],
    ];
    for (const args of wrong) {
      const { stderr } = await repository.run(args, { code: 64 });
      assert.ok(stderr.length > 0, args.join(" "));
    }
    seen.add(64);
  });

  it("65: damage, and malformed hints", async () => {
    await using repository = await TestRepository.make();
    const source = repository.fresh("disk");
    await writeFile(source, noise("disk", 300_000));
    const hints = repository.fresh("hints");
    await writeFile(hints, "not json");
    const malformed = await repository.fails(65, ["backup", source, "vol", "--hints", hints]);
    assert.equal(malformed.code, "DAMAGED");
    const { uid } = await repository.backup(source);
    const [block] = await repository.objects(undefined, "blocks");
    await writeFile(block!.file, "rot");
    await repository.fails(65, ["restore", uid, repository.fresh("target")]);
    const scrub = await repository.fails(65, ["scrub", "--deep"]);
    assert.equal(
      (JSON.parse(scrub.ended.stdout.toString()) as { damaged: object[] }).damaged.length,
      1,
    );
    assert.match(scrub.message, /1 damaged objects were found; 0 are healed/);
    seen.add(65);
  });

  it("66: what is not there", async () => {
    await using repository = await TestRepository.make();
    const missing: readonly (readonly string[])[] = [
      ["show", "vol-x"],
      ["show", "vol@latest"],
      ["rm", "vol-x"],
      ["restore", "vol-x", repository.fresh("target")],
      ["backup", repository.fresh("nothing"), "vol"],
      ["backup", "-", "vol", "--storage", "nowhere"],
      ["storage", "stats", "nowhere"],
    ];
    for (const args of missing) {
      const error = await repository.fails(66, args);
      assert.equal(error.code, "NOT_FOUND", args.join(" "));
    }
    seen.add(66);
  });

  it("69: a storage that is away, and metadata that are not mounted", async () => {
    await using repository = await TestRepository.make({ storages: ["one", "two"] });
    const source = repository.fresh("disk");
    const bytes = noise("disk", 100_000);
    await writeFile(source, bytes);
    await rename(repository.storageFolder("two"), repository.fresh("unmounted"));
    const error = await repository.fails(69, ["backup", source, "vol", "--require-complete"]);
    assert.match(error.message, /two is away/);
    const { uid, storages } = await repository.backup(source);
    assert.deepEqual(
      storages.map(({ complete }) => complete),
      [true, false],
    );
    assert.match(String(storages[1]?.reason), /marker/);
    await repository.assertRestores(uid, bytes);
    await rename(repository.metadata, repository.fresh("metadata"));
    const lost = await repository.fails(69, ["ls"]);
    assert.match(String(lost.remedy), /ashlar rebuild/);
    seen.add(69);
  });

  it("73: a target that exists", async () => {
    await using repository = await TestRepository.make();
    const source = repository.fresh("disk");
    await writeFile(source, noise("disk", 1000));
    const { uid } = await repository.backup(source);
    const error = await repository.fails(73, ["restore", uid, source]);
    assert.match(String(error.remedy), /--force/);
    seen.add(73);
  });

  it("74: input or output that fails", async () => {
    await using repository = await TestRepository.make();
    const source = repository.fresh("disk");
    await writeFile(source, noise("disk", 1000));
    const { uid } = await repository.backup(source);
    // Standard output is a device that is always full.
    const full = await open("/dev/full", "w");
    const child = spawn(ASHLAR, ["-c", repository.folder, "restore", uid, "-"], {
      env: { PATH: process.env["PATH"] ?? "", ...repository.env },
      stdio: ["ignore", full.fd, "pipe"],
    });
    let stderr = "";
    child.stderr?.on("data", (data: Buffer) => (stderr += data.toString()));
    const [code] = (await once(child, "close")) as [number];
    assert.equal(code, 74, stderr);
    assert.match(stderr, /no space left/);
    const list = spawn(ASHLAR, ["-c", repository.folder, "ls"], {
      stdio: ["ignore", full.fd, "inherit"],
    });
    assert.deepEqual(await once(list, "close"), [74, null], "ls > /dev/full");
    await full.close();
    seen.add(74);
  });

  it("75: an unfinished version, until it is abandoned; 137 leaves it resumable", async () => {
    await using repository = await TestRepository.make();
    const started = repository.start(["backup", "-", "vol"], { stdin: "pipe" });
    await started.write(noise("a", 200_000));
    type Versions = { versions: { uid: string }[] };
    const uid = await until(async () => {
      const { versions } = await repository.json<Versions>(["ls"]);
      return versions[0]?.uid;
    });
    const busy = await repository.fails(75, ["rm", uid]);
    assert.equal(busy.code, "TRY_AGAIN");
    await started.kill();
    const status = await repository.json<{ sessions: { state: string }[] }>(["status"]);
    assert.deepEqual(
      status.sessions.map(({ state }) => state),
      ["vanished"],
    );
    await repository.run(["gc", "--abandon"]);
    assert.deepEqual(await repository.versions(), []);
    await repository.assertNoOrphans();
    seen.add(75);
  });

  it("77: a wrong key, a wrong storage, a protected version", async () => {
    await using repository = await TestRepository.make();
    await using other = await TestRepository.make();
    const source = repository.fresh("disk");
    await writeFile(source, noise("disk", 1000));
    const { uid } = await repository.backup(source);
    await repository.run(["protect", uid]);
    assert.equal((await repository.fails(77, ["rm", uid])).code, "REFUSED");
    await repository.configure([["keyFile"], other.keyFile]);
    const wrongKey = await repository.fails(77, ["backup", source, "vol"]);
    assert.match(wrongKey.message, /key file is not one of this repository/);
    await repository.fails(77, ["unprotect", uid]);
    assert.equal((await repository.show(uid)).status, "valid", "ls and show need no key");
    await repository.configure(
      [["keyFile"], repository.keyFile],
      [["storages", 0, "url"], other.storageFolder()],
    );
    const wrongStorage = await repository.fails(77, ["backup", source, "vol"]);
    assert.match(wrongStorage.message, /another repository/);
    seen.add(77);
  });

  it("78: a configuration that is missing or wrong, with its line", async () => {
    await using home = await TemporaryFolder.make();
    await runAshlar(["ls"], { cwd: home.path, code: 78 });
    await runAshlar(["-c", home.at("nothing"), "ls"], { code: 78 });
    await using repository = await TestRepository.make();
    await repository.configure([["defaults", "quorum"], 7]);
    const error = await repository.fails(78, ["ls"]);
    assert.match(error.message, /ashlar\.yaml:\d+:\d+: defaults\.quorum: expected at most 1/);
    const url = repository.fresh("second");
    await repository.configure(
      [["defaults", "quorum"], 1],
      [["storages", 1], { name: "second", url }],
    );
    const unknown = await repository.fails(78, ["backup", repository.configFile, "vol"]);
    assert.match(String(unknown.remedy), /`ashlar storage add second`/);
    seen.add(78);
  });

  it("130 and 143: signals stop cleanly and say that the backup can be resumed", async () => {
    await using repository = await TestRepository.make();
    for (const [signal, code] of [
      ["SIGINT", 130],
      ["SIGTERM", 143],
    ] as const) {
      const source = repository.fresh("disk");
      const blocks = Array.from({ length: 800 }, (_, index) => ({ noise: `${signal} ${index}` }));
      const bytes = imageBytes(blocks);
      await writeFile(source, bytes);
      // Before it has begun there is nobody yet who listens to the signal.
      const before = await repository.blockCount();
      const started = repository.start(["backup", source, "vol"]);
      await until(async () => ((await repository.blockCount()) > before ? true : undefined));
      started.signal(signal);
      const ended = await started.ended;
      if (ended.code === 0) continue;
      assert.equal(ended.code, code, ended.stderr);
      assert.match(
        ended.stderr,
        new RegExp(`ashlar: stopped by ${signal}\\n +the backup can be resumed: `),
      );
      seen.add(code);
      const done = await repository.backup(source);
      await repository.assertRestores(done.uid, bytes);
    }
  });

  it("are all in the table, and tested here but for the defects'", () => {
    // A backup may be faster than a signal; signals.test.ts sees to those.
    const elsewhere = new Set([130, 143]);
    const untested = EXIT_CODES.map(({ exit }) => exit).filter(
      (exit) => !seen.has(exit) && !elsewhere.has(exit),
    );
    assert.deepEqual(untested, [70]);
  });
});
