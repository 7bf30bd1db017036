// Where the configuration is found, what colours, pipes and shells do, and that stdout has nothing but results.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { noise } from "#test/fixtures/integration-image.ts";
import { ASHLAR, runAshlar } from "#test/fixtures/integration-process.ts";
import { TestRepository, TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";

const options = { timeout: TEST_TIMEOUT_MS };
const ESCAPE = String.fromCodePoint(0x1b);

async function withVersions(): Promise<TestRepository> {
  const repository = await TestRepository.make();
  const source = repository.fresh("disk");
  await writeFile(source, noise("disk", 1000));
  await repository.backup(source, "web");
  return repository;
}

/** Runs a command on a terminal and returns what it showed. */
async function onTerminal(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<string> {
  const command = [ASHLAR, ...args].map((word) => `'${word}'`).join(" ");
  const child = spawn("script", ["-qec", command, "/dev/null"], {
    env: { PATH: process.env["PATH"] ?? "", TERM: "xterm", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let shown = "";
  child.stdout.on("data", (data: Buffer) => (shown += data.toString()));
  await once(child, "close");
  return shown;
}

describe("the configuration", options, () => {
  it("is found by option (file or folder), environment and working folder, in this order", async () => {
    await using repository = await withVersions();
    await using empty = await TestRepository.make();
    const count = async (args: readonly string[], env: Record<string, string>, cwd: string) => {
      const { stdout } = await runAshlar([...args, "ls", "--json"], {
        env: { ...repository.env, ...env },
        cwd,
      });
      return (JSON.parse(stdout.toString()) as { versions: object[] }).versions.length;
    };
    const { folder, configFile } = repository;
    assert.equal(await count([], {}, folder), 1);
    assert.equal(await count([], { ASHLAR_CONFIG: empty.folder }, folder), 0);
    assert.equal(
      await count(["--config", configFile], { ASHLAR_CONFIG: empty.folder }, empty.folder),
      1,
    );
    assert.equal(await count(["-c", path.relative("/", folder)], {}, "/"), 1);
    await runAshlar(["ls"], {
      cwd: "/",
      env: { ASHLAR_CONFIG: path.join(folder, "nothing") },
      code: 78,
    });
  });

  it("can be used from any folder, with relative sources and targets", async () => {
    await using repository = await TestRepository.make();
    const cwd = repository.fresh("elsewhere");
    await mkdir(cwd);
    const bytes = noise("disk", 5000);
    await writeFile(path.join(cwd, "disk.img"), bytes);
    await repository.run(["backup", "disk.img", "web"], { cwd });
    await repository.run(["restore", "web@latest", "out.img"], { cwd });
    assert.deepEqual(await readFile(path.join(cwd, "out.img")), bytes);
    assert.deepEqual(
      (await repository.run(["restore", "web@latest", "file:out2.img"], { cwd })).code,
      0,
    );
    assert.ok(existsSync(path.join(cwd, "out2.img")));
  });

  it("sets log level and format, and options win", async () => {
    await using repository = await TestRepository.make({ storages: ["one", "two"] });
    const source = repository.fresh("disk");
    await writeFile(source, noise("disk", 1000));
    await repository.configure(
      [["storages", 1, "url"], repository.fresh("gone")],
      [["log"], { format: "json" }],
    );
    const { stderr, stdout } = await repository.run(["backup", source, "web"]);
    const lines = stderr
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { level: string; msg: string });
    assert.ok(
      lines.some(({ level, msg }) => level === "warn" && /two is away/.test(msg)),
      stderr,
    );
    assert.match(stdout.toString(), /web-[a-z0-9]{6}\n$/);
    const text = await repository.run(["backup", source, "web", "--log-format", "text"]);
    assert.match(text.stderr, /WARN.*two is away/);
    const failed = await repository.run(["show", "nothing", "--log-format", "json"], { code: 66 });
    const error = JSON.parse(failed.stderr) as Record<string, unknown>;
    assert.deepEqual(
      [error["level"], error["code"], error["exitCode"]],
      ["error", "NOT_FOUND", 66],
    );
  });
});

describe("options of all commands", options, () => {
  it("may stand before and after the verb", async () => {
    await using repository = await withVersions();
    const args = [
      ["--json", "ls"],
      ["ls", "--json"],
      ["storage", "--json", "ls"],
      ["storage", "ls", "--json"],
    ];
    for (const each of args) JSON.parse((await repository.run(each)).stdout.toString());
    const after = await runAshlar(["ls", "--json", "--config", repository.folder], {
      env: repository.env,
    });
    assert.equal(
      (JSON.parse(after.stdout.toString()) as { versions: object[] }).versions.length,
      1,
    );
  });

  it("--json prints one document, also when the command fails", async () => {
    await using repository = await TestRepository.make();
    const { stdout, stderr } = await repository.run(["show", "nothing", "--json"], { code: 66 });
    const { error } = JSON.parse(stdout.toString()) as { error: Record<string, unknown> };
    assert.equal(error["exitCode"], 66);
    assert.match(stderr, /^ashlar: there is no version nothing\n {2}\S/);
  });

  it("every help text has examples", async () => {
    const { stdout } = await runAshlar(["--help"]);
    const verbs = [...stdout.toString().matchAll(/^ {2}([a-z]+) .*$/gm)].map(
      ([, verb = ""]) => verb,
    );
    assert.ok(verbs.length > 18, verbs.join(" "));
    for (const verb of ["init", "backup", "storage", "completion"]) {
      assert.ok(verbs.includes(verb));
      const help = await runAshlar([verb, "--help"]);
      assert.match(help.stdout.toString(), /Examples:\n {2}ashlar /);
      assert.equal(help.stderr, "");
    }
  });
});

describe("pipes and terminals", options, () => {
  it("a reader that stops early is no failure", async () => {
    await using repository = await withVersions();
    const child = spawn(ASHLAR, ["-c", repository.folder, "--help"], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.stdout.destroy();
    let stderr = "";
    child.stderr.on("data", (data: Buffer) => (stderr += data.toString()));
    const [code] = (await once(child, "close")) as [number];
    assert.deepEqual([code, stderr], [0, ""]);
  });

  it("colours are for terminals, and NO_COLOR turns them off", async (t) => {
    if (!existsSync("/usr/bin/script")) return t.skip("needs script (bsdutils)");
    await using repository = await withVersions();
    const args = ["-c", repository.folder, "ls"];
    assert.ok((await onTerminal(args, {})).includes(`${ESCAPE}[1m`));
    assert.ok(!(await onTerminal(args, { NO_COLOR: "1" })).includes(ESCAPE));
    assert.ok(!(await repository.run(["ls"])).stdout.toString().includes(ESCAPE));
  });
});

describe("completion", options, () => {
  it("for bash is a script that loads and completes", async () => {
    const { stdout } = await runAshlar(["completion", "bash"]);
    const script = stdout.toString();
    execFileSync("bash", ["-n"], { input: script });
    const complete = `COMP_WORDS=(ashlar re); COMP_CWORD=1; _ashlar; echo "\${COMPREPLY[@]}"`;
    const words = execFileSync("bash", ["-c", `set -eu; ${script}\n${complete}`], {
      encoding: "utf8",
    });
    assert.deepEqual(words.trim().split(" ").sort(), ["rebuild", "replicate", "restore", "revoke"]);
  });

  it("for zsh and fish is printed", async () => {
    assert.match((await runAshlar(["completion", "zsh"])).stdout.toString(), /^#compdef ashlar/);
    assert.match((await runAshlar(["completion", "fish"])).stdout.toString(), /complete .*ashlar/);
  });
});
