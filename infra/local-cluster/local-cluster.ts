// A local cluster under way: its state on disk follows every step, so that whatever happens can be stopped or gone on with.
import { setTimeout } from "node:timers/promises";
import { readFile } from "node:fs/promises";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Place } from "./place.ts";
import { isRunning, launch, type ProcessRecord } from "./process-record.ts";
import { writeState, type ClusterState } from "./state.ts";
import { run, type Tools } from "./tools.ts";

/** Machines are slow when they have other things to do. */
const READY_MS = 180_000;
const POLL_MS = 100;
const LOG_LINES = 12;
/** An agent ends with one of these where NATS does not answer in time, which it may not while it begins; systemd starts it again, too. */
const PASSING: ReadonlySet<number | null> = new Set([69, 75]);
const STARTS_MAX = 5;

interface Start {
  readonly count: number;
  readonly command: readonly string[];
  readonly exitCode: Promise<number | null>;
}

/** What the steps of a start work with. */
export class LocalCluster {
  readonly place: Place;
  readonly tools: Tools;
  readonly state: ClusterState;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
  /** What this command has started. */
  readonly launched: ProcessRecord[] = [];
  readonly #starts = new Map<string, Start>();

  constructor(
    place: Place,
    tools: Tools,
    state: ClusterState,
    { say, signal }: { readonly say: (line: string) => void; readonly signal: AbortSignal },
  ) {
    this.place = place;
    this.tools = tools;
    this.state = state;
    this.say = say;
    this.signal = signal;
  }

  save(): Promise<void> {
    return writeState(this.place, this.state);
  }

  port(name: string): number {
    const port = this.state.ports[name];
    if (port === undefined) throw new AshlarError(ErrorCode.Internal, `no port for ${name}`);
    return port;
  }

  isRunning(name: string): boolean {
    return this.state.processes.some((record) => record.name === name && isRunning(record));
  }

  /** Runs ashlar to its end. */
  ashlar(...args: string[]): Promise<string> {
    return run([this.tools.ashlar, ...args], this.signal);
  }

  /** Runs a command on the repository. */
  onRepository(...args: string[]): Promise<string> {
    return this.ashlar("--config", this.place.repository, "--yes", ...args);
  }

  /** Starts a process unless it runs. */
  async launch(name: string, command: readonly string[]): Promise<void> {
    this.signal.throwIfAborted();
    if (this.isRunning(name)) return;
    const { promise: exitCode, resolve: onExit } = Promise.withResolvers<number | null>();
    const count = (this.#starts.get(name)?.count ?? 0) + 1;
    this.#starts.set(name, { count, command, exitCode });
    const record = await launch(name, command, {
      log: this.place.log(name),
      cwd: this.place.folder,
      onExit,
    });
    this.launched.push(record);
    this.state.processes = [...this.state.processes.filter((each) => each.name !== name), record];
    await this.save();
  }

  /** Waits until a process answers `isReady`; tells the end of its log where it ends before, or does not get there. */
  async untilReady(name: string, isReady: () => Promise<boolean>): Promise<void> {
    const untilMs = Date.now() + READY_MS;
    while (!(await isReady())) {
      const isGone = !this.isRunning(name);
      if (isGone && (await this.#startedAgain(name))) continue;
      if (isGone || Date.now() > untilMs) {
        const what = isGone ? "has ended" : `is not ready after ${READY_MS / 1000} s`;
        throw new AshlarError(ErrorCode.Unavailable, `${name} ${what}${await this.#logEnd(name)}`, {
          remedy: `all of its log: ${this.place.log(name)}`,
        });
      }
      await setTimeout(POLL_MS, undefined, { signal: this.signal });
    }
  }

  async #startedAgain(name: string): Promise<boolean> {
    const start = this.#starts.get(name);
    if (start === undefined || start.count >= STARTS_MAX) return false;
    // It has ended, but nothing may have told so yet; and what goes on without this command does not keep it from ending.
    const awake = setInterval(() => undefined, POLL_MS);
    const exitCode = await start.exitCode.finally(() => clearInterval(awake));
    if (!PASSING.has(exitCode)) return false;
    await this.launch(name, start.command);
    return true;
  }

  async #logEnd(name: string): Promise<string> {
    const text = await readFile(this.place.log(name), "utf8").catch(() => "");
    const lines = text.trimEnd().split("\n").slice(-LOG_LINES);
    return [":", ...lines].join("\n    ");
  }
}

/** Whether something at a port of this machine answers that all is well. */
export async function answersWell(port: number | undefined, path: string): Promise<boolean> {
  try {
    return port !== undefined && (await fetch(`http://127.0.0.1:${port}${path}`)).ok;
  } catch {
    return false;
  }
}
