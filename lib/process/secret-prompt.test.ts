import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { promptSecret } from "./secret-prompt.ts";
import type { SecretTerminal } from "./secret-prompt.ts";

/** A terminal on which `typed` is typed, chunk by chunk, and what is shown there. */
function terminal(
  ...typed: readonly (string | Buffer)[]
): SecretTerminal & { shown: string; raw: boolean[] } {
  const input = new PassThrough();
  for (const chunk of typed) input.write(chunk);
  const raw: boolean[] = [];
  return {
    input: Object.assign(input, { isTTY: true, setRawMode: (on: boolean) => raw.push(on) }),
    output: {
      isTTY: true,
      write(text: string): void {
        made.shown += text;
      },
    },
    raw,
    shown: "",
  };
}

// `terminal()` writes to the one that was made last.
let made: ReturnType<typeof terminal>;
function type(...typed: readonly (string | Buffer)[]): ReturnType<typeof terminal> {
  made = terminal(...typed);
  return made;
}

function failsWith(code: ErrorCode): (error: unknown) => boolean {
  return (error) => error instanceof AshlarError && error.code === code;
}

describe("a question for a secret", () => {
  it("shows nothing of it, and leaves the terminal as it was", async () => {
    const on = type("sec", "ret\r");
    assert.equal(await promptSecret("Passphrase: ", on), "secret");
    assert.equal(on.shown, "Passphrase: \n");
    assert.deepEqual(on.raw, [true, false]);
    assert.equal(on.input.listenerCount("data"), 0);
    assert.ok(on.input.isPaused());
  });

  it("knows Backspace, Ctrl-U, Ctrl-D and characters of several bytes", async () => {
    assert.equal(await promptSecret("", type("abc\u007F\b\u007F\u007Fxy\n")), "xy");
    assert.equal(await promptSecret("", type("wrong\u0015right\n")), "right");
    assert.equal(await promptSecret("", type("🧱x\u007F\u007Fé\u0004")), "é");
    const bytes = Buffer.from("schlüssel\n");
    assert.equal(
      await promptSecret("", type(bytes.subarray(0, 5), bytes.subarray(5))),
      "schlüssel",
    );
    assert.equal(await promptSecret("", type("a\u001Bb\tc\n")), "abc");
  });

  it("keeps what was typed ahead for the next question", async () => {
    const on = type("one\ntwo\n");
    assert.equal(await promptSecret("", on), "one");
    assert.equal(await promptSecret("", on), "two");
  });

  it("ends with Ctrl-C and with the signal", async () => {
    const on = type("abc\u0003");
    await assert.rejects(promptSecret("", on), failsWith(ErrorCode.Cancelled));
    assert.deepEqual(on.raw, [true, false]);
    const controller = new AbortController();
    const waiting = promptSecret("", { ...type("abc"), signal: controller.signal });
    controller.abort();
    await assert.rejects(waiting, failsWith(ErrorCode.Cancelled));
    await assert.rejects(
      promptSecret("", { ...type("abc\n"), signal: AbortSignal.abort() }),
      failsWith(ErrorCode.Cancelled),
    );
  });

  it("is refused without a terminal, and says what to do", async () => {
    await assert.rejects(
      promptSecret("", { input: new PassThrough(), output: { isTTY: true, write() {} } }),
      (error) =>
        error instanceof AshlarError &&
        error.code === ErrorCode.Refused &&
        /ASHLAR_PASSPHRASE_FILE/.test(error.remedy ?? ""),
    );
  });

  it("is not answered by a terminal that goes away", async () => {
    const on = type("abc");
    const waiting = promptSecret("", on);
    on.input.push(null);
    await assert.rejects(waiting, failsWith(ErrorCode.Cancelled));
  });

  it("takes no endless line", async () => {
    await assert.rejects(promptSecret("", type("x".repeat(2000))), failsWith(ErrorCode.Usage));
  });
});
