/** What a report says about the machine and the code. */
import { availableParallelism, cpus, release, totalmem } from "node:os";
import { formatSize } from "#lib/core/size.ts";
import { runPlain } from "./measured-run.ts";
import { ROOT } from "./options.ts";

async function git(args: readonly string[]): Promise<string | undefined> {
  try {
    return (await runPlain({ program: "git", args, cwd: ROOT })).trim();
  } catch {
    return undefined;
  }
}

async function commit(): Promise<string> {
  const head = await git(["rev-parse", "--short=12", "HEAD"]);
  if (head === undefined) return "none yet";
  const changes = await git(["status", "--porcelain", "--untracked-files=no"]);
  return changes === "" ? head : `${head} and changes that are not committed`;
}

/** Facts by name, in the order in which they are shown. */
export async function describeMachine(): Promise<ReadonlyMap<string, string>> {
  return new Map([
    ["date", new Date().toISOString().slice(0, 10)],
    ["commit", await commit()],
    ["CPU", `${availableParallelism()} × ${cpus()[0]?.model ?? "unknown"} (${process.arch})`],
    ["memory", formatSize(totalmem())],
    ["kernel", release()],
    ["Node.js", process.versions.node],
  ]);
}
