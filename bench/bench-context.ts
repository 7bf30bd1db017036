/** What the scenarios share: the contenders, the images, and the repositories that later scenarios need. */
import { rm } from "node:fs/promises";
import type { AshlarContender } from "./ashlar.ts";
import {
  measureStartUp,
  type Contender,
  type Outcome,
  type StartUp,
  type Verb,
} from "./contender.ts";
import type { DataSet } from "./data-set.ts";
import type { LimitContender } from "./limit-contender.ts";
import type { BenchOptions } from "./options.ts";
import { settle, type Workspace } from "./workspace.ts";
import type { ScenarioResult } from "./scenario-result.ts";

/** What takes longer than this is not repeated. */
const REPEATED_BELOW_SECONDS = 30;

/** Raised between steps when the user interrupts. */
export class InterruptedError extends Error {
  override readonly name = "InterruptedError";
}

/** One run of the benchmark. */
export class BenchContext {
  readonly options: BenchOptions;
  readonly workspace: Workspace;
  readonly data: DataSet;
  readonly contenders: readonly Contender[];
  readonly limit: LimitContender | undefined;
  readonly ashlar: AshlarContender | undefined;
  readonly startUps = new Map<string, StartUp>();
  readonly #repositories = new Map<string, string>();
  readonly #isInterrupted: () => boolean;

  constructor(parts: {
    readonly options: BenchOptions;
    readonly workspace: Workspace;
    readonly data: DataSet;
    readonly limit: LimitContender | undefined;
    readonly ashlar: AshlarContender | undefined;
    readonly peers: readonly Contender[];
    readonly isInterrupted: () => boolean;
  }) {
    this.options = parts.options;
    this.workspace = parts.workspace;
    this.data = parts.data;
    this.limit = parts.limit;
    this.ashlar = parts.ashlar;
    this.#isInterrupted = parts.isInterrupted;
    // The limit comes before Ashlar and the peers after it: neighbours in time see the same machine.
    this.contenders = [parts.limit, parts.ashlar, ...parts.peers].filter(
      (contender) => contender !== undefined,
    );
  }

  /** Call between steps: an interrupted benchmark cleans up instead of going on. */
  checkInterrupted(): void {
    if (this.#isInterrupted()) throw new InterruptedError("interrupted");
  }

  /** Measures what each contender needs for no work; the limit tells its work itself. */
  async measureStartUps(): Promise<string[]> {
    const failures: string[] = [];
    for (const contender of this.contenders) {
      if (contender.name === "limit") continue;
      this.checkInterrupted();
      try {
        this.startUps.set(contender.name, await measureStartUp(contender, this.workspace));
      } catch (error) {
        failures.push(`start-up of ${contender.name}: ${(error as Error).message}`);
      }
    }
    return failures;
  }

  /** What a contender's start-up took; nothing for the limit. */
  startUp(contender: string, verb: Verb): StartUp[Verb] {
    return this.startUps.get(contender)?.[verb] ?? { wallSeconds: 0, cpuSeconds: 0 };
  }

  /** Runs one step; a failure becomes a sentence of the result. */
  async attempt(result: ScenarioResult, what: string, step: () => Promise<void>): Promise<boolean> {
    this.checkInterrupted();
    console.error(`scenario ${result.number}: ${what} …`);
    try {
      await step();
      return true;
    } catch (error) {
      this.checkInterrupted();
      const message = `${what}: ${(error as Error).message}`;
      console.error(`scenario ${result.number}: failed: ${message}`);
      result.failures.push(message);
      return false;
    }
  }

  /**
   * Lets the contenders take turns, as often as asked for, and adds a row for each. A contender that
   * fails, or takes long, does not come again.
   */
  async interleave(
    result: ScenarioResult,
    verb: Verb,
    bytes: number,
    action: (contender: Contender, round: number) => Promise<Outcome>,
    contenders: readonly Contender[] = this.contenders,
  ): Promise<void> {
    const outcomes = new Map<string, Outcome[]>(contenders.map(({ name }) => [name, []]));
    const finished = new Set<string>();
    for (let round = 0; round < this.options.repeat; round++) {
      for (const contender of contenders) {
        if (finished.has(contender.name)) continue;
        const isGood = await this.attempt(
          result,
          `${contender.name}, round ${round + 1}`,
          async () => {
            await settle();
            const outcome = await action(contender, round);
            outcomes.get(contender.name)?.push(outcome);
            if (outcome.wallSeconds >= REPEATED_BELOW_SECONDS) finished.add(contender.name);
          },
        );
        if (!isGood) finished.add(contender.name);
      }
    }
    for (const [contender, list] of outcomes) {
      if (list.length === 0) continue;
      this.addRow(result, contender, result.title, bytes, list, verb);
    }
  }

  /** Adds a row of repetitions of one kind of work. */
  addRow(
    result: ScenarioResult,
    contender: string,
    what: string,
    bytes: number,
    outcomes: readonly Outcome[],
    verb: Verb = "backup",
  ): void {
    const startUpSeconds = this.startUp(contender, verb).wallSeconds;
    result.rows.push({ contender, what, bytes, startUpSeconds, outcomes });
  }

  /** Keeps a repository that holds the real image, for later scenarios, in place of an earlier one. */
  async keepRepository(contender: string, repository: string): Promise<void> {
    const earlier = this.#repositories.get(contender);
    this.#repositories.set(contender, repository);
    if (earlier !== undefined) await rm(earlier, { recursive: true, force: true });
  }

  /** A repository that holds the real image: the one of scenario 1, or one made now. */
  async repositoryWithReal(contender: Contender): Promise<string> {
    const kept = this.#repositories.get(contender.name);
    if (kept !== undefined) return kept;
    const repository = this.workspace.newPath(`real-${contender.name}`);
    await contender.create(repository);
    await contender.backup(repository, await this.data.real());
    await this.keepRepository(contender.name, repository);
    return repository;
  }
}
