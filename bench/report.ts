/** Tables for people: on the terminal while the benchmark runs, and as docs/benchmarks.md. */
import type { Primitives } from "./primitives.ts";
import {
  CHAIN_TWO_CORES,
  DURABLE_OBJECTS,
  PRIMITIVE_FIGURES,
  REFERENCE_SHARE_MIN,
} from "./reference-figures.ts";
import type { StartUp } from "./contender.ts";
import {
  asMebibytes,
  asPercent,
  findSummary,
  ratio,
  summarize,
  type Row,
  type ScenarioResult,
  type Summary,
  type Verdict,
} from "./scenario-result.ts";

/** Everything below this heading of an existing report is written by people, and kept. */
export const NOTES_HEADING = "## Notes";
/** Above this share of the machine, others make the numbers worthless. */
const NOISY_SHARE = 0.1;

/** What a report is made of. */
export interface ReportParts {
  readonly machine: ReadonlyMap<string, string>;
  readonly versions: ReadonlyMap<string, string>;
  readonly imageBytes: number;
  readonly repeat: number;
  readonly primitives: ReadonlyMap<string, Primitives>;
  /** MB/s of the limit's chain without writing, on two threads. */
  readonly chainTwoCores: number;
  /** MB/s of durable objects without the chain. */
  readonly durableObjects: number;
  readonly startUps: ReadonlyMap<string, StartUp>;
  readonly results: readonly ScenarioResult[];
  readonly failures: readonly string[];
}

/** A table of Markdown; the first column holds words, the others numbers. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join(" | ")} |`;
  const rule = widths.map((width, column) =>
    column === 0 ? "-".repeat(width) : `${"-".repeat(Math.max(1, width - 1))}:`,
  );
  return [line(head), line(rule), ...rows.map(line)];
}

/** What was to be reached, and whether it was. */
export function targetTable(verdicts: readonly Verdict[]): string[] {
  return table(
    ["target", "measured", ""],
    verdicts.map(({ target, measured, reached }) => [
      target,
      measured,
      reached === undefined ? "" : reached ? "reached" : "MISSED",
    ]),
  );
}

/** The machine and the state of the code, by name. */
export function machineTable(machine: ReadonlyMap<string, string>): string[] {
  return table(
    ["", ""],
    [...machine].map(([name, value]) => [name, value]),
  );
}

function versus(own: Summary, other: Summary | undefined): string {
  const value = ratio(own.megabytesPerSecond, other?.megabytesPerSecond);
  return value === undefined ? "" : value.toFixed(2);
}

/** Rows of the same kind of work are compared: by what they did, else by the scenario. */
function comparable(result: ScenarioResult, row: Row, contender: string): Summary | undefined {
  return findSummary(result, contender, row.what);
}

function scenarioRow(result: ScenarioResult, row: Row): string[] {
  const summary = summarize(row);
  const name = row.what === result.title ? row.contender : `${row.contender}: ${row.what}`;
  const isData = row.bytes > 0;
  return [
    name,
    summary.wallSeconds.toFixed(2),
    summary.netSeconds.toFixed(2),
    isData ? summary.megabytesPerSecond.toFixed(0) : "",
    summary.cpuSeconds.toFixed(2),
    summary.storedBytes === undefined ? "" : asMebibytes(summary.storedBytes),
    isData ? versus(summary, comparable(result, row, "limit")) : "",
    isData ? versus(summary, comparable(result, row, "restic")) : "",
    isData ? versus(summary, comparable(result, row, "borg")) : "",
    asMebibytes(summary.peakBytes),
    asPercent(summary.othersShare),
    String(row.outcomes.length),
  ];
}

const SCENARIO_HEAD = [
  "",
  "wall s",
  "net s",
  "MB/s",
  "CPU s",
  "stored",
  "÷ limit",
  "÷ restic",
  "÷ borg",
  "peak memory",
  "others",
  "runs",
];

const VERDICT_WORDS = new Map([
  [true, "reached"],
  [false, "MISSED"],
  [undefined, "open"],
]);

/** One scenario as text that reads well on a terminal and as Markdown. */
export function formatScenario(result: ScenarioResult): string {
  const lines = [`## (${result.number}) ${result.title}`, ""];
  const rows = result.rows.map((row) => scenarioRow(result, row));
  lines.push(...table(SCENARIO_HEAD, rows), "");
  for (const { target, measured, reached } of result.verdicts)
    lines.push(`- **${VERDICT_WORDS.get(reached)}**: ${target}: ${measured}`);
  for (const note of result.notes) lines.push(`- ${note}`);
  for (const failure of result.failures) lines.push(`- **failed**: ${failure.split("\n", 1)[0]}`);
  const isNoisy = result.rows.some((row) => summarize(row).othersShare > NOISY_SHARE);
  if (isNoisy)
    lines.push("- The machine was busy with other work meanwhile: see the column *others*.");
  return `${lines.join("\n")}\n`;
}

