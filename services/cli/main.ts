// The command line's entry: one process that has all roles in it. Only this file and compose.ts look at the process.
import process from "node:process";
import { runProgram } from "./program.ts";
import { watchSignals } from "./signals.ts";

/** Longer than any command; what counts is that it is there. */
const AWAKE_MS = 2 ** 31 - 1;

// A command that only waits, for a block that another process sends or for a lease, has nothing open that would keep the
// process alive.
const awake = setInterval(() => undefined, AWAKE_MS);

const watch = watchSignals((line) => process.stderr.write(`ashlar: ${line}\n`));

process.exitCode = await runProgram(process.argv.slice(2), {
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
