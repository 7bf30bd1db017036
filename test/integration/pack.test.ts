/**
 * The package as a user gets it: packed, installed globally with the system's npm, and used for one backup
 * and one restore. It needs npm and the registry (or npm's cache) for the dependencies.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";

const ROOT = path.resolve(import.meta.dirname, "../..");
const INSTALL_TIMEOUT_MS = 300_000;

/** Not a multiple of the block size, with a hole in the middle and a block that occurs twice. */
function sourceBytes(): Buffer {
  const repeated = randomBytes(4 << 20);
  return Buffer.concat([repeated, Buffer.alloc(9 << 20), repeated, randomBytes(123_456)]);
}

/** A user's shell does not have our node_modules/.bin first on PATH, as npm's scripts have. */
function userEnvironment(): NodeJS.ProcessEnv {
  const folders = (process.env["PATH"] ?? "").split(path.delimiter);
  const clean = folders.filter((folder) => !folder.includes("node_modules"));
  return { ...process.env, PATH: clean.join(path.delimiter), INIT_CWD: undefined };
}

async function run(file: string, args: readonly string[], cwd: string): Promise<string> {
  const options = { cwd, env: userEnvironment(), maxBuffer: 64 << 20, timeout: INSTALL_TIMEOUT_MS };
  const { stdout } = await promisify(execFile)(file, args, options);
  return stdout;
}

function lastLine(text: string): string {
  return text.trimEnd().split("\n").at(-1) ?? "";
}

describe("the packed package", () => {
  let folder = "";
  let ashlar = "";
  let packedFiles: string[] = [];

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "ashlar-pack-"));
    await run("npm", ["pack", "--pack-destination", folder], ROOT);
    const tarball = (await readdir(folder)).find((name) => name.endsWith(".tgz"));
    assert.ok(tarball !== undefined, "npm pack made a tarball");
    packedFiles = (await run("tar", ["-tzf", tarball], folder)).trim().split("\n");
    const prefix = path.join(folder, "prefix");
    const flags = ["--global", "--prefix", prefix, "--prefer-offline", "--no-audit", "--no-fund"];
    await run("npm", ["install", ...flags, path.join(folder, tarball)], folder);
    ashlar = path.join(prefix, "bin/ashlar");
  });

  after(async () => {
    if (folder !== "") await rm(folder, { recursive: true, force: true });
  });

  it("holds compiled files and nothing that belongs to the tests", () => {
    for (const entry of ["cli", "coordinator", "dedup", "reader", "writer"])
      assert.ok(packedFiles.includes(`package/dist/services/${entry}/main.js`), entry);
    assert.ok(packedFiles.includes("package/bin/ashlar"));
    const unwanted = packedFiles.filter((file) => /\.ts$|\.test\.|\/test\//.test(file));
    assert.deepEqual(unwanted, []);
  });

  it("says its version, from any folder and through a symbolic link", async () => {
    const manifest = await readFile(path.join(ROOT, "package.json"), "utf8");
    const { version } = JSON.parse(manifest) as { version: string };
    const link = path.join(folder, "linked");
    await symlink(path.relative(folder, ashlar), link);
    for (const command of [ashlar, link]) {
      const printed = await run(command, ["version"], "/");
      assert.ok(printed.includes(version), `"${printed}" names ${version}`);
    }
  });

  it("backs up and restores", async () => {
    const [config, source, target] = ["config", "source.img", "restored.img"].map((name) =>
      path.join(folder, name),
    ) as [string, string, string];
    const content = sourceBytes();
    await writeFile(source, content);
    await run(ashlar, ["init", config], folder);
    const backup = await run(ashlar, ["--config", config, "backup", source, "vol"], folder);
    await run(ashlar, ["--config", config, "restore", lastLine(backup), target], folder);
    assert.ok(content.equals(await readFile(target)), "the restored file equals the source");
  });
});