function figureRows(parts: ReportParts): string[][] {
  const rows: string[][] = [];
  const add = (name: string, value: number | undefined, reference: number | undefined): void => {
    const share = ratio(value, reference);
    rows.push([
      name,
      value?.toFixed(0) ?? "",
      reference?.toFixed(0) ?? "",
      share === undefined ? "" : asPercent(share),
    ]);
  };
  for (const [blockSize, values] of parts.primitives) {
    const figures = PRIMITIVE_FIGURES[blockSize] ?? {};
    add(`keyed BLAKE3, ${blockSize}`, values.hash, figures.hash);
    add(`zstd level 1, ${blockSize}`, values.compress, figures.compress);
    add(`zstd back, ${blockSize}`, values.decompress, figures.decompress);
    add(`AES-256-GCM, ${blockSize}`, values.encrypt, figures.encrypt);
    add(`the chain of a backup, ${blockSize}`, values.chain, figures.chain);
    add(`the chain of a restore, ${blockSize}`, values.open, figures.open);
  }
  add("read and the chain, 4MiB, two threads", parts.chainTwoCores, CHAIN_TWO_CORES);
  add("durable objects of 4MiB, all threads", parts.durableObjects, DURABLE_OBJECTS);
  return rows;
}

/** The limit's figures beside those of the machine of reference. */
export function formatFigures(parts: ReportParts): string {
  const rows = figureRows(parts);
  const isBelow = rows.some(([, , , share]) => parseFloat(share ?? "") < REFERENCE_SHARE_MIN * 100);
  const lines = [
    "## The limit",
    "",
    "MB per second of one thread, on real data, best of three. The reference is an undisturbed machine.",
    "",
    ...table(["", "MB/s", "reference", "share"], rows),
    "",
  ];
  if (isBelow) {
    lines.push(
      `Some figures are below ${asPercent(REFERENCE_SHARE_MIN)} of the reference. Where the single primitives are too, the`,
      "machine is slower or was disturbed, and the limit with it; where only a chain is, the limit is too easy.",
      "",
    );
  }
  return lines.join("\n");
}

/** What each contender needs for no work. */
export function formatStartUps(startUps: ReadonlyMap<string, StartUp>): string {
  const rows = [...startUps].map(([name, { backup, restore, verify }]) => [
    name,
    backup.wallSeconds.toFixed(2),
    backup.cpuSeconds.toFixed(2),
    restore.wallSeconds.toFixed(2),
    verify.wallSeconds.toFixed(2),
  ]);
  const head = ["", "backup s", "its CPU s", "restore s", "verify s"];
  const about =
    "On an empty file: process, key derivation, opening the repository. Net seconds are without it.";
  return ["## Start-up", "", about, "", ...table(head, rows), ""].join("\n");
}

/** All targets in one table, so that what is missed cannot be overlooked. */
export function formatVerdicts(results: readonly ScenarioResult[]): string {
  const lines = ["## Targets", "", "| scenario | target | measured | |", "|---|---|---|---|"];
  for (const { number, verdicts } of results) {
    for (const { target, measured, reached } of verdicts)
      lines.push(`| (${number}) | ${target} | ${measured} | ${VERDICT_WORDS.get(reached)} |`);
  }
  return `${lines.join("\n")}\n`;
}

/** The whole document; `notes` is what people wrote below its heading. */
export function formatReport(parts: ReportParts, notes: string): string {
  const facts = [...parts.machine, ...parts.versions].map(
    ([name, value]) => `| ${name} | ${value} |`,
  );
  const head = [
    "# Benchmarks",
    "",
    "Written by `npm run bench`, except for the notes at the end. Each scenario runs in turn on the machine's own",
    "limit (`bench/limit.ts`: the same primitives on all cores, and nothing else), Ashlar, restic and borg, on the",
    `same image of ${parts.imageBytes / 1024 ** 3} GiB in the page cache; the median of up to ${parts.repeat} runs counts. *net* is without start-up, and`,
    "speeds and ratios are of it; *CPU* is user and system time of all processes; *peak memory* is RssAnon + RssShmem",
    "of the process tree, sampled every 50 ms from outside; *others* is the share of all cores that other programs",
    "and the kernel's own threads took meanwhile.",
    "",
    "| | |",
    "|---|---|",
    ...facts,
    "",
  ];
  const failures = parts.failures.map((failure) => `- **failed**: ${failure.split("\n", 1)[0]}`);
  return [
    head.join("\n"),
    formatVerdicts(parts.results),
    formatFigures(parts),
    formatStartUps(parts.startUps),
    ...(failures.length === 0 ? [] : [`${failures.join("\n")}\n`]),
    ...parts.results.map(formatScenario),
    `${NOTES_HEADING}\n${notes}`,
  ].join("\n");
}

/** What people wrote into an earlier report. */
export function notesOf(report: string): string {
  const at = report.indexOf(`\n${NOTES_HEADING}\n`);
  return at < 0 ? "\n" : report.slice(at + NOTES_HEADING.length + 2);
}
