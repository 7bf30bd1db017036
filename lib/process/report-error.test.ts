import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CommanderError } from "commander";
import { InvariantError } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { reportError } from "./report-error.ts";

const plain = { debug: false, signalName: undefined };

describe("errors", () => {
  it("are a message and the remedy on the next line, without a stack", () => {
    const error = new AshlarError(ErrorCode.NotFound, "there is no version x", { remedy: "look" });
    const { exitCode, lines, document } = reportError(error, plain);
    assert.equal(exitCode, 66);
    assert.deepEqual(lines, ["ashlar: there is no version x", "  look"]);
    assert.deepEqual(document, {
      error: { code: "NOT_FOUND", exitCode: 66, message: "there is no version x", remedy: "look" },
    });
  });

  it("show stack and causes with --log-level debug", () => {
    const error = new AshlarError(ErrorCode.Io, "reading", { cause: new Error("EIO") });
    const { lines } = reportError(error, { ...plain, debug: true });
    assert.ok(lines.some((line) => /^ {4}at .*report-error\.test/.test(line)));
    assert.ok(lines.includes("  caused by Error: EIO"));
  });

  it("that are defects say so, with a short stack", () => {
    const { exitCode, lines } = reportError(new InvariantError("two is three"), plain);
    assert.equal(exitCode, 70);
    assert.equal(lines[0], "ashlar: internal error: InvariantError: two is three");
    assert.ok(lines.length <= 7);
    assert.match(lines.at(-1) ?? "", /please report/);
  });

  it("of commander are usage errors in one line", () => {
    const error = new CommanderError(
      1,
      "commander.unknownCommand",
      "error: unknown command 'x'\n(Did you mean y?)",
    );
    const { exitCode, lines } = reportError(error, plain);
    assert.equal(exitCode, 64);
    assert.equal(lines[0], "ashlar: unknown command 'x' (Did you mean y?)");
  });

  it("after a signal are the signal's, where they are its consequence", () => {
    const stopped = { debug: false, signalName: "SIGTERM" };
    const aborted = new DOMException("This operation was aborted", "AbortError");
    assert.equal(reportError(aborted, stopped).exitCode, 143);
    assert.equal(
      reportError(new AshlarError(ErrorCode.Cancelled, "stopped"), stopped).exitCode,
      143,
    );
    assert.equal(
      reportError(new AshlarError(ErrorCode.Cancelled, "stopped"), {
        debug: false,
        signalName: "SIGINT",
      }).exitCode,
      130,
    );
    assert.equal(reportError(new AshlarError(ErrorCode.Damaged, "rot"), stopped).exitCode, 65);
  });
});
