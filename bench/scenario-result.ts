/** What a scenario found, as numbers and as sentences. */
import { median, type Outcome } from "./contender.ts";

/** The peak of memory that nothing may pass, in any scenario. */
export const MEMORY_MAX_BYTES: number = 400 * 1024 ** 2;

/** One line of a scenario's table: repetitions of the same work by one contender. */
export interface Row {
  readonly contender: string;
  readonly what: string;
  /** How much data the work was about. */
  readonly bytes: number;
  readonly startUpSeconds: number;
  readonly outcomes: readonly Outcome[];
}

/** Medians of a row. */
export interface Summary {
  readonly wallSeconds: number;
  /** Without start-up. */
  readonly netSeconds: number;
  readonly megabytesPerSecond: number;
  readonly cpuSeconds: number;
  readonly storedBytes: number | undefined;
  /** Of all repetitions the highest. */
  readonly peakBytes: number;
  readonly othersShare: number;
}

/** A target of the issue. `reached` is undefined where one side was not measured. */
export interface Verdict {
  readonly target: string;
  readonly measured: string;
  readonly reached: boolean | undefined;
}

/** A scenario from beginning to end; what failed is a sentence, not the end of the benchmark. */
export interface ScenarioResult {
  readonly number: number;
  readonly title: string;
  readonly rows: Row[];
  readonly verdicts: Verdict[];
  readonly notes: string[];
  readonly failures: string[];
}

/** An empty result, to be filled. */
export function newResult(number: number, title: string): ScenarioResult {
  return { number, title, rows: [], verdicts: [], notes: [], failures: [] };
}

/** Work that takes less than this is all start-up and noise. */
const NET_SECONDS_MIN = 0.001;

function netSeconds(row: Row, outcome: Outcome): number {
  const net = outcome.workSeconds ?? outcome.wallSeconds - row.startUpSeconds;
  return Math.max(NET_SECONDS_MIN, net);
}

/** Reduces the repetitions to one line. */
export function summarize(row: Row): Summary {
  const of = (pick: (outcome: Outcome) => number): number => median(row.outcomes.map(pick));
  const net = of((outcome) => netSeconds(row, outcome));
  return {
    wallSeconds: of((outcome) => outcome.wallSeconds),
    netSeconds: net,
    megabytesPerSecond: row.bytes / 1e6 / net,
    cpuSeconds: of((outcome) => outcome.workCpuSeconds ?? outcome.cpuSeconds),
    storedBytes: row.outcomes.at(-1)?.storedBytes,
    peakBytes: Math.max(...row.outcomes.map((outcome) => outcome.memory.bytes)),
    othersShare: of((outcome) => outcome.othersShare),
  };
}

/** The row of a contender, where it finished its work. */
export function findRow(result: ScenarioResult, contender: string, what?: string): Row | undefined {
  return result.rows.find(
    (row) => row.contender === contender && (what === undefined || row.what === what),
  );
}

/** The summary of a contender's row, where there is one. */
export function findSummary(
  result: ScenarioResult,
  contender: string,
  what?: string,
): Summary | undefined {
  const row = findRow(result, contender, what);
  return row === undefined ? undefined : summarize(row);
}

/** A verdict on a number that is to be at least, or at most, a bound. */
function judge(
  target: string,
  value: number | undefined,
  isReached: (value: number) => boolean,
  show: (value: number) => string,
): Verdict {
  return value === undefined
    ? { target, measured: "not measured", reached: undefined }
    : { target, measured: show(value), reached: isReached(value) };
}

/** A number that must be at least the bound. */
export function atLeast(
  target: string,
  value: number | undefined,
  bound: number,
  show: (value: number) => string,
): Verdict {
  return judge(target, value, (number) => number >= bound, show);
}

/** A number that must be at most the bound. */
export function atMost(
  target: string,
  value: number | undefined,
  bound: number,
  show: (value: number) => string,
): Verdict {
  return judge(target, value, (number) => number <= bound, show);
}

/** a ÷ b, or undefined where one of them is missing. */
export function ratio(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined || b === 0 ? undefined : a / b;
}

export const asPercent = (value: number): string => `${(value * 100).toFixed(0)} %`;
export const asFactor = (value: number): string => `${value.toFixed(2)}×`;
export const asSeconds = (value: number): string => `${value.toFixed(2)} s`;
export const asMebibytes = (value: number): string => `${(value / 1024 ** 2).toFixed(0)} MiB`;

/** Ashlar's speed against the limit of the same scenario. */
export function judgeAgainstLimit(result: ScenarioResult, share: number): void {
  const own = findSummary(result, "ashlar")?.megabytesPerSecond;
  const limit = findSummary(result, "limit")?.megabytesPerSecond;
  const target = `at least ${asPercent(share)} of the limit`;
  result.verdicts.push(atLeast(target, ratio(own, limit), share, asPercent));
}

/** Ashlar's speed against each peer that was measured. */
export function judgeAgainstPeers(result: ScenarioResult, factor: number): void {
  const own = findSummary(result, "ashlar")?.megabytesPerSecond;
  for (const peer of ["restic", "borg"]) {
    const theirs = findSummary(result, peer)?.megabytesPerSecond;
    if (theirs === undefined) continue;
    const target = `at least ${factor} times as fast as ${peer}`;
    result.verdicts.push(atLeast(target, ratio(own, theirs), factor, asFactor));
  }
}

/** Ashlar's memory, over all of its rows. */
export function judgeMemory(result: ScenarioResult): void {
  const rows = result.rows.filter((row) => row.contender === "ashlar");
  const peak =
    rows.length === 0 ? undefined : Math.max(...rows.map((row) => summarize(row).peakBytes));
  const target = `peak RssAnon + RssShmem under ${asMebibytes(MEMORY_MAX_BYTES)}`;
  result.verdicts.push(atMost(target, peak, MEMORY_MAX_BYTES - 1, asMebibytes));
}
