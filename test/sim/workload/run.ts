// One run of a seed: operators work while things go wrong; then everything heals, what is left over drains, and all is checked.
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { Violation } from "../checkers/violation.ts";
import { checkConverged } from "../checkers/final-checkers.ts";
import type { Branch } from "../checkers/branches.ts";
import type { Fault } from "../engine/faults.ts";
import { describe, World, type ProcessSlot } from "../world/world.ts";
import { copyWorld, DISASTER_NAMES, strike, type Copies } from "./disasters.ts";
import { drain, heal } from "./drain.ts";
import { rage } from "./nemesis.ts";
import { isExcused, OPERATIONS, type Operation } from "./operations.ts";
import type { Scenario } from "./scenarios.ts";

/** What came of a run. */
export interface RunResult {
  readonly seed: string;
  readonly scenario: string;
  readonly traceHash: string;
  readonly events: number;
  readonly virtualMs: number;
  /** Operations that ended, and how many of them failed. */
  readonly operations: number;
  readonly failed: number;
  readonly faults: ReadonlyMap<Fault, number>;
  readonly branches: ReadonlyMap<Branch, number>;
  /** What was broken; undefined where all is well. */
  readonly failure: { readonly invariant: string; readonly message: string } | undefined;
}

/** So long after the last fault every job has ended, in ms. */
const END_MS_MAX = 3_600_000;
/** Time between two operations of one operator, in ms, at most. */
const PAUSE_MS_MAX = 400;

/** Runs a seed; never rejects. */
export async function runSeed(
  scenario: Scenario,
  seed: string,
  keep?: (line: string) => void,
): Promise<RunResult> {
  const shape = scenario.shape(seededRandom(`${scenario.name}/${seed}/shape`));
  const world = new World(`${scenario.name}/${seed}`, shape, keep);
  const workload = new Workload(world, scenario);
  let failure: RunResult["failure"];
  try {
    await workload.run();
    await maybeStrike(world, scenario, workload.copies);
    await demandFaults(world, scenario);
  } catch (error) {
    const invariant = error instanceof Violation ? error.invariant : "progress";
    failure = { invariant, message: describe(error) };
  }
  return {
    seed,
    scenario: scenario.name,
    traceHash: world.trace.digest(),
    events: world.scheduler.eventCount,
    virtualMs: Math.round(world.scheduler.nowMs),
    operations: workload.ended,
    failed: workload.failed,
    faults: world.faults.fired,
    branches: world.branches.counts,
    failure,
  };
}

async function maybeStrike(
  world: World,
  { disasterShare }: Scenario,
  copies: Copies | undefined,
): Promise<void> {
  if (copies === undefined || !world.random.chance(disasterShare)) return;
  await strike(world, world.random.pick(DISASTER_NAMES), copies);
}

/** A fault that was planned and never fired proves nothing. */
async function demandFaults(world: World, { faultsMin }: Scenario): Promise<void> {
  const { fired, kinds } = world.faults.total;
  if (fired >= faultsMin.fired && kinds >= faultsMin.kinds) return;
  await Promise.reject(
    new Error(`only ${fired} faults of ${kinds} kinds fired: this seed proves too little`),
  );
}

class Workload {
  readonly #world: World;
  readonly #operations: number;
  /** With how often each is drawn, relative to the others. */
  readonly #drawn: readonly (readonly [string, Operation, number])[];
  /** The operation before which the copies are taken. */
  readonly #copiesAt: number;
  #begun = 0;
  /** Operations under way. */
  readonly #running = new Set<string>();
  ended = 0;
  failed = 0;
  /** Of the world in the middle of its work. */
  copies: Copies | undefined;

  constructor(world: World, { operations, weights }: Scenario) {
    this.#world = world;
    this.#operations = operations;
    this.#drawn = Object.entries(OPERATIONS).map(([name, { run, weight }]) => [
      name,
      run,
      weights === undefined ? weight : (weights[name] ?? 0),
    ]);
    this.#copiesAt = 1 + world.random.below(operations);
  }

  async run(): Promise<void> {
    const world = this.#world;
    await world.begin();
    const operators = Array.from({ length: world.shape.operators }, () => this.#operate());
    const all = Promise.all(operators);
    const raging = rage(world, () => world.faults.isOver).catch((error: unknown) =>
      world.fail(error),
    );
    await world.until(all);
    world.faults.isOver = true;
    await world.until(raging);

    await heal(world);

    await drain(world);

    await checkConverged(world);
  }

  /**
   * With the last operation the faults end: whatever is under way then must come to its end by itself. (Processes come back and
   * wake up, storages are there again, within minutes.)
   */
  #endFaults(): void {
    const world = this.#world;
    if (world.faults.isOver) return;
    world.faults.isOver = true;
    void world.pass(END_MS_MAX).then(() => {
      if (this.#running.size === 0) return;
      const names = [...this.#running].join();
      world.fail(new Violation("progress", `${names} did not end after the faults`));
    });
  }

  /** One operator: one operation after the other. */
  async #operate(): Promise<void> {
    const world = this.#world;
    while (this.#begun < this.#operations) {
      const slot = this.#pickCoordinator();
      if (slot === undefined) {
        await world.pass(PAUSE_MS_MAX);
        continue;
      }
      const [name, operation] = this.#draw();
      // A volume that changes is no operation of ours.
      if (name !== "change") this.#begun += 1;
      if (this.#begun === this.#operations) this.#endFaults();
      if (this.#begun === this.#copiesAt) this.copies ??= copyWorld(world);
      world.trace.add(`operation ${name} ${slot.name}`);
      const job = `${name} on ${slot.name}`;
      this.#running.add(job);
      try {
        await operation(world, slot);
        world.trace.add(`done ${name}`);
      } catch (error) {
        world.trace.add(`failed ${name} ${error instanceof Error ? error.message : ""}`);
        this.failed += 1;
        if (!isExcused(world, error)) throw unexcused(name, error);
      }
      this.#running.delete(job);
      if (name !== "change") this.ended += 1;
      await world.pass(world.random.below(PAUSE_MS_MAX));
    }
  }

  #pickCoordinator(): ProcessSlot | undefined {
    const running = this.#world.slots.filter(
      (slot) => slot.roles.includes("coordinator") && slot.running !== undefined,
    );
    return running.length === 0 ? undefined : this.#world.random.pick(running);
  }

  #draw(): readonly [string, Operation] {
    const total = this.#drawn.reduce((sum, [, , weight]) => sum + weight, 0);
    let at = this.#world.random.below(total);
    for (const [name, run, weight] of this.#drawn) {
      if (at < weight) return [name, run];
      at -= weight;
    }
    throw new Error("an operation is drawn");
  }
}

function unexcused(name: string, error: unknown): Error {
  if (error instanceof Violation) return error;
  return new Violation("defect", `${name} failed: ${describe(error)}`);
}
