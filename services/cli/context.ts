// What every command is given: the outside world as main.ts found it, and the options that hold for all commands.
import type { Readable } from "node:stream";
import type { Log } from "#lib/ports/log.ts";
import type { LogFormat, LogLevel } from "#lib/process/config-schema.ts";
import type { Output } from "./output.ts";

/** A stream that may be a terminal. */
export interface TerminalStream extends NodeJS.WritableStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** The process' surroundings. */
export interface Surroundings {
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  /** Aborted by the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
  /** The signal that arrived, if one did. */
  readonly signalName: () => string | undefined;
}

/** The options that every command takes, before or after the verb. */
export interface GlobalOptions {
  readonly config: string | undefined;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly yes: boolean;
  readonly logLevel: LogLevel | undefined;
  readonly logFormat: LogFormat | undefined;
}

/** What a command works with. */
export interface CommandContext extends Surroundings {
  readonly options: GlobalOptions;
  readonly output: Output;
  readonly log: Log;
  /** The configuration's say in what is logged; the options' is first. */
  readonly configureLog: (config: { readonly level: LogLevel; readonly format: LogFormat }) => void;
  /** Takes a progress bar off the terminal before something else is written there. */
  readonly onTerminal: { clear: () => void };
}

/** Whether colours may be used on a stream (https://no-color.org: any value that is not empty turns them off). */
export function wantsColor(env: NodeJS.ProcessEnv, stream: { readonly isTTY?: boolean }): boolean {
  const off = env["NO_COLOR"] !== undefined && env["NO_COLOR"] !== "";
  return stream.isTTY === true && !off && env["TERM"] !== "dumb";
}
