/** bin/ashlar: which Node.js it picks, and that it becomes that process instead of waiting for a child. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmod, copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";

const LAUNCHER = path.resolve(import.meta.dirname, "../../bin/ashlar");
const SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin";
/** Stands for the program: tells what it was started with, then ends as it is told. */
const MAIN = `
const [, , verb, value] = process.argv;
if (verb === "wait") { process.once("SIGTERM", () => process.exit(42)); process.stdin.resume(); }
console.log(JSON.stringify({ pid: process.pid, args: process.argv.slice(2),
  pool: process.env["UV_THREADPOOL_SIZE"], execArgv: process.execArgv }));
if (verb === "exit") process.exit(Number(value));
`;

interface Ended {
  readonly child: ChildProcess;
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function execute(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  onOutput: (child: ChildProcess) => void = () => {},
): Promise<Ended> {
  const child = spawn(file, args, { cwd: "/", env: { PATH: SYSTEM_PATH, ...env } });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (data: Buffer) => {
    stdout += data.toString();
    onOutput(child);
  });
  child.stderr.on("data", (data: Buffer) => (stderr += data.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  return { child, code, stdout, stderr };
}

describe("bin/ashlar", () => {
  let folder = "";
  let launcher = "";

  async function writeNode(at: string, script: string): Promise<void> {
    await mkdir(path.dirname(at), { recursive: true });
    await writeFile(at, `#!/bin/sh\n${script}\n`);
    await chmod(at, 0o755);
  }

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "ashlar-launcher-"));
    launcher = path.join(folder, "a b/bin/ashlar");
    await mkdir(path.dirname(launcher), { recursive: true });
    await mkdir(path.join(folder, "a b/services/cli"), { recursive: true });
    await copyFile(LAUNCHER, launcher);
    await writeFile(path.join(folder, "a b/services/cli/main.ts"), MAIN);
    await writeNode(path.join(folder, "new/node"), `exec "${process.execPath}" "$@"`);
    await writeNode(path.join(folder, "old/node"), "echo v24.11.9");
    await writeNode(path.join(folder, "odd/node"), "echo nothing of use");
  });

  after(async () => {
    if (folder !== "") await rm(folder, { recursive: true, force: true });
  });

  const withNode = (name: string) => ({ PATH: `${path.join(folder, name)}:${SYSTEM_PATH}` });

  it("passes arguments and the exit code, through relative and absolute links", async () => {
    const links = path.join(folder, "links");
    await mkdir(links);
    await symlink("../a b/bin/ashlar", path.join(links, "one"));
    await symlink(path.join(links, "one"), path.join(links, "two"));
    for (const file of [launcher, path.join(links, "one"), path.join(links, "two")]) {
      const ended = await execute(file, ["exit", "9", "", "x  y"], withNode("new"));
      assert.equal(ended.code, 9, ended.stderr);
      const { args } = JSON.parse(ended.stdout) as { args: string[] };
      assert.deepEqual(args, ["exit", "9", "", "x  y"]);
    }
  });

  it("is one process, which gets the signals", async () => {
    const ended = await execute(launcher, ["wait"], withNode("new"), (child) =>
      child.kill("SIGTERM"),
    );
    assert.equal(ended.code, 42);
    assert.equal((JSON.parse(ended.stdout) as { pid: number }).pid, ended.child.pid);
  });

  it("sizes the thread pool unless somebody did", async () => {
    const pool = async (env: Readonly<Record<string, string>>) => {
      const ended = await execute(launcher, [], { ...withNode("new"), ...env });
      return (JSON.parse(ended.stdout) as { pool: string }).pool;
    };
    assert.equal(await pool({}), "16");
    assert.equal(await pool({ UV_THREADPOOL_SIZE: "5" }), "5");
  });

  it("refuses a Node.js that is too old, or none, and says what to do", async () => {
    for (const name of ["old", "odd"]) {
      const ended = await execute(launcher, [], withNode(name));
      assert.equal(ended.code, 78);
      assert.match(ended.stderr, /^ashlar: needs Node\.js 24\.12 or newer, but .*npm ci/);
    }
    const tools = path.join(folder, "tools");
    await mkdir(tools);
    for (const tool of ["readlink", "uname"])
      await symlink(`/usr/bin/${tool}`, path.join(tools, tool));
    const ended = await execute("/bin/sh", [launcher], { PATH: tools });
    assert.equal(ended.code, 78);
    assert.match(ended.stderr, /found none/);
  });

  it("prefers the runtime that npm installed, in any folder above", async () => {
    const packageName = `node-linux-${process.arch}`;
    const bundled = path.join(folder, "node_modules", packageName, "bin/node");
    await writeNode(bundled, "echo bundled; exit 3");
    const ended = await execute(launcher, [], withNode("new"));
    assert.equal(ended.code, 3);
    assert.equal(ended.stdout, "bundled\n");
  });
});
