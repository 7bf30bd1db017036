// Surroundings for tests: streams that keep what is written, and no terminal unless one is asked for.
import { PassThrough, Writable } from "node:stream";
import type { Surroundings } from "#services/cli/context.ts";

/** Surroundings with what was written to them. */
export interface TestSurroundings extends Surroundings {
  readonly written: { stdout: string; stderr: string };
}

/** Makes surroundings; `terminal` says that stderr and stdin are one. */
export function testSurroundings(
  options: {
    readonly env?: NodeJS.ProcessEnv;
    readonly cwd?: string;
    readonly terminal?: boolean;
    readonly signal?: AbortSignal;
  } = {},
): TestSurroundings {
  const written = { stdout: "", stderr: "" };
  const isTTY = options.terminal === true;
  const stream = (name: "stdout" | "stderr"): NodeJS.WriteStream => {
    const writable = new Writable({
      write(chunk: Buffer | string, _encoding, done) {
        written[name] += chunk.toString();
        done();
      },
    });
    return Object.assign(writable, { isTTY, columns: 80 }) as unknown as NodeJS.WriteStream;
  };
  return {
    env: options.env ?? {},
    cwd: options.cwd ?? "/",
    stdin: Object.assign(new PassThrough(), { isTTY }),
    stdout: stream("stdout"),
    stderr: stream("stderr"),
    signal: options.signal ?? new AbortController().signal,
    signalName: () => undefined,
    written,
  };
}
