// FoundationDB's client library, which comes with its packages and not with ours: it is loaded when it is first asked for.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type * as Foundationdb from "foundationdb";
import type { NativeDatabase, NativeTransaction } from "foundationdb/dist/lib/native.d.ts";

type Fdb = Pick<typeof Foundationdb, "open" | "setAPIVersion">;

/** A database of a cluster, and a transaction on it, as the C library has them. */
export type { NativeDatabase, NativeTransaction };

/** 7.2: what the module for Node knows; every later client and server understands it. */
const API_VERSION = 720;

let library: Promise<Fdb> | undefined;

/** Loads the library once for the process; Config where it is not installed. */
export function loadFdb(): Promise<Fdb> {
  library ??= load();
  return library;
}

async function load(): Promise<Fdb> {
  await requireClientLibrary();
  try {
    const { default: fdb } = await import("foundationdb");
    fdb.setAPIVersion(API_VERSION);
    return fdb;
  } catch (error) {
    throw notLoaded(`the module for FoundationDB cannot be loaded on ${process.arch}`, error);
  }
}

/** Looked for first: the module for Node prints pages of its own where it is missing. */
async function requireClientLibrary(): Promise<void> {
  const { default: koffi } = await import("koffi");
  try {
    koffi.load("libfdb_c.so");
  } catch (error) {
    throw notLoaded("FoundationDB's client library (libfdb_c.so) cannot be loaded", error);
  }
}

function notLoaded(what: string, cause: unknown): AshlarError {
  const reason = cause instanceof Error ? `: ${cause.message.split("\n", 1)[0] ?? ""}` : "";
  return new AshlarError(ErrorCode.Config, `${what}${reason}`, {
    cause,
    remedy:
      "install the package foundationdb-clients, version 7.2 or newer, and then Ashlar again; where the library is not in a folder of the system, name its folder in LD_LIBRARY_PATH",
  });
}
