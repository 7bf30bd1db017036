// `ashlar init`: what it makes, what it refuses, and that nothing half-made stays behind.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { noise } from "#test/fixtures/integration-image.ts";
import { runAshlar } from "#test/fixtures/integration-process.ts";
import { TemporaryFolder, TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";

const options = { timeout: TEST_TIMEOUT_MS };

async function modeOf(file: string): Promise<string> {
  return ((await stat(file)).mode & 0o777).toString(8);
}

describe("init", options, () => {
  it("makes configuration, key, metadata and one storage, and says to copy the key", async () => {
    await using home = await TemporaryFolder.make();
    const folder = home.at("a", "b", "repo");
    const { stdout, stderr } = await runAshlar(["init", folder]);
    assert.deepEqual((await readdir(folder)).sort(), [
      "ashlar.key",
      "ashlar.yaml",
      "metadata",
      "storage",
    ]);
    assert.equal(await modeOf(path.join(folder, "ashlar.key")), "600");
    assert.equal(await modeOf(path.join(folder, "metadata")), "700");
    assert.match(stdout.toString(), /storage main: file:\/\//);
    assert.match(stderr, new RegExp(`COPY THE KEY OFF THIS MACHINE NOW.*${folder}/ashlar.key`));
    const config = await readFile(path.join(folder, "ashlar.yaml"), "utf8");
    assert.match(config, /^keyFile: ashlar\.key$/m);
    assert.match(config, /^ {4}url: storage$/m, "the folder can be moved");
    const names = await readdir(path.join(folder, "storage"));
    assert.ok(names.includes("ashlar-storage.json"));
    assert.equal((await readdir(path.join(folder, "storage/keys"))).length, 1);
    assert.equal((await readdir(path.join(folder, "storage/stamps"))).length, 1);
  });

  it("tells all of it with --json", async () => {
    await using home = await TemporaryFolder.make();
    const args = ["init", home.at("r"), "--json", "--block-size", "1MiB", "--hash", "hmac-sha256"];
    const { stdout } = await runAshlar([...args, "--storage", `s=${home.at("s")}`]);
    const document = JSON.parse(stdout.toString()) as Record<string, unknown>;
    assert.match(String(document["repository"]), /^[0-9a-f]{16}$/);
    assert.deepEqual(
      { ...document, repository: "" },
      {
        repository: "",
        config: home.at("r", "ashlar.yaml"),
        metadata: home.at("r", "metadata"),
        keyFile: home.at("r", "ashlar.key"),
        passphraseFile: null,
        blockBytes: 1024 * 1024,
        quorum: 1,
        storages: [{ name: "s", url: `file://${home.at("s")}` }],
      },
    );
  });

  it("refuses a folder that is not empty, and leaves it as it was", async () => {
    await using home = await TemporaryFolder.make();
    await writeFile(home.at("something"), "of somebody");
    await runAshlar(["init", home.path], { code: 73 });
    assert.deepEqual(await readdir(home.path), ["something"]);
    await runAshlar(["init", home.at("something")], { code: 73 });
    await mkdir(home.at("empty"));
    await runAshlar(["init", home.at("empty")]);
    await runAshlar(["init", home.at("empty")], { code: 73 });
  });

  it("leaves nothing half-made behind", async () => {
    await using home = await TemporaryFolder.make();
    await mkdir(home.at("taken"));
    await writeFile(home.at("taken", "file"), "of somebody");
    await mkdir(home.at("empty"));
    const args = ["init", home.at("x", "repo"), "--key-file", home.at("my.key")];
    const storages = ["first", "empty", "taken"].flatMap((name) => [
      "--storage",
      `${name}=${home.at(name)}`,
    ]);
    await runAshlar([...args, ...storages], { code: 73 });
    assert.deepEqual((await readdir(home.path)).sort(), ["empty", "taken"]);
    assert.deepEqual(await readdir(home.at("empty")), []);
    assert.deepEqual(await readdir(home.at("taken")), ["file"]);
  });

  it("refuses options that do not fit, before anything is made", async () => {
    await using home = await TemporaryFolder.make();
    const wrong: readonly (readonly string[])[] = [
      ["--quorum", "2"],
      ["--quorum", "0"],
      ["--block-size", "5MiB"],
      ["--block-size", "32MiB"],
      ["--hash", "md5"],
      ["--storage", "main"],
      ["--storage", `a=${home.at("a")}`, "--storage", `a=${home.at("b")}`],
      ["--storage", `a=${home.at("a")}`, "--storage", `b=${home.at("a")}`],
      ["--storage", `a b=${home.at("a")}`],
      ["--passphrase-file", home.at("p"), "--key-file", home.at("k")],
    ];
    for (const args of wrong) {
      const { stderr } = await runAshlar(["init", home.at("repo"), ...args], { code: 64 });
      assert.doesNotMatch(stderr, /ashlar\.yaml:\d/, "no lines of a file that is not there");
      assert.deepEqual(await readdir(home.path), [], args.join(" "));
    }
    await runAshlar(["init", home.at("repo"), "--passphrase-file", home.at("p")], { code: 66 });
    assert.deepEqual(await readdir(home.path), []);
  });

  it("puts the key elsewhere, and never over another file", async () => {
    await using home = await TemporaryFolder.make();
    await runAshlar(["init", home.at("repo"), "--key-file", home.at("my.key")]);
    assert.equal(await modeOf(home.at("my.key")), "600");
    assert.ok(!existsSync(home.at("repo", "ashlar.key")));
    const before = await readFile(home.at("my.key"), "utf8");
    await runAshlar(["init", home.at("other"), "--key-file", home.at("my.key")], { code: 73 });
    assert.equal(await readFile(home.at("my.key"), "utf8"), before);
    assert.ok(!existsSync(home.at("other")));
    await runAshlar(["-c", home.at("repo"), "ls"]);
  });

  it("works with a passphrase, from a file and from the environment", async () => {
    await using home = await TemporaryFolder.make();
    await writeFile(home.at("passphrase"), "correct horse\n");
    await chmod(home.at("passphrase"), 0o600);
    const source = home.at("disk.img");
    await writeFile(source, noise("disk", 100_000));
    const file = ["init", home.at("repo"), "--passphrase-file", home.at("passphrase")];
    const { stderr } = await runAshlar(file);
    assert.match(stderr, /COPY THE PASSPHRASE OFF THIS MACHINE/);
    await runAshlar(["-c", home.at("repo"), "backup", source, "vol"]);
    const env = { ASHLAR_PASSPHRASE: "battery staple" };
    await runAshlar(["init", home.at("other"), "--passphrase"], { env });
    await runAshlar(["-c", home.at("other"), "backup", source, "vol"], { env });
    const wrong = { ASHLAR_PASSPHRASE: "correct horse" };
    const refused = await runAshlar(["-c", home.at("other"), "backup", source, "vol"], {
      env: wrong,
      code: 77,
    });
    assert.match(refused.stderr, /passphrase is wrong/);
    // Without any, and without a terminal, nobody can be asked.
    await runAshlar(["-c", home.at("other"), "backup", source, "vol"], { code: 77 });
  });

  it("makes a repository that can be moved as a whole", async () => {
    await using home = await TemporaryFolder.make();
    const bytes = noise("disk", 200_000);
    await writeFile(home.at("disk.img"), bytes);
    await runAshlar(["init", home.at("old")]);
    await runAshlar(["-c", home.at("old"), "backup", home.at("disk.img"), "vol"]);
    await rename(home.at("old"), home.at("new"));
    await runAshlar(["-c", home.at("new"), "restore", "vol@latest", home.at("out.img")]);
    assert.deepEqual(await readFile(home.at("out.img")), bytes);
  });
});
