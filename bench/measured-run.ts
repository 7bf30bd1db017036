/**
 * Runs a program and measures it from outside: wall clock, CPU of its whole tree, peak memory, and
 * how much of the machine somebody else used meanwhile.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { MemorySampler, type MemoryPeak } from "./memory-sampler.ts";

/** Linux tells times to user programs in hundredths of a second, on every architecture that Node has. */
const TICKS_PER_SECOND = 100;
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;
const STDERR_SHOWN = 2000;
const TERMINATE_GRACE_MS = 5000;

/** What to run. */
export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly timeoutMs?: number;
}

/** What a run took. */
export interface Measurement {
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
  readonly memory: MemoryPeak;
  /** The share of all cores that was busy with anything else. */
  readonly othersShare: number;
  readonly stdout: string;
}

/** The processes that run now, so that an interrupted benchmark can end them. */
const running = new Set<ChildProcess>();

/** Seconds of CPU of all children that ended and were waited for, and of theirs. */
function childrenCpuSeconds(): number {
  const stat = readFileSync("/proc/self/stat", "utf8");
  // The name in parentheses may hold spaces; cutime and cstime are fields 16 and 17.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) / TICKS_PER_SECOND;
}

/** Seconds of CPU that all cores together spent at work since the machine started. */
function machineBusySeconds(): number {
  const fields = (readFileSync("/proc/stat", "utf8").split("\n", 1)[0] ?? "")
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softIrq = 0, steal = 0] = fields;
  return (user + nice + system + irq + softIrq + steal) / TICKS_PER_SECOND;
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has ended already.
  }
}

/** Ends whatever is running; for signals. */
export function killRunning(): void {
  for (const child of running) signalGroup(child, "SIGKILL");
}

interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Waits for the end; asks a process that takes too long to stop, then makes it. */
async function waitForEnd(child: ChildProcess, timeoutMs: number | undefined): Promise<Ending> {
  const timers: NodeJS.Timeout[] = [];
  if (timeoutMs !== undefined) {
    timers.push(
      setTimeout(() => signalGroup(child, "SIGTERM"), timeoutMs),
      setTimeout(() => signalGroup(child, "SIGKILL"), timeoutMs + TERMINATE_GRACE_MS),
    );
  }
  try {
    return await new Promise<Ending>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => resolve({ code, signal }));
    });
  } finally {
    for (const timer of timers) clearTimeout(timer);
  }
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  let text = "";
  stream?.setEncoding("utf8");
  stream?.on("data", (chunk: string) => {
    text = (text + chunk).slice(-OUTPUT_BYTES_MAX);
  });
  return () => text;
}

/** Runs a program to its end; an exit code other than 0 is an error that holds what it said. */
export async function runMeasured(command: Command): Promise<Measurement> {
  const cpuBefore = childrenCpuSeconds();
  const busyBefore = machineBusySeconds();
  const ownBefore = process.cpuUsage();
  const startedAt = process.hrtime.bigint();
  // A group of its own, so that a timeout reaches all that it started.
  const child = spawn(command.program, [...command.args], {
    cwd: command.cwd,
    env: { ...process.env, ...command.env },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  running.add(child);
  // Without a pid it could not be started: then waitForEnd throws, and what is sampled does not matter.
  const sampler = new MemorySampler(child.pid ?? process.pid);
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  const ending = await waitForEnd(child, command.timeoutMs).finally(() => {
    running.delete(child);
    sampler.stop();
  });
  const wallSeconds = Number(process.hrtime.bigint() - startedAt) / 1e9;
  const memory = sampler.stop();
  const cpuSeconds = childrenCpuSeconds() - cpuBefore;
  const own = process.cpuUsage(ownBefore);
  const ownSeconds = (own.user + own.system) / 1e6;
  const others = machineBusySeconds() - busyBefore - cpuSeconds - ownSeconds;
  if (ending.code !== 0) {
    const how = ending.signal ?? `exit code ${ending.code}`;
    const shown = [command.program, ...command.args].join(" ");
    throw new Error(
      `${shown}: ${how} after ${wallSeconds.toFixed(1)} s\n${stderr().slice(-STDERR_SHOWN)}`,
    );
  }
  const othersShare = Math.max(0, others) / (wallSeconds * availableParallelism());
  return { wallSeconds, cpuSeconds, memory, othersShare, stdout: stdout() };
}

/** Runs a program whose cost is of no interest, and returns what it printed. */
export async function runPlain(command: Command): Promise<string> {
  return (await runMeasured(command)).stdout;
}

/** The first line of what a program prints, or undefined where it is not installed. */
export async function probe(program: string, args: readonly string[]): Promise<string | undefined> {
  try {
    return (await runPlain({ program, args })).trim().split("\n", 1)[0];
  } catch {
    return undefined;
  }
}
