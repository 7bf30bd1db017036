// Exit codes: one table, from which the commands exit, the help texts and the documentation are made. The numbers are
// those of BSD's sysexits.h where it has one.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

/** One row of the table. */
export interface ExitCodeEntry {
  readonly exit: number;
  readonly name: string;
  /** The classes of errors that lead to it. */
  readonly codes: readonly ErrorCode[];
  /** One line for help and documentation. */
  readonly description: string;
}

/** Every exit code there is, in ascending order. */
export const EXIT_CODES: readonly ExitCodeEntry[] = [
  { exit: 0, name: "ok", codes: [], description: "done" },
  {
    exit: 64,
    name: "usage",
    codes: [ErrorCode.Usage],
    description: "wrong command, option, argument, filter or rules",
  },
  {
    exit: 65,
    name: "damaged",
    codes: [ErrorCode.Damaged],
    description: "damaged data was found, or the hints are malformed",
  },
  {
    exit: 66,
    name: "not-found",
    codes: [ErrorCode.NotFound],
    description: "no such version, volume, storage, source or file",
  },
  {
    exit: 69,
    name: "unavailable",
    codes: [ErrorCode.Unavailable],
    description: "a storage that is needed is away or not mounted",
  },
  {
    exit: 70,
    name: "internal",
    codes: [ErrorCode.Internal],
    description: "a defect of Ashlar itself; please report it",
  },
  {
    exit: 73,
    name: "exists",
    codes: [ErrorCode.AlreadyExists],
    description: "the target exists; nothing was overwritten",
  },
  {
    exit: 74,
    name: "io",
    codes: [ErrorCode.Io],
    description: "input or output failed: read error, short read, no space",
  },
  {
    exit: 75,
    name: "try-again",
    codes: [ErrorCode.TryAgain, ErrorCode.Conflict, ErrorCode.Fenced],
    description: "a passing condition, another process is busy with it; try again",
  },
  {
    exit: 77,
    name: "refused",
    codes: [ErrorCode.Refused],
    description: "not allowed: wrong key, protected version, mounted target, permissions",
  },
  {
    exit: 78,
    name: "config",
    codes: [ErrorCode.Config],
    description: "the configuration is missing or wrong",
  },
  {
    exit: 130,
    name: "interrupted",
    codes: [ErrorCode.Cancelled],
    description: "stopped by SIGINT (Ctrl-C); a backup can be resumed",
  },
  {
    exit: 143,
    name: "terminated",
    codes: [],
    description: "stopped by SIGTERM; a backup can be resumed",
  },
];

const EXIT_INTERNAL = 70;
const EXIT_USAGE = 64;

const BY_CODE: ReadonlyMap<ErrorCode, number> = new Map(
  EXIT_CODES.flatMap(({ exit, codes }) => codes.map((code) => [code, exit] as const)),
);

const BY_SIGNAL: Readonly<Record<string, number>> = { SIGINT: 130, SIGTERM: 143 };

/**
 * The exit code for what a command threw. What is not an {@link AshlarError} is a defect, but for commander's errors: those
 * are about usage, or no errors (help was shown).
 * @param signal the signal that asked to stop, if one did
 */
export function exitCodeOf(error: unknown, signal?: string): number {
  if (error instanceof AshlarError) {
    if (error.code === ErrorCode.Cancelled && signal !== undefined) {
      return BY_SIGNAL[signal] ?? BY_CODE.get(error.code) ?? EXIT_INTERNAL;
    }
    return BY_CODE.get(error.code) ?? EXIT_INTERNAL;
  }
  if (error instanceof Error && "exitCode" in error && isCommanderCode(error)) {
    return error.exitCode === 0 ? 0 : EXIT_USAGE;
  }
  return EXIT_INTERNAL;
}

function isCommanderCode(error: Error): boolean {
  return "code" in error && typeof error.code === "string" && error.code.startsWith("commander.");
}

/** The table as text, for `--help`. */
export function exitCodesHelp(): string {
  const rows = EXIT_CODES.map(
    ({ exit, name, description }) =>
      `  ${String(exit).padStart(3)}  ${name.padEnd(12)} ${description}`,
  );
  return ["Exit codes:", ...rows].join("\n");
}

/** The table as Markdown, for the documentation. */
export function exitCodesMarkdown(): string {
  const rows = EXIT_CODES.map(
    ({ exit, name, description }) => `| ${exit} | ${name} | ${description} |`,
  );
  return ["| code | name | meaning |", "|---|---|---|", ...rows].join("\n");
}
