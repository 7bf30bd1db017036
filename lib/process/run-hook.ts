// Running a command of the user's, with a JSON document on its standard input.
import { spawn } from "node:child_process";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

/** It is killed after so long, in ms. */
const TIMEOUT_MS = 60_000;
const STDERR_BYTES_MAX = 4096;

/**
 * Runs it without a shell; Io, with what it said, when it cannot be run, fails, or takes longer than a minute.
 * @param env is added to this process' own
 */
export async function runHook(
  command: string,
  document: object,
  env: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<void> {
  const child = spawn(command, [], {
    stdio: ["pipe", "ignore", "pipe"],
    env: { ...process.env, ...env },
    // A group of its own: what it has started is ended with it.
    detached: true,
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  child.on("error", reject);
  // Not *close*: something that it leaves running may hold its output open for ever.
  child.on("exit", (code, killed) => {
    if (code === 0) resolve();
    else reject(new Error(code === null ? `it was killed by ${killed}` : `exit code ${code}`));
  });
  let said = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-STDERR_BYTES_MAX);
  });
  // One that does not read its input is none the worse for it.
  child.stdin?.on("error", () => undefined);
  child.stdin?.end(`${JSON.stringify(document)}\n`);
  const stop = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
  const onStop = (): void => {
    endGroup(child.pid);
    reject(new Error("it was ended: it took too long, or the agent is being stopped"));
  };
  if (stop.aborted) onStop();
  stop.addEventListener("abort", onStop);
  try {
    await promise;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    // What it said may come after its end.
    await new Promise((again) => setImmediate(again));
    throw new AshlarError(
      ErrorCode.Io,
      `the command ${command} failed: ${reason}${said === "" ? "" : `: ${said.trim()}`}`,
      { cause },
    );
  } finally {
    stop.removeEventListener("abort", onStop);
    child.stderr?.destroy();
    child.unref();
  }
}

function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
