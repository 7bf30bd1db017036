// What has to be installed, and programs that are run to their end.
import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { ASHLAR } from "./place.ts";
import { cleanEnvironment } from "./process-record.ts";

/** Longer than any of them takes, also on a slow machine. */
const RUN_MS = 300_000;

/** The programs that a cluster is made of. */
export interface Tools {
  readonly ashlar: string;
  readonly natsServer: string;
  /** Undefined where FoundationDB is not installed. */
  readonly foundationDb: { readonly fdbserver: string; readonly fdbcli: string } | undefined;
}

/** In PATH, and where Debian has what is not in every user's PATH. */
function programFolders(): string[] {
  const folders = `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`.split(":");
  return folders.filter((folder) => path.isAbsolute(folder));
}

/** Finds them. */
export function findTools(folders: readonly string[] = programFolders()): Tools {
  const find = (name: string): string | undefined => findProgram(name, folders);
  const natsServer = find("nats-server");
  if (natsServer === undefined) {
    throw new AshlarError(ErrorCode.Unavailable, "nats-server is not installed", {
      remedy: "apt-get install nats-server",
    });
  }
  const fdbserver = find("fdbserver");
  const fdbcli = find("fdbcli");
  const hasBoth = fdbserver !== undefined && fdbcli !== undefined;
  return {
    ashlar: ASHLAR,
    natsServer,
    foundationDb: hasBoth ? { fdbserver, fdbcli } : undefined,
  };
}

function findProgram(name: string, folders: readonly string[]): string | undefined {
  return folders
    .map((folder) => path.join(folder, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** Runs a program to its end and gives what it printed. Its failure is told with its own words. */
export async function run(command: readonly string[], signal?: AbortSignal): Promise<string> {
  const [program = "", ...args] = command;
  try {
    const { stdout } = await promisify(execFile)(program, args, {
      env: cleanEnvironment(),
      timeout: RUN_MS,
      ...(signal === undefined ? {} : { signal }),
    });
    return stdout;
  } catch (error) {
    signal?.throwIfAborted();
    const { stderr = "", stdout = "" } = error as { stderr?: string; stdout?: string };
    const said = `${stdout}${stderr}`.trim();
    const what = [path.basename(program), ...args].join(" ");
    throw new AshlarError(
      ErrorCode.Unavailable,
      `\`${what}\` failed: ${said === "" ? (error as Error).message : said}`,
      { cause: error },
    );
  }
}
