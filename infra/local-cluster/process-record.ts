// Processes that go on when the command that started them has ended. A process id alone may be somebody else's by the time one
// looks: what is recorded is also when it started, and since which boot.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";

/** A process as it was started. */
export interface ProcessRecord {
  readonly name: string;
  readonly pid: number;
  /** Since boot, in clock ticks, as /proc/PID/stat has it. */
  readonly startTicks: string;
  readonly bootId: string;
}

const POLL_MS = 50;
/** What has not ended so long after SIGKILL waits in the kernel, for a disk perhaps. */
const KILL_MS = 10_000;

/** The record of a process that is there now, or undefined. One that has ended and whose parent has not noticed counts as gone. */
export function recordOf(name: string, pid: number): ProcessRecord | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  // The second field is the program's name, in brackets, and may have anything in it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [state = "Z"] = fields;
  const startTicks = fields[19];
  if (state === "Z" || state === "X" || startTicks === undefined) return undefined;
  return { name, pid, startTicks, bootId: bootId() };
}

function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}

/** Whether that very process is still there. */
export function isRunning(record: ProcessRecord): boolean {
  const now = recordOf(record.name, record.pid);
  return now?.startTicks === record.startTicks && now.bootId === record.bootId;
}

/** How a process is started. */
export interface LaunchOptions {
  /** Gets what it prints, after what is there already. */
  readonly log: string;
  readonly cwd: string;
  /** Called where it ends while the command that started it is still there. */
  readonly onExit?: (code: number | null) => void;
}

/** Starts a process that outlives this one. */
export async function launch(
  name: string,
  [command = "", ...args]: readonly string[],
  { log, cwd, onExit }: LaunchOptions,
): Promise<ProcessRecord> {
  const output = openSync(log, "a", 0o600);
  try {
    const child = spawn(command, args, {
      cwd,
      env: cleanEnvironment(),
      detached: true,
      stdio: ["ignore", output, output],
    });
    child.once("exit", (code) => onExit?.(code));
    await once(child, "spawn");
    child.unref();
    const record = recordOf(name, child.pid ?? 0);
    if (record !== undefined) return record;
  } catch (error) {
    throw fromSystemError(error, `starting ${command}`);
  } finally {
    closeSync(output);
  }
  throw new AshlarError(ErrorCode.Unavailable, `${name} ended at once`, {
    remedy: `its log is ${log}`,
  });
}

/** What the caller's shell says to Ashlar is about another repository. */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  const entries = Object.entries(process.env).filter(([name]) => !name.startsWith("ASHLAR_"));
  return Object.fromEntries(entries);
}

/** Tells processes to end, and ends those that do not within the time. Resolves when all are gone. */
export async function stopAll(records: readonly ProcessRecord[], graceMs: number): Promise<void> {
  await Promise.all(
    records.map(async (record) => {
      signal(record, "SIGTERM");
      if (await hasEnded(record, graceMs)) return;
      signal(record, "SIGKILL");
      if (await hasEnded(record, KILL_MS)) return;
      throw new AshlarError(
        ErrorCode.TryAgain,
        `${record.name} (process ${record.pid}) does not end`,
        { remedy: "it waits in the kernel, for a disk perhaps; stop the cluster again later" },
      );
    }),
  );
}

function signal(record: ProcessRecord, name: NodeJS.Signals): void {
  if (!isRunning(record)) return;
  try {
    process.kill(record.pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return;
    throw fromSystemError(error, `stopping ${record.name} (process ${record.pid})`);
  }
}

async function hasEnded(record: ProcessRecord, ms: number): Promise<boolean> {
  for (const untilMs = Date.now() + ms; isRunning(record); await setTimeout(POLL_MS)) {
    if (Date.now() > untilMs) return false;
  }
  return true;
}
