import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Command } from "commander";
import { InvariantError } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { EXIT_CODES, exitCodeOf, exitCodesHelp, exitCodesMarkdown } from "./exit-codes.ts";

describe("exit codes", () => {
  it("have one row for each class of errors", () => {
    const codes = EXIT_CODES.flatMap((entry) => entry.codes);
    assert.deepEqual(codes.toSorted(), Object.values(ErrorCode).sort());
    const exits = EXIT_CODES.map((entry) => entry.exit);
    assert.deepEqual(
      exits,
      [...new Set(exits)].sort((a, b) => a - b),
    );
  });

  it("are those that were promised", () => {
    const promised: Readonly<Record<ErrorCode, number>> = {
      USAGE: 64,
      DAMAGED: 65,
      NOT_FOUND: 66,
      UNAVAILABLE: 69,
      INTERNAL: 70,
      ALREADY_EXISTS: 73,
      IO: 74,
      TRY_AGAIN: 75,
      CONFLICT: 75,
      FENCED: 75,
      REFUSED: 77,
      CONFIG: 78,
      CANCELLED: 130,
    };
    for (const [code, exit] of Object.entries(promised)) {
      assert.equal(exitCodeOf(new AshlarError(code as ErrorCode, "x")), exit, code);
    }
  });

  it("tell signals apart", () => {
    const cancelled = new AshlarError(ErrorCode.Cancelled, "stopped");
    assert.equal(exitCodeOf(cancelled, "SIGTERM"), 143);
    assert.equal(exitCodeOf(cancelled, "SIGINT"), 130);
    assert.equal(exitCodeOf(cancelled, "SIGHUP"), 130);
    assert.equal(exitCodeOf(new AshlarError(ErrorCode.Io, "x"), "SIGTERM"), 74);
  });

  it("take everything else for a defect, but what commander says", () => {
    for (const error of [new Error("x"), new InvariantError("x"), "x", undefined]) {
      assert.equal(exitCodeOf(error), 70);
    }
    const program = new Command("x")
      .exitOverride()
      .configureOutput({ writeErr() {}, writeOut() {} });
    program.command("verb").argument("<a>");
    const codeFor = (...argv: string[]): number => {
      try {
        program.parse(argv, { from: "user" });
        return -1;
      } catch (error) {
        return exitCodeOf(error);
      }
    };
    assert.equal(codeFor("--help"), 0);
    assert.equal(codeFor("--no-such-option"), 64);
    assert.equal(codeFor("no-such-verb"), 64);
    assert.equal(codeFor("verb"), 64);
  });

  it("are printed", () => {
    assert.match(exitCodesHelp(), /^Exit codes:\n {4}0 {2}ok +done\n {3}64 {2}usage/);
    assert.match(exitCodesMarkdown(), /\n\| 75 \| try-again \| .*\n/);
  });
});
