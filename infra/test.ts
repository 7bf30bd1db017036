/**
 * Runs the tests with Node's own runner and ends with a block that names every test that was skipped
 * and why, because a green run that silently left something out is worth little.
 *
 *   node infra/test.ts [unit|sim|integration] [path or glob ...]
 *
 * Without a suite all run, unit tests first. Further arguments replace the globs of the suite.
 * The exit code is 1 when anything failed, or when no test ran at all.
 */
import { availableParallelism } from "node:os";
import { finished } from "node:stream/promises";
import { run } from "node:test";
import type { EventData } from "node:test";
import { spec } from "node:test/reporters";
import path from "node:path";

type Suite = "unit" | "sim" | "integration";

interface Skip {
  readonly name: string;
  readonly reason: string;
}

interface Totals {
  passed: number;
  failed: number;
  readonly failures: string[];
  readonly skips: Skip[];
  /** What a file's tests and suites took, in ms: whoever makes the whole too slow is named. */
  readonly tookMs: Map<string, number>;
}

const SLOWEST = 15;
const GLOBS: Record<Suite, readonly string[]> = {
  unit: [
    "{lib,services,proto}/**/*.test.ts",
    "test/tidy.test.ts",
    "test/conformance/*.test.ts",
    "test/fakes/*.test.ts",
    "test/recorded/*.test.ts",
    "test/sim/engine/*.test.ts",
  ],
  sim: ["test/sim/*.test.ts", "test/sim/{explorer,planted}/*.test.ts"],
  integration: ["test/integration/**/*.test.ts"],
};

/**
 * Integration tests start processes and write large files: too many at once only make them slow. But some of them mostly wait,
 * for a lease or an election: one more than there are cores keeps those busy.
 */
const INTEGRATION_CONCURRENCY_MAX = 4;
const TIMEOUT_MS: Record<Suite, number> = {
  unit: 5 * 60_000,
  sim: 10 * 60_000,
  integration: 20 * 60_000,
};

function concurrencyOf(suite: Suite): number {
  const cores = Math.max(1, availableParallelism());
  // A simulation uses all cores by itself.
  if (suite === "sim") return 1;
  return suite === "unit" ? cores : Math.min(cores + 1, INTEGRATION_CONCURRENCY_MAX);
}

/** `it.skip` and `it.todo` carry `true` or "" for a reason that nobody gave. */
function reasonOf(value: string | boolean | undefined): string | undefined {
  if (value === undefined || value === false) return undefined;
  return typeof value === "string" && value !== "" ? value : "no reason given";
}

function fileOf(data: { readonly file?: string | undefined }): string {
  return data.file === undefined ? "" : path.relative(process.cwd(), data.file);
}

function isFileWrapper(data: EventData.TestPass | EventData.TestFail): boolean {
  return data.nesting === 0 && data.file !== undefined && path.resolve(data.name) === data.file;
}

function countPass(totals: Totals, data: EventData.TestPass): void {
  const skip = reasonOf(data.skip);
  const todo = reasonOf(data.todo);
  const name = `${data.name} (${fileOf(data)})`;
  if (skip !== undefined) totals.skips.push({ name, reason: skip });
  else if (todo !== undefined) totals.skips.push({ name, reason: `to do: ${todo}` });
  else if (data.details.type !== "suite" && !isFileWrapper(data)) totals.passed++;
}

function addTime({ tookMs }: Totals, data: EventData.TestPass | EventData.TestFail): void {
  if (data.nesting > 0 || isFileWrapper(data)) return;
  const file = fileOf(data);
  tookMs.set(file, (tookMs.get(file) ?? 0) + data.details.duration_ms);
}

/** A suite fails because a test in it failed, which is counted already; its own hooks are not. */
function isEcho(data: EventData.TestFail): boolean {
  const error = data.details.error as Error & { failureType?: string };
  return error.failureType === "subtestsFailed";
}

function countFail(totals: Totals, data: EventData.TestFail): void {
  const skip = reasonOf(data.skip);
  const todo = reasonOf(data.todo);
  if (skip !== undefined || todo !== undefined) {
    const reason = skip ?? `to do: ${todo ?? ""}`;
    totals.skips.push({ name: `${data.name} (${fileOf(data)})`, reason });
    return;
  }
  if (isEcho(data)) return;
  totals.failed++;
  totals.failures.push(`${data.name} (${fileOf(data)})`);
}

async function runSuite(suite: Suite, globs: readonly string[], totals: Totals): Promise<void> {
  process.stdout.write(`\n== ${suite} tests ==\n`);
  const events = run({
    globPatterns: globs.length > 0 ? globs : GLOBS[suite],
    concurrency: concurrencyOf(suite),
    timeout: TIMEOUT_MS[suite],
  });
  events.on("test:pass", (data) => countPass(totals, data));
  events.on("test:fail", (data) => countFail(totals, data));
  for (const end of ["test:pass", "test:fail"] as const) {
    events.on(end, (data: EventData.TestPass | EventData.TestFail) => addTime(totals, data));
  }
  const report = events.compose(spec);
  report.pipe(process.stdout, { end: false });
  await finished(report);
}

function summarize(totals: Totals): void {
  const slowest = [...totals.tookMs].sort((a, b) => b[1] - a[1]).slice(0, SLOWEST);
  const lines = ["", "The slowest files:"];
  for (const [file, ms] of slowest) lines.push(`${(ms / 1000).toFixed(1).padStart(7)} s  ${file}`);
  lines.push("");
  for (const name of totals.failures) lines.push(`FAILED: ${name}`);
  for (const skip of totals.skips) lines.push(`SKIPPED: ${skip.name} because ${skip.reason}`);
  if (totals.passed + totals.failed === 0) lines.push("NO TEST RAN, which counts as a failure.");
  lines.push(`${totals.passed} passed, ${totals.failed} failed, ${totals.skips.length} skipped`);
  process.stdout.write(`${lines.join("\n")}\n`);
}

function parseArguments(args: readonly string[]): { suites: Suite[]; globs: readonly string[] } {
  const [first, ...rest] = args;
  if (first === "unit" || first === "sim" || first === "integration") {
    return { suites: [first], globs: rest };
  }
  if (args.length > 0) return { suites: ["unit"], globs: args };
  return { suites: ["unit", "sim", "integration"], globs: [] };
}

// mke2fs, losetup and their like live outside the PATH of many ordinary users.
process.env["PATH"] = `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;

const { suites, globs } = parseArguments(process.argv.slice(2));
const totals: Totals = { passed: 0, failed: 0, failures: [], skips: [], tookMs: new Map() };
for (const suite of suites) await runSuite(suite, globs, totals);
summarize(totals);
process.exitCode = totals.failed > 0 || totals.passed === 0 ? 1 : 0;
