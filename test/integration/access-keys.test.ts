// `ashlar key` over real storages: several access keys, each of which restores; storages that are away; rotations that are killed.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, watch } from "node:fs";
import {
  chmod,
  copyFile,
  cp,
  mkdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import type { AccessKeyList } from "#services/cli/list-access-keys.ts";
import { BLOCK, noise } from "#test/fixtures/integration-image.ts";
import { LastRelease, lastReleaseMissing } from "#test/fixtures/last-release.ts";
import { describeEnd, runAshlar } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";

const EXIT_REFUSED = 77;
const EXIT_USAGE = 64;
const EXIT_EXISTS = 73;
const EXIT_NOT_FOUND = 66;
const PASSPHRASE = "a passphrase for the office";

interface Added {
  readonly id: string;
  readonly keyFile: string | null;
  readonly storages: readonly { readonly storage: string; readonly reason: string | null }[];
}

const list = (repo: TestRepository, options = {}): Promise<AccessKeyList> =>
  repo.json<AccessKeyList>(["key", "ls"], options);

/** Runs a command with another access key than the configured one. */
async function withKey(
  repo: TestRepository,
  key: { readonly keyFile?: string; readonly passphrase?: string },
  args: readonly string[],
  code = 0,
): Promise<string> {
  const config = repo.fresh("config");
  const text = await readFile(repo.configFile, "utf8");
  const line = key.keyFile === undefined ? "" : `keyFile: ${key.keyFile}`;
  await mkdir(config);
  const file = path.join(config, "ashlar.yaml");
  await writeFile(
    file,
    text.replace(/^keyFile:.*$/m, line).replace(/^metadata:.*$/m, `metadata: ${repo.metadata}`),
  );
  const env = { ...repo.env, ASHLAR_PASSPHRASE: key.passphrase ?? "" };
  const ended = await runAshlar(["--config", file, "--yes", ...args], { env, code });
  return ended.stdout.toString() + ended.stderr;
}

async function assertRestoresWith(
  repo: TestRepository,
  key: Parameters<typeof withKey>[1],
  uid: string,
  expected: Buffer,
): Promise<void> {
  const target = repo.fresh("restored");
  await withKey(repo, key, ["restore", uid, target]);
  assert.ok((await readFile(target)).equals(expected));
}

/** Makes everything anew from one storage and one access key. */
async function assertRebuilds(
  repo: TestRepository,
  storage: string,
  keyFile: string,
  uid: string,
  expected: Buffer,
): Promise<void> {
  // A copy: the storage itself stays this repository's.
  const copy = repo.fresh("copy");
  await cp(repo.storageFolder(storage), copy, { recursive: true });
  const folder = repo.fresh("rebuilt");
  await runAshlar(["rebuild", folder, "--from", copy, "--key-file", keyFile], { env: repo.env });
  const target = repo.fresh("restored");
  await runAshlar(["--config", folder, "restore", uid, target], { env: repo.env });
  assert.ok((await readFile(target)).equals(expected));
  await runAshlar(["--config", folder, "scrub", "--deep"], { env: repo.env });
}

async function backupOf(
  repo: TestRepository,
  seed: string,
): Promise<{ uid: string; bytes: Buffer }> {
  const bytes = noise(seed, 5 * BLOCK);
  const image = repo.fresh("image");
  await writeFile(image, bytes);
  return { uid: (await repo.backup(image)).uid, bytes };
}

describe("access keys", { timeout: TEST_TIMEOUT_MS }, () => {
  for (const kind of ["aes", "x25519"]) {
    it(`are added and removed at once, each opens all backups, and a rotation keeps them all (${kind})`, async () => {
      await using repo = await TestRepository.make({
        storages: ["main", "off"],
        init: ["--repository-key", kind],
      });
      const before = await backupOf(repo, "before");
      const second = repo.home.at("second.key");
      const added = await repo.json<Added>(["key", "add", "--key-file", second, "--label", "two"]);
      assert.equal(added.keyFile, second);
      assert.equal((await stat(second)).mode & 0o777, 0o600);
      assert.deepEqual(
        added.storages.map(({ reason }) => reason),
        [null, null],
      );
      await repo.run(["key", "add", "--passphrase", "--label", "office"], {
        env: { ASHLAR_NEW_PASSPHRASE: PASSPHRASE },
      });
      const keys = [{ keyFile: repo.keyFile }, { keyFile: second }, { passphrase: PASSPHRASE }];
      for (const key of keys) await assertRestoresWith(repo, key, before.uid, before.bytes);

      await repo.run(["key", "rotate"]);
      const after = await backupOf(repo, "after");
      for (const key of keys) {
        for (const { uid, bytes } of [before, after])
          await assertRestoresWith(repo, key, uid, bytes);
      }
      const { keys: listed, repositoryKeys, strangers } = await list(repo);
      const full = { capability: "full", rotates: "yes", storages: ["main", "off"] };
      assert.deepEqual(
        listed.map(({ label, type, inUse, capability, rotates, storages }) => {
          return { label, type, inUse, capability, rotates, storages };
        }),
        [
          Object.assign({ label: "", type: "keyfile", inUse: true }, full),
          Object.assign({ label: "two", type: "keyfile", inUse: false }, full),
          Object.assign({ label: "office", type: "passphrase", inUse: false }, full),
        ],
      );
      assert.deepEqual(
        repositoryKeys.map(({ kind: each, state }) => [each, state]),
        [
          [kind, "retired"],
          [kind, "active"],
        ],
      );
      assert.deepEqual(strangers, []);
      for (const storage of repo.storages) {
        for (const { uid, bytes } of [before, after])
          await assertRebuilds(repo, storage, second, uid, bytes);
      }

      await repo.run(["key", "remove", "two"]);
      const told = await withKey(
        repo,
        { keyFile: second },
        ["restore", before.uid, "x"],
        EXIT_REFUSED,
      );
      assert.match(told, /was removed/);
      for (const storage of repo.storages) {
        const names = (await repo.objects(storage, "keys")).map(({ name }) => name);
        assert.ok(!names.includes(`keys/${added.id}`) && names.length === 2, names.join());
      }
      assert.ok(!existsSync(path.join(repo.metadata, "keys", added.id)));
      // It can be let in again.
      await repo.run(["key", "add", "--key-file", second]);
      await assertRestoresWith(repo, { keyFile: second }, after.uid, after.bytes);
      await repo.assertNoOrphans();
    });
  }

  it("are refused where they would lock somebody out, be there twice, or come from an argument", async () => {
    await using repo = await TestRepository.make();
    const [own] = (await list(repo)).keys;
    assert.ok(own !== undefined);
    const alone = await repo.fails(EXIT_REFUSED, ["key", "remove", own.id]);
    assert.match(alone.message, /the one in use/);
    const second = repo.home.at("second.key");
    await repo.run(["key", "add", "--key-file", second, "--label", "two"]);
    const twice = await repo.fails(EXIT_EXISTS, ["key", "add", "--key-file", second]);
    assert.match(twice.message, /already/);
    const again = repo.home.at("again.key");
    await repo.fails(EXIT_EXISTS, ["key", "add", "--key-file", again, "--label", "two"]);
    assert.ok(!existsSync(again), "what was made for nothing is taken back");
    await repo.fails(EXIT_NOT_FOUND, ["key", "remove", "three"]);
    await repo.fails(EXIT_USAGE, ["key", "add"]);
    await repo.fails(EXIT_USAGE, ["key", "add", "--passphrase", "--key-file", again]);
    await repo.fails(EXIT_USAGE, ["key", "add", "--passphrase", "--label", own.id]);
    const writer = await repo.fails(EXIT_REFUSED, [
      "key",
      "add",
      "--key-file",
      again,
      "--write-only",
    ]);
    assert.match(writer.remedy ?? "", /rotate --repository-key x25519/);
    // Another key that opens nothing shows nothing.
    await copyFile(repo.keyFile, repo.home.at("own.key"));
    await repo.fails(EXIT_REFUSED, [
      "key",
      "remove",
      own.id,
      "--key-file",
      repo.home.at("own.key"),
    ]);
    await repo.run(["key", "remove", own.id, "--key-file", second]);
    await repo.fails(EXIT_REFUSED, ["key", "ls"]);
    await withKey(repo, { keyFile: second }, ["key", "ls"]);
    const last = await withKey(
      repo,
      { keyFile: second },
      ["key", "remove", "two", "--key-file", second],
      EXIT_REFUSED,
    );
    assert.match(last, /not one of this repository|no key objects|last full/);
  });

  it("come to storages that were away when somebody next writes there, before anything else", async () => {
    await using repo = await TestRepository.make({ storages: ["main", "off"] });
    const before = await backupOf(repo, "before");
    const [third, gone] = [repo.home.at("third.key"), repo.home.at("gone.key")];
    const { id } = await repo.json<Added>(["key", "add", "--key-file", gone, "--label", "gone"]);
    const [here, away] = [repo.storageFolder("off"), repo.home.at("away")];
    await rename(here, away);
    const added = await repo.json<Added>(["key", "add", "--key-file", third, "--label", "third"]);
    assert.equal(added.storages.find(({ storage }) => storage === "off")?.reason === null, false);
    await repo.run(["key", "remove", "gone"]);
    await repo.run(["key", "rotate"]);
    const meanwhile = await backupOf(repo, "meanwhile");
    await rename(away, here);
    const { keys, strangers } = await list(repo);
    assert.deepEqual(
      keys.map(({ missingAt }) => missingAt),
      [["off"], ["off"]],
    );
    assert.deepEqual(strangers, [{ storage: "off", name: `keys/${id}`, removed: true }]);
    const after = await backupOf(repo, "after");
    const { keys: now, strangers: left } = await list(repo);
    assert.deepEqual(
      now.map(({ missingAt }) => missingAt),
      [[], []],
    );
    assert.deepEqual(left, []);
    await repo.run(["replicate"]);
    for (const { uid, bytes } of [before, meanwhile, after]) {
      await assertRebuilds(repo, "off", third, uid, bytes);
    }
  });

  it(
    "are taken into metadata that the last release made, and then rotate",
    { skip: lastReleaseMissing() ?? false },
    async () => {
      await using release = await LastRelease.layOut();
      await using repo = await TestRepository.make({
        storages: ["main", "off"],
        program: release.program,
      });
      const image = repo.home.at("image");
      const bytes = noise("old", 5 * BLOCK);
      await writeFile(image, bytes);
      const run = (args: readonly string[], code = 0) =>
        runAshlar(["--config", repo.folder, ...args], {
          env: repo.env,
          program: release.program,
          code,
        });
      await run(["backup", image, "vol"]);
      const [version] = await repo.versions();
      assert.ok(version !== undefined);
      await repo.assertRestores(version.uid, bytes);
      // A second access key of the last release's making: one without facts.
      const [own] = (await list(repo)).keys;
      assert.equal(own?.rotates, "yes");
      // The release before goes on with what was brought up to date.
      await run(["backup", image, "vol"]);
      await run(["restore", version.uid, repo.home.at("by-the-last")]);
      await repo.run(["key", "rotate"]);
      const after = await backupOf(repo, "new");
      await repo.assertRestores(version.uid, bytes);
      await repo.assertRestores(after.uid, after.bytes);
      const refused = await run(
        ["restore", after.uid, repo.home.at("not-by-the-last")],
        EXIT_REFUSED,
      );
      assert.match(refused.stderr, /newer Ashlar/);
      await repo.assertNoOrphans();
    },
  );
});

describe("a rotation", { timeout: TEST_TIMEOUT_MS }, () => {
  it("that is killed at any step has happened for all or for nobody, and storages catch up", async () => {
    await using repo = await TestRepository.make({
      storages: ["main", "off"],
      init: ["--repository-key", "x25519"],
    });
    const second = repo.home.at("second.key");
    await repo.run(["key", "add", "--key-file", second]);
    const backups = [await backupOf(repo, "first")];
    const started = performance.now();
    await repo.run(["key", "rotate"]);
    const durationMs = performance.now() - started;
    const places = [
      path.join(repo.metadata, "keys"),
      ...repo.storages.map((name) => path.join(repo.storageFolder(name), "keys")),
    ];
    const outcomes = new Set<string>();
    for (let round = 0; round < 10; round += 1) {
      const before = (await list(repo)).repositoryKeys.length;
      const running = repo.start(["key", "rotate"]);
      if (round < 6) killAtChange(running, places[round % 3] as string, 1 + Math.floor(round / 3));
      else setTimeout(() => running.signal("SIGKILL"), durationMs * (0.1 + (round - 6) * 0.15));
      const ended = await running.ended;
      const { keys, repositoryKeys } = await list(repo);
      assert.ok([before, before + 1].includes(repositoryKeys.length), describeEnd(ended));
      assert.equal(keys.length, 2);
      const behind = new Set(keys.flatMap(({ missingAt }) => missingAt)).size;
      outcomes.add(`${repositoryKeys.length - before} made, ${behind} storages behind`);
      // Each time with another key, and each backup from each storage alone.
      const key = round % 2 === 0 ? repo.keyFile : second;
      const bytes = noise(`round ${round}`, 3 * BLOCK);
      const image = repo.fresh("image");
      await writeFile(image, bytes);
      await withKey(repo, { keyFile: key }, ["backup", image, "vol"]);
      const newest = (await repo.versions()).at(-1);
      assert.ok(newest !== undefined);
      backups.push({ uid: newest.uid, bytes });
      assert.deepEqual(
        (await list(repo)).keys.flatMap(({ missingAt }) => missingAt),
        [],
      );
    }
    assert.ok(outcomes.has("0 made, 0 storages behind"), [...outcomes].join("; "));
    assert.ok([...outcomes].some((each) => each.startsWith("1 made") && !each.includes(" 0 ")));
    for (const storage of repo.storages) {
      const { uid, bytes } = backups[0] as (typeof backups)[number];
      await assertRebuilds(repo, storage, second, uid, bytes);
      const last = backups.at(-1) as (typeof backups)[number];
      await assertRebuilds(repo, storage, repo.keyFile, last.uid, last.bytes);
    }
    for (const { uid, bytes } of backups) await repo.assertRestores(uid, bytes);
    await repo.assertNoOrphans();
  });

  it("is refused while an access key cannot be sealed to, or nobody vouches for it", async () => {
    await using repo = await TestRepository.make();
    const second = repo.home.at("second.key");
    const { id } = await repo.json<Added>(["key", "add", "--key-file", second, "--label", "two"]);
    // As the first release made it, on all storages and in the metadata: by way of a rebuild.
    const file = path.join(repo.storageFolder(), "keys", id);
    const json = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
    const {
      public: _,
      capability: __,
      label: ___,
      createdMs: ____,
      revision: _____,
      mac,
      ...old
    } = json;
    const rebuilt = repo.home.at("rebuilt");
    const rebuildWith = async (content: object): Promise<TestRepositoryLike> => {
      await writeFile(file, JSON.stringify(content));
      await rm(rebuilt, { recursive: true, force: true });
      const args = ["rebuild", rebuilt, "--from", repo.storageFolder(), "--key-file", repo.keyFile];
      const { stderr } = await runAshlar(args, { env: repo.env });
      return { stderr };
    };
    await rebuildWith(old);
    const run = (args: readonly string[], code: number) =>
      runAshlar(["--config", rebuilt, ...args], { env: repo.env, code });
    const refused = await run(["key", "rotate"], EXIT_REFUSED);
    assert.match(refused.stderr, new RegExp(`${id}.*\\n.*key ls`, "s"));
    // Its owner uses it once, and all is well.
    const config = path.join(rebuilt, "ashlar.yaml");
    const text = await readFile(config, "utf8");
    await writeFile(config, text.replace(/^keyFile:.*$/m, `keyFile: ${second}`));
    await run(["key", "ls"], 0);
    await writeFile(config, text);
    await run(["key", "rotate"], 0);
    // A key object that somebody else has put onto the storage is let in by nobody.
    const forged = { ...json, accessId: "00000000000000ff", mac: { ...(mac as object) } };
    await writeFile(
      path.join(repo.storageFolder(), "keys", "00000000000000ff"),
      JSON.stringify(forged),
    );
    const { stderr } = await rebuildWith(json);
    assert.match(stderr, /00000000000000ff was left out/);
    const listed = await run(["key", "ls"], 0);
    assert.match(listed.stdout.toString(), /00000000000000ff, which is no access key/);
  });

  it("is not undone by metadata that are put back from a backup", async () => {
    await using repo = await TestRepository.make();
    const kept = repo.home.at("kept");
    await cp(repo.metadata, kept, { recursive: true });
    await repo.run(["key", "rotate"]);
    await rm(repo.metadata, { recursive: true });
    await rename(kept, repo.metadata);
    const [name] = (await repo.objects("main", "keys")).map((each) => each.file);
    assert.ok(name !== undefined);
    const there = await readFile(name);
    const image = repo.home.at("image");
    const bytes = noise("image", 3 * BLOCK);
    await writeFile(image, bytes);
    const ended = await repo.start(["backup", image, "vol"]).ended;
    assert.notEqual(ended.code, 0, describeEnd(ended));
    assert.match(ended.stderr, /newer than the metadata/);
    assert.deepEqual(await readFile(name), there);
    await repo.run(["rebuild"]);
    const { uid } = await repo.backup(image);
    await repo.assertRestores(uid, bytes);
    assert.equal((await list(repo)).repositoryKeys.length, 2);
  });
});

type TestRepositoryLike = { readonly stderr: string };

/** Kills a process when something in a folder has changed so many times. */
function killAtChange(
  running: ReturnType<TestRepository["start"]>,
  folder: string,
  changes: number,
): void {
  let left = changes;
  const watcher = watch(folder, () => {
    left -= 1;
    if (left === 0) running.signal("SIGKILL");
  });
  void running.ended.then(() => watcher.close());
}

describe("a write-only access key", { timeout: TEST_TIMEOUT_MS }, () => {
  it("backs up, dedups, collects, replicates, finds rot and heals it, and reads nothing", async () => {
    await using repo = await TestRepository.make({
      storages: ["main", "off"],
      init: ["--repository-key", "x25519", "--compression", "none"],
    });
    const first = await backupOf(repo, "first");
    const writer = repo.home.at("writer.key");
    await repo.run(["key", "add", "--key-file", writer, "--label", "web1", "--write-only"]);
    const as = (args: readonly string[], code = 0) =>
      withKey(repo, { keyFile: writer }, args, code);

    const image = repo.home.at("image");
    const bytes = Buffer.concat([first.bytes, noise("second", 5 * BLOCK)]);
    await writeFile(image, bytes);
    const told = await as(["--json", "backup", image, "vol"]);
    const document = JSON.parse(told.slice(0, told.lastIndexOf("}") + 1)) as {
      uid: string;
      blocksNew: number;
    };
    assert.equal(document.blocksNew, 5);
    const { uid } = document;

    const target = repo.home.at("target");
    await writeFile(target, "what was there");
    for (const args of [
      ["restore", "--force", uid, target],
      ["restore", uid, "-"],
    ]) {
      const refused = await as(args, EXIT_REFUSED);
      assert.match(refused, /write-only/);
      assert.match(refused, /full access key/);
      assert.ok(!refused.includes(bytes.toString("latin1", 0, 16)));
    }
    assert.equal(await readFile(target, "utf8"), "what was there");
    for (const args of [
      ["rebuild"],
      ["key", "add", "--key-file", repo.home.at("third.key")],
      ["key", "remove", "web1"],
      ["key", "rotate"],
      ["key", "kit"],
    ]) {
      assert.match(await as(args, EXIT_REFUSED), /write-only/, args.join(" "));
    }
    assert.match(await as(["key", "ls"]), /web1 +keyfile +write-only/);

    // Rot, a missing object and one in the place of another are found without opening anything, and healed.
    const blocks = await repo.objects("off", "blocks");
    const [rotten, missing, swapped, other] = blocks.map(({ file }) => file);
    assert.ok(rotten !== undefined && missing !== undefined && swapped !== undefined);
    const damaged = await readFile(rotten);
    damaged[5000] = (damaged[5000] as number) ^ 1;
    await writeFile(rotten, damaged);
    await rm(missing);
    await copyFile(other as string, swapped);
    const scrubbed = await as(["scrub", "--deep"], 65);
    assert.match(scrubbed, /does not fit its checksum/);
    assert.match(scrubbed, /is another object in its place/);
    assert.match(scrubbed, /missing/);
    await as(["scrub", "--deep"]);
    await repo.run(["scrub", "--deep"]);
    await repo.assertRestores(uid, bytes, "off");

    // A storage that was away is filled by it, after a rotation, too, of which nobody has told it.
    await rename(repo.storageFolder("off"), repo.home.at("away"));
    await repo.run(["key", "rotate"]);
    const third = noise("third", 4 * BLOCK);
    await writeFile(image, third);
    await as(["backup", image, "vol"]);
    await rename(repo.home.at("away"), repo.storageFolder("off"));
    await as(["replicate"]);
    await as(["rm", first.uid]);
    await as(["gc", "--sweep"]);
    const newest = (await repo.versions()).find(({ uid: each }) => each !== uid);
    assert.ok(newest !== undefined);
    for (const storage of repo.storages) {
      await repo.assertRestores(newest.uid, third, storage);
      await assertRebuilds(repo, storage, repo.keyFile, newest.uid, third);
    }
    assert.equal((await list(repo)).keys.flatMap(({ missingAt }) => missingAt).length, 0);
    await repo.run(["scrub", "--deep"]);
    // What was under the retired key was wrapped anew.
    await repo.run(["gc"]);
    await repo.assertNoOrphans();
  });
});

describe("the emergency kit", { timeout: TEST_TIMEOUT_MS }, () => {
  it("restores on a machine that has nothing but it and a storage", async () => {
    await using repo = await TestRepository.make();
    const { uid, bytes } = await backupOf(repo, "image");
    const [plain, page] = [repo.home.at("plain.txt"), repo.home.at("kit.txt")];
    await repo.run(["key", "kit", "--output", plain]);
    await repo.run(["key", "kit", "--with-key", "--output", page]);
    assert.equal((await stat(page)).mode & 0o777, 0o600);
    await repo.fails(EXIT_EXISTS, ["key", "kit", "--output", page]);
    await repo.fails(EXIT_USAGE, ["key", "kit", "--with-key"]);
    const digits = /ASHLAR-KEY-1:(\S+)/.exec(await readFile(repo.keyFile, "utf8"))?.[1] ?? "";
    assert.ok(digits.length > 50);
    const shown = (await repo.run(["key", "kit"])).stdout.toString();
    for (const text of [shown, await readFile(plain, "utf8")]) assert.ok(!text.includes(digits));
    // As somebody does what the page says, in other places than /srv and /root.
    const text = await readFile(page, "utf8");
    const typed = text.split("\n").find((line) => /^ +([0-9A-Z]{4}-){13}[0-9A-Z]{4}$/.test(line));
    assert.ok(typed !== undefined, text);
    const keyFile = repo.home.at("typed.key");
    await writeFile(keyFile, `ASHLAR-KEY-1:${typed.toLowerCase().replaceAll("-", " ")}`);
    await chmod(keyFile, 0o600);
    const restored = repo.home.at("restored");
    const commands = text
      .split("\n")
      .filter((line) => line.startsWith("     ashlar") || line.startsWith("       --from"))
      .join("\n")
      .replaceAll("/srv/ashlar", repo.home.at("new"))
      .replaceAll("/root/ashlar.key", keyFile)
      .replace("VERSION TARGET", `${uid} ${restored}`);
    await repo.run(["key", "ls"]);
    const ashlar = path.resolve(import.meta.dirname, "../../bin/ashlar");
    const script = `set -e\nashlar() { ${ashlar} "$@"; }\n${commands}\n`;
    const done = spawnSync("sh", ["-c", script], {
      env: { ...process.env, ...repo.env },
      encoding: "utf8",
    });
    assert.equal(done.status, 0, done.stderr);
    assert.ok((await readFile(restored)).equals(bytes));
  });
});
