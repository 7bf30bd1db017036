// The progress bar: on a terminal only. What it says is made by a pure function; cli-progress draws it.
import { createRequire } from "node:module";
import type * as CliProgress from "cli-progress";
import { formatDuration, formatSize } from "#lib/core/size.ts";
import type { Progress } from "#services/coordinator/jobs.ts";
import type { CommandContext } from "./context.ts";

/** Drawing more often than this only costs time. */
const FPS = 5;
/** The rate is averaged over about this long, so that it neither jumps nor lags. */
const RATE_WINDOW_MS = 10_000;
const BAR_WIDTH_MAX = 30;
const COLUMNS_DEFAULT = 80;

/** A bar, or nothing where there is no terminal. */
export interface ProgressBar {
  readonly show: (progress: Progress) => void;
  readonly stop: () => void;
}

/** Speed of a job, averaged over the last seconds. */
export class RateMeter {
  #lastMs: number | undefined;
  #lastBytes = 0;
  #bytesPerMs = 0;

  /** Takes note of where the job is; answers bytes per second. */
  update(nowMs: number, bytesDone: number): number {
    if (this.#lastMs === undefined) {
      this.#lastMs = nowMs;
      this.#lastBytes = bytesDone;
      return 0;
    }
    const elapsed = nowMs - this.#lastMs;
    if (elapsed <= 0) return this.#bytesPerMs * 1000;
    const rate = Math.max(0, bytesDone - this.#lastBytes) / elapsed;
    const weight = this.#bytesPerMs === 0 ? 1 : 1 - Math.exp(-elapsed / RATE_WINDOW_MS);
    this.#bytesPerMs += (rate - this.#bytesPerMs) * weight;
    this.#lastMs = nowMs;
    this.#lastBytes = bytesDone;
    return this.#bytesPerMs * 1000;
  }
}

/** One line: phase, bar, share done, bytes, rate, time left, dedup share, sparse share; cut to the terminal's width. */
export function formatProgress(
  progress: Progress,
  bytesPerSecond: number,
  columns: number,
): string {
  const { phase, bytesDone, bytesTotal, bytesNew, bytesKnown, bytesSparse } = progress;
  const parts: string[] = [];
  if (bytesTotal === undefined) parts.push(formatSize(bytesDone));
  else {
    const share = bytesTotal === 0 ? 1 : Math.min(1, bytesDone / bytesTotal);
    parts.push(`${percent(share)} of ${formatSize(bytesTotal)}`);
  }
  if (bytesPerSecond > 0) {
    parts.push(`${formatSize(bytesPerSecond)}/s`);
    if (bytesTotal !== undefined && bytesDone < bytesTotal) {
      parts.push(`${formatDuration(((bytesTotal - bytesDone) / bytesPerSecond) * 1000)} left`);
    }
  }
  if (bytesNew + bytesKnown > 0)
    parts.push(`dedup ${percent(bytesKnown / (bytesNew + bytesKnown))}`);
  if (bytesSparse > 0 && bytesDone > 0) parts.push(`sparse ${percent(bytesSparse / bytesDone)}`);
  const text = parts.join(" · ");
  const room = Math.min(BAR_WIDTH_MAX, columns - phase.length - text.length - 5);
  if (bytesTotal === undefined || room < 5) return `${phase} ${text}`.slice(0, columns);
  const filled = Math.round(room * (bytesTotal === 0 ? 1 : Math.min(1, bytesDone / bytesTotal)));
  return `${phase} [${"#".repeat(filled)}${".".repeat(room - filled)}] ${text}`.slice(0, columns);
}

function percent(share: number): string {
  return `${Math.floor(Math.min(1, share) * 100)} %`;
}

/** The width of a terminal; some say 0 when they do not know. */
function columnsOf(terminal: NodeJS.WriteStream): number {
  return terminal.columns > 0 ? terminal.columns : COLUMNS_DEFAULT;
}

/** Starts a bar on stderr, or one that does nothing where that is no terminal, or --quiet. */
export function startProgressBar(context: CommandContext): ProgressBar {
  const { stderr, options, onTerminal } = context;
  if (!stderr.isTTY || options.quiet) {
    return { show: () => undefined, stop: () => undefined };
  }
  let progress: Progress | undefined;
  let rate = 0;
  let bar: CliProgress.SingleBar | undefined;
  const meter = new RateMeter();
  const start = (): CliProgress.SingleBar => {
    const { SingleBar } = createRequire(import.meta.url)("cli-progress") as typeof CliProgress;
    const made = new SingleBar({
      stream: stderr,
      fps: FPS,
      hideCursor: true,
      clearOnComplete: true,
      linewrap: null,
      format: () =>
        progress === undefined ? "" : formatProgress(progress, rate, columnsOf(stderr) - 1),
    });
    made.start(1, 0);
    return made;
  };
  onTerminal.clear = () => {
    // The bar is drawn again below what is written now.
    if (bar !== undefined) stderr.write("\r\u001B[K");
  };
  return {
    show: (next) => {
      progress = next;
      rate = meter.update(performance.now(), next.bytesDone);
      bar ??= start();
      bar.update(0);
    },
    stop: () => {
      bar?.stop();
      bar = undefined;
    },
  };
}

/** Shows a number of bytes that only grows, for work whose end nobody knows. */
export interface Counter {
  readonly show: (bytesDone: number, phase?: string) => void;
  readonly stop: () => void;
}

/** Starts a counter where a bar would be shown. */
export function startCounter(context: CommandContext, phase: string): Counter {
  const bar = startProgressBar(context);
  return {
    show: (bytesDone, now = phase) =>
      bar.show({
        phase: now,
        bytesDone,
        bytesTotal: undefined,
        bytesNew: 0,
        bytesKnown: 0,
        bytesSparse: 0,
      }),
    stop: bar.stop,
  };
}
