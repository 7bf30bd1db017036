/** Keys: wrong ones are refused at once, and nothing secret is anywhere but in its own file. */
import assert from "node:assert/strict";
import { copyFile, readFile, rename, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { BLOCK, MIB, noise } from "#test/fixtures/integration-image.ts";
import { runAshlar, startAshlar, type Ended } from "#test/fixtures/integration-process.ts";
import {
  filesBelow,
  TEST_TIMEOUT_MS,
  TestRepository,
} from "#test/fixtures/integration-repository.ts";

const EXIT_REFUSED = 77;
const EXIT_CONFIG = 78;
const PASSPHRASE = "Canary-Passphrase-9d41f7";
const PLAINTEXT = "Canary-Plaintext-5be20c";
const VOLUME = "canary-volume-77ab";

/** An image full of a text that would show wherever it lies in the clear. */
function canaryImage(): Buffer {
  return Buffer.concat([Buffer.alloc(4 * BLOCK, `${PLAINTEXT} `), noise("rest", MIB)]);
}

/** Where one of the needles occurs in the files below a folder. */
async function scan(folder: string, needles: ReadonlyMap<string, Buffer>): Promise<string[]> {
  const hits: string[] = [];
  for (const name of await filesBelow(folder)) {
    const bytes = await readFile(`${folder}/${name}`);
    for (const [what, needle] of needles) {
      if (bytes.includes(needle) || name.includes(needle.toString("latin1"))) {
        hits.push(`${what} in ${folder}/${name}`);
      }
    }
  }
  return hits;
}

function scanOutput(outputs: readonly Ended[], needles: ReadonlyMap<string, Buffer>): string[] {
  return outputs.flatMap(({ args, stdout, stderr }) =>
    [...needles]
      .filter(([, needle]) => stdout.includes(needle) || Buffer.from(stderr).includes(needle))
      .map(([what]) => `${what} in what ${args.join(" ")} printed`),
  );
}

/** A key file's secret in every form in which it might be written down. */
async function keyNeedles(file: string): Promise<Map<string, Buffer>> {
  const text = await readFile(file, "utf8");
  const needles = new Map<string, Buffer>();
  for (const [at, word] of (text.match(/[0-9a-zA-Z+/_=-]{22,}/g) ?? []).entries()) {
    needles.set(`the key (word ${at})`, Buffer.from(word));
    const forms = /^[0-9a-f]+$/i.test(word)
      ? (["hex"] as const)
      : (["base64", "base64url"] as const);
    for (const form of forms) {
      const bytes = Buffer.from(word, form);
      if (bytes.length >= 16) {
        needles.set(`the key's bytes (word ${at}, ${form})`, bytes);
        needles.set(`the key in hex (word ${at}, ${form})`, Buffer.from(bytes.toString("hex")));
      }
    }
  }
  assert.ok(needles.size > 0, "the key file has a secret");
  return needles;
}

/** Runs a command with all of its log, watching its command line as others can see it. */
async function runWatched(
  repo: TestRepository,
  args: readonly string[],
  options: { stdin?: Buffer; env?: Record<string, string> } = {},
): Promise<{ ended: Ended; commandLines: string[] }> {
  const commandLines: string[] = [];
  const running = repo.start(["--log-level", "debug", ...args], options);
  const { pid } = running;
  const look = setInterval(() => {
    readFile(`/proc/${pid}/cmdline`, "latin1").then(
      (line) => commandLines.push(line),
      () => undefined,
    );
  }, 20);
  const ended = await running.ended;
  clearInterval(look);
  return { ended, commandLines };
}

async function assertNothingShows(
  repo: TestRepository,
  secret: ReadonlyMap<string, Buffer>,
  env: Record<string, string>,
): Promise<void> {
  const image = repo.home.at("image");
  await writeFile(image, canaryImage());
  const outputs: Ended[] = [];
  const commandLines: string[] = [];
  const run = async (args: string[], stdin?: Buffer): Promise<Ended> => {
    const options = stdin === undefined ? { env } : { env, stdin };
    const { ended, commandLines: seen } = await runWatched(repo, args, options);
    outputs.push(ended);
    commandLines.push(...seen);
    return ended;
  };
  const made = await run(["backup", image, VOLUME]);
  const uid = made.stdout.toString().trimEnd().split("\n").at(-1) ?? "";
  await run(["backup", "-", VOLUME], canaryImage());
  await run(["restore", uid, repo.home.at("restored")]);
  await run(["scrub", "--deep"]);
  await run(["show", uid]);
  await run(["rm", uid]);
  await run(["gc", "--sweep"]);
  await run(["fsck"]);
  for (const { code, args, stderr } of outputs)
    assert.equal(code, 0, `${args.join(" ")}: ${stderr}`);
  assert.ok((await readFile(repo.home.at("restored"))).equals(canaryImage()));

  const needles = new Map([...secret, ["plaintext", Buffer.from(PLAINTEXT)]]);
  const volume = new Map([["the volume's name", Buffer.from(VOLUME)]]);
  assert.deepEqual(scanOutput(outputs, needles), []);
  assert.ok(commandLines.length > 0, "the process list was looked at");
  for (const [what, needle] of secret) {
    assert.ok(!commandLines.some((line) => line.includes(needle.toString("latin1"))), what);
  }
  assert.deepEqual(await scan(repo.metadata, needles), []);
  for (const storage of repo.storages) {
    const all = new Map([...needles, ...volume]);
    assert.deepEqual(await scan(repo.storageFolder(storage), all), []);
  }
  assert.deepEqual(await scan(repo.home.at("logs"), needles), []);
}

describe("secrets", { timeout: TEST_TIMEOUT_MS }, () => {
  it("shows nothing of a key file or of plaintext in logs, the process list, metadata or storages", async () => {
    await using repo = await TestRepository.make({ init: ["--compression", "none"] });
    const { mode } = await import("node:fs").then(({ statSync }) => statSync(repo.keyFile));
    assert.equal(mode & 0o777, 0o600);
    await assertNothingShows(repo, await keyNeedles(repo.keyFile), {});
  });

  it("shows nothing of a passphrase from the environment", async () => {
    const env = { ASHLAR_PASSPHRASE: PASSPHRASE };
    await using repo = await TestRepository.make({ init: ["--passphrase"], env });
    await assertNothingShows(repo, new Map([["the passphrase", Buffer.from(PASSPHRASE)]]), env);
  });
});

describe("wrong keys", { timeout: TEST_TIMEOUT_MS }, () => {
  it("refuses a wrong key at once, with 77, and changes nothing", async () => {
    await using repo = await TestRepository.make();
    await using other = await TestRepository.make();
    const bytes = noise("x", 3 * BLOCK);
    const { uid } = await repo.backup("-", "vol", [], { stdin: bytes });
    const right = repo.home.at("right.key");
    await rename(repo.keyFile, right);
    await copyFile(other.keyFile, repo.keyFile);
    const before = await filesBelow(repo.storageFolder());
    const target = repo.home.at("target");
    const commands = [
      ["restore", uid, target],
      ["backup", repo.configFile, "vol"],
      ["scrub", "--deep"],
      ["gc"],
      ["rm", uid],
      ["fsck"],
    ];
    for (const args of commands) {
      const error = await repo.fails(EXIT_REFUSED, args);
      assert.match(error.message, /key/);
    }
    assert.deepEqual(await filesBelow(repo.storageFolder()), before);
    await assert.rejects(readFile(target), { code: "ENOENT" });
    assert.equal((await repo.versions())[0]?.status, "valid", "and nothing was marked damaged");
    await rename(right, repo.keyFile);
    await repo.assertRestores(uid, bytes);
    await repo.assertClean();
  });

  it("refuses a wrong passphrase at once, with 77, and takes the right one", async () => {
    const env = { ASHLAR_PASSPHRASE: PASSPHRASE };
    await using repo = await TestRepository.make({ init: ["--passphrase"], env });
    const bytes = noise("x", 3 * BLOCK);
    const { uid } = await repo.backup("-", "vol", [], { stdin: bytes });
    const wrong = { env: { ASHLAR_PASSPHRASE: `${PASSPHRASE}!` } };
    for (const args of [["restore", uid, repo.home.at("target")], ["gc"], ["rm", uid]]) {
      const error = await repo.fails(EXIT_REFUSED, args, wrong);
      assert.match(error.message, /passphrase/);
      assert.ok(!error.message.includes(PASSPHRASE));
    }
    await repo.assertRestores(uid, bytes);
    await repo.assertClean();
  });

  it("says which file is missing or is no key, and asks nobody who is not there", async () => {
    await using repo = await TestRepository.make();
    const { uid } = await repo.backup("-", "vol", [], { stdin: noise("x", BLOCK) });
    const key = await readFile(repo.keyFile);
    const restore = ["restore", uid, repo.home.at("target")];
    await writeFile(repo.keyFile, "this is no key\n");
    const broken = await repo.start(restore).ended;
    assert.ok([EXIT_REFUSED, 65, EXIT_CONFIG].includes(broken.code ?? 0), broken.stderr);
    assert.ok(broken.stderr.includes(repo.keyFile), broken.stderr);
    await rename(repo.keyFile, repo.home.at("elsewhere"));
    const missing = await repo.start(restore).ended;
    assert.notEqual(missing.code, 0);
    assert.ok(missing.stderr.includes(repo.keyFile), missing.stderr);
    await writeFile(repo.keyFile, key, { mode: 0o600 });
    await repo.run(restore);
  });

  it("never takes a secret from an argument", async () => {
    const { stdout } = await runAshlar(["init", "--help"]);
    assert.doesNotMatch(stdout.toString(), /--passphrase <|--key <|--password/);
    const ended = await startAshlar(["init", "--passphrase=secret", "/nonexistent/x"]).ended;
    assert.equal(ended.code, 64);
  });
});
