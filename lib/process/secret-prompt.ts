// Asks for a secret on the terminal, without showing it.
import type { Readable } from "node:stream";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

/** A terminal to ask on, if it is one. */
export interface SecretTerminal {
  readonly input: Readable & {
    readonly isTTY?: boolean;
    setRawMode?(raw: boolean): unknown;
  };
  /** Not stdout: that is for results. */
  readonly output: { readonly isTTY?: boolean; write(text: string): unknown };
  /** Stops the question. */
  readonly signal?: AbortSignal;
}

const SECRET_LENGTH_MAX = 1024;

/** Asks for a secret. Refused where there is no terminal, with what to do instead. */
export async function promptSecret(question: string, terminal: SecretTerminal): Promise<string> {
  const { input, output } = terminal;
  if (input.isTTY !== true || output.isTTY !== true || input.setRawMode === undefined) {
    throw new AshlarError(
      ErrorCode.Refused,
      "the repository needs its key or passphrase, and there is no terminal to ask for it",
      {
        remedy:
          "Name keyFile or passphraseFile in ashlar.yaml, or set ASHLAR_PASSPHRASE_FILE or ASHLAR_PASSPHRASE.",
      },
    );
  }
  output.write(question);
  // Raw, for only so the terminal shows nothing. What it does with Backspace and Ctrl-C is then left to us.
  input.setRawMode(true);
  try {
    return await readLine(terminal);
  } finally {
    input.setRawMode(false);
    output.write("\n");
  }
}

/** What a line has come to so far. */
interface Line {
  text: string;
  done: boolean;
  /** What was typed ahead: the answer to the next question. */
  rest: string;
}

async function readLine(terminal: SecretTerminal): Promise<string> {
  const { input, signal } = terminal;
  const line: Line = { text: "", done: false, rest: "" };
  const decoder = new TextDecoder();
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const onData = (chunk: Buffer | string): void => {
    try {
      take(line, typeof chunk === "string" ? chunk : decoder.decode(chunk, { stream: true }));
      if (line.done) resolve(line.text);
    } catch (error) {
      reject(error);
    }
  };
  // A terminal that went away has not answered.
  const onEnd = (): void => reject(cancelled());
  const onAbort = (): void => reject(cancelled());
  input.on("data", onData);
  input.once("end", onEnd);
  signal?.addEventListener("abort", onAbort);
  if (signal?.aborted === true) onAbort();
  try {
    input.resume();
    return await promise;
  } finally {
    input.off("data", onData);
    input.off("end", onEnd);
    signal?.removeEventListener("abort", onAbort);
    // Else the terminal keeps the process alive, and takes what is typed for the next one.
    input.pause();
    if (line.rest !== "") input.unshift(Buffer.from(line.rest));
  }
}

function take(line: Line, typed: string): void {
  let at = 0;
  for (const character of typed) {
    at += character.length;
    switch (character) {
      case "\r":
      case "\n":
      case "\u0004":
        line.done = true;
        line.rest = typed.slice(at);
        return;
      case "\u0003":
        throw cancelled();
      case "\u007F":
      case "\b":
        line.text = Array.from(line.text).slice(0, -1).join("");
        break;
      case "\u0015":
        line.text = "";
        break;
      default:
        // Other control characters (an arrow's ESC) would be a part of the passphrase that nobody sees.
        if (character >= " ") line.text += character;
    }
    if (line.text.length > SECRET_LENGTH_MAX) {
      throw new AshlarError(
        ErrorCode.Usage,
        `more than ${SECRET_LENGTH_MAX} characters were typed`,
      );
    }
  }
}

function cancelled(): AshlarError {
  return new AshlarError(ErrorCode.Cancelled, "stopped at a question");
}
