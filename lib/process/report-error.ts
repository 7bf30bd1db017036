// The one place where errors become text, JSON and exit codes.
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { exitCodeOf } from "./exit-codes.ts";

/** How an error is shown. */
export interface ReportOptions {
  /** Stack traces and causes for all errors. */
  readonly debug: boolean;
  /** The signal that asked to stop, if one did. */
  readonly signalName: string | undefined;
  /** The command that was meant, whose help tells of its arguments and options. */
  readonly command?: string | undefined;
}

/** An error as it is shown. */
export interface ErrorReport {
  readonly exitCode: number;
  /** For stderr. */
  readonly lines: readonly string[];
  /** For --json. */
  readonly document: {
    readonly error: {
      readonly code: string;
      readonly exitCode: number;
      readonly message: string;
      readonly remedy?: string;
      readonly details?: Readonly<Record<string, unknown>>;
    };
  };
}

/** Frames of a defect's stack that are shown without --log-level debug: enough for a report, little enough to read. */
const FRAMES_SHOWN = 5;

/** What an error looks like, and what the process exits with. */
export function reportError(thrown: unknown, options: ReportOptions): ErrorReport {
  const error = options.signalName === undefined ? thrown : asStopped(thrown, options.signalName);
  const exitCode = exitCodeOf(error, options.signalName);
  if (isErrorCode(error, ErrorCode.Internal)) return reportDefect(error, exitCode, options.debug);
  if (error instanceof AshlarError) return reportFailure(error, exitCode, options.debug);
  if (exitCode !== exitCodeOf(undefined)) {
    // commander's own errors: what it says is written for the user.
    const message = (error as Error).message.replace(/^error: /, "").replaceAll("\n", " ");
    return {
      exitCode,
      lines: [
        `ashlar: ${message}`,
        options.command === undefined
          ? "  `ashlar --help` lists the commands, `ashlar COMMAND --help` its options"
          : `  \`ashlar ${options.command} --help\` tells its arguments and options`,
      ],
      document: { error: { code: ErrorCode.Usage, exitCode, message } },
    };
  }
  return reportDefect(error, exitCode, options.debug);
}

/** When a signal has stopped the work, an abort by any name is its consequence, and is told as that. */
function asStopped(error: unknown, signalName: string): unknown {
  const isAbort = error instanceof Error && error.name === "AbortError";
  if (!isAbort && !isErrorCode(error, ErrorCode.Cancelled)) return error;
  const { remedy } = error as Partial<AshlarError>;
  return new AshlarError(ErrorCode.Cancelled, `stopped by ${signalName}`, {
    cause: error,
    ...(remedy === undefined ? {} : { remedy }),
  });
}

function reportFailure(error: AshlarError, exitCode: number, debug: boolean): ErrorReport {
  const { code, message, remedy, details } = error;
  const lines = [`ashlar: ${message}`];
  if (remedy !== undefined) lines.push(`  ${remedy}`);
  if (debug) lines.push(...stackLines(error, Infinity));
  return {
    exitCode,
    lines,
    document: {
      error: {
        code,
        exitCode,
        message,
        ...(remedy === undefined ? {} : { remedy }),
        ...(Object.keys(details).length === 0 ? {} : { details }),
      },
    },
  };
}

function reportDefect(error: unknown, exitCode: number, debug: boolean): ErrorReport {
  // A defect in another role comes as an AshlarError, whose message has the name of the original.
  const message =
    error instanceof AshlarError
      ? error.message
      : error instanceof Error
        ? `${error.name}: ${error.message}`
        : String(error);
  return {
    exitCode,
    lines: [
      `ashlar: internal error: ${message}`,
      ...stackLines(error, debug ? Infinity : FRAMES_SHOWN),
      "  This is a defect of Ashlar: please report it with these lines. What was acknowledged is safe.",
    ],
    document: { error: { code: ErrorCode.Internal, exitCode, message } },
  };
}

function stackLines(error: unknown, framesMax: number): string[] {
  const lines: string[] = [];
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at !== error) lines.push(`  caused by ${at.name}: ${at.message}`);
    const frames = (at.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
    lines.push(...frames.slice(0, framesMax).map((line) => `    ${line.trim()}`));
  }
  return lines;
}
