// What FoundationDB's error codes mean to us (its documentation, "Error Codes").
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

/** An error of the C library. */
export interface FdbError extends Error {
  readonly code: number;
}

const TIMED_OUT = 1031;
const CANCELLED = 1025;
const LOCKED = 1038;
/** The cluster file: missing, not readable, not one. */
const CLUSTER_FILE = new Set([1515, 1516, 1517, 2104]);
const TOO_LARGE = new Set([2101, 2102, 2103]);
/** A body took longer than the five seconds that a snapshot is kept. */
const TOO_OLD = 1007;

/** Numbers below are those of others, as of an aborted signal's DOMException. */
const CODE_MIN = 1000;

/** Whether it comes from the library: all of its errors have a number of four digits. */
export function isFdbError(error: unknown): error is FdbError {
  if (!(error instanceof Error) || !("code" in error)) return false;
  return typeof error.code === "number" && error.code >= CODE_MIN;
}

/** What is told when it does not help to try again, or was tried for long enough. */
export function explainFdb(error: FdbError, label: string, clusterFile: string): AshlarError {
  const text = `${label}: FoundationDB: ${error.message} (${error.code})`;
  const details = { fdbCode: error.code };
  if (error.code === TIMED_OUT) {
    return new AshlarError(
      ErrorCode.Unavailable,
      `${label}: FoundationDB did not answer in time (${clusterFile})`,
      {
        cause: error,
        remedy: "see `fdbcli --exec status`, and that its servers can be reached from here",
        details,
      },
    );
  }
  if (error.code === CANCELLED) {
    return new AshlarError(ErrorCode.Unavailable, "the metadata store is closed", { cause: error });
  }
  if (error.code === LOCKED) {
    return new AshlarError(ErrorCode.Unavailable, `${label}: the FoundationDB cluster is locked`, {
      cause: error,
      remedy:
        "a restore or a switch between clusters is under way: wait for it, or `fdbcli --exec unlock`",
      details,
    });
  }
  if (CLUSTER_FILE.has(error.code)) {
    return new AshlarError(
      ErrorCode.Config,
      `${clusterFile} is not a usable cluster file of FoundationDB: ${error.message}`,
      {
        cause: error,
        remedy: "correct foundationdb.clusterFile; usually it is /etc/foundationdb/fdb.cluster",
        details,
      },
    );
  }
  if (TOO_LARGE.has(error.code)) {
    return new AshlarError(ErrorCode.Internal, text, { cause: error, details });
  }
  const code = error.code === TOO_OLD ? ErrorCode.TryAgain : ErrorCode.Io;
  return new AshlarError(code, text, { cause: error, details });
}
