// One command line as a whole process: its surroundings, its signals, its exit code. Only entry points (main.ts) call it.
import process from "node:process";
import { watchSignals } from "#lib/process/signals.ts";
import { runProgram } from "./program.ts";

/** Longer than any command; what counts is that it is there. */
const AWAKE_MS = 2 ** 31 - 1;

/** Runs a command line and ends the process with its exit code. */
export async function runProcess(args: readonly string[]): Promise<void> {
  // A command that only waits, for a block that another process sends or for a lease, has nothing open that would keep the
  // process alive.
  const awake = setInterval(() => undefined, AWAKE_MS);
  const watch = watchSignals((line) => process.stderr.write(`ashlar: ${line}\n`));
  process.exitCode = await runProgram(args, {
    env: process.env,
    cwd: process.cwd(),
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    ...watch,
  });
  clearInterval(awake);
  // What is still open (a pipe on stdin, an idle worker) must not keep a finished command alive.
  process.stdout.write("", () => process.stderr.write("", () => process.exit()));
}
