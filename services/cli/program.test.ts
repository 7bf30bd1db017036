// The command line without a repository: what commander and we make of arguments.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { PassThrough } from "node:stream";
import { testSurroundings } from "#test/fakes/cli-surroundings.ts";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { wantsColor, type CommandContext } from "./context.ts";
import { runProgram } from "./program.ts";
import { confirm } from "./prompt.ts";

async function run(...args: string[]) {
  const world = testSurroundings();
  const code = await runProgram(args, world);
  return { code, ...world.written };
}

describe("the program", () => {
  it("shows help of all verbs on stdout, and for nothing at all on stderr", async () => {
    const help = await run("--help");
    assert.equal(help.code, 0);
    assert.match(help.stdout, /^ {2}backup .*\n[^]*^ {2}version /m);
    assert.equal(help.stderr, "");
    const nothing = await run();
    assert.equal(nothing.code, 64);
    assert.equal(nothing.stdout, "");
    assert.match(nothing.stderr, /^Usage: ashlar/);
  });

  it("suggests what was meant, also where another word is a verb", async () => {
    for (const args of [["bakup"], ["bakup", "ls"]]) {
      const { code, stderr } = await run(...args);
      assert.equal(code, 64);
      assert.match(stderr, /unknown command 'bakup' \(Did you mean backup\?\)/);
    }
  });

  it("takes options of all commands before and after the verb", async () => {
    for (const args of [
      ["--json", "version"],
      ["version", "--json"],
      ["version", "--json", "--log-level", "debug"],
    ]) {
      const { code, stdout } = await run(...args);
      assert.equal(code, 0);
      assert.match((JSON.parse(stdout) as { version: string }).version, /^\d+\.\d+\.\d+/);
    }
  });

  it("tells errors once, on stderr, and with --json on stdout as well", async () => {
    const text = await run("show", "x", "--config", "/nonexistent");
    assert.equal(text.code, 78);
    assert.equal(text.stdout, "");
    assert.equal(text.stderr.match(/there is no configuration/g)?.length, 1);
    const json = await run("show", "x", "--config", "/nonexistent", "--json");
    const { error } = JSON.parse(json.stdout) as { error: { code: string; exitCode: number } };
    assert.deepEqual([error.code, error.exitCode], ["CONFIG", 78]);
  });
});

describe("colours", () => {
  it("are for terminals that have them, unless NO_COLOR is set to anything", () => {
    const terminal = { isTTY: true };
    assert.ok(wantsColor({}, terminal));
    assert.ok(wantsColor({ NO_COLOR: "" }, terminal));
    assert.ok(!wantsColor({ NO_COLOR: "0" }, terminal));
    assert.ok(!wantsColor({ TERM: "dumb" }, terminal));
    assert.ok(!wantsColor({}, {}));
  });
});

describe("a confirmation", () => {
  const ask = async (terminal: boolean, yes: boolean, answer?: string): Promise<string> => {
    const world = testSurroundings({ terminal });
    const context = { ...world, options: { yes } } as unknown as CommandContext;
    const asked = confirm(context, "Remove it?");
    if (answer !== undefined) (world.stdin as unknown as PassThrough).write(`${answer}\n`);
    await asked;
    return world.written.stderr;
  };

  it("is asked for on a terminal only, and --yes answers it", async () => {
    assert.equal(await ask(false, false), "");
    assert.equal(await ask(true, true), "");
    assert.match(await ask(true, false, "y"), /Remove it\? \[y\/N\]/);
    assert.match(await ask(true, false, "YES"), /Remove it/);
  });

  it("takes anything but a yes for a no", async () => {
    for (const answer of ["", "n", "yep", "no"]) {
      await assert.rejects(ask(true, false, answer), (error) =>
        isErrorCode(error, ErrorCode.Cancelled),
      );
    }
  });
});
