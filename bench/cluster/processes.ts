/** CPU time of running processes, from outside. */
import { readFileSync } from "node:fs";

/** Linux tells times to user programs in hundredths of a second, on every architecture that Node has. */
const TICKS_PER_SECOND = 100;

/** Seconds of CPU that a process and all its threads have taken since it started. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Adds up what some processes take from now on. */
export function watchCpu(pids: Readonly<Record<string, number>>): () => Record<string, number> {
  const before = Object.entries(pids).map(([name, pid]) => [name, pid, cpuSecondsOf(pid)] as const);
  return () =>
    Object.fromEntries(before.map(([name, pid, seconds]) => [name, cpuSecondsOf(pid) - seconds]));
}
