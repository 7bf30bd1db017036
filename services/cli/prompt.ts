// Questions to a person. Nobody is asked where nobody can answer: commands in scripts do what they were told.
import { createInterface } from "node:readline/promises";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { CommandContext } from "./context.ts";

/**
 * Asks before something is removed or overwritten, on a terminal and without --yes; a script is not asked. Anything but a
 * yes is Cancelled.
 */
export async function confirm(context: CommandContext, question: string): Promise<void> {
  const { stdin, stderr, options, signal } = context;
  if (options.yes || stdin.isTTY !== true || !stderr.isTTY) return;
  const lines = createInterface({ input: stdin, output: stderr });
  let answer: string;
  try {
    answer = await lines.question(`${question} [y/N] `, { signal });
  } finally {
    lines.close();
  }
  if (/^y(?:es)?$/i.test(answer.trim())) return;
  throw new AshlarError(ErrorCode.Cancelled, "not confirmed; nothing was done", {
    remedy: "answer y, or give --yes",
  });
}
