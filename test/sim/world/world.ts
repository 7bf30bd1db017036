// A simulated cluster: processes on several hosts, storages, metadata and a network, with checkers that watch all of it.
import { isErrorCode, AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import {
  openMemoryKv,
  type MemoryKv,
  type MemoryKvChange,
  type MemoryKvContents,
} from "#lib/drivers/memory/memory-kv.ts";
import { seededRandom, type SeededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { Log } from "#lib/ports/log.ts";
import type { RepositoryKeys } from "#lib/repository/keys.ts";
import { key } from "#lib/repository/keyspace.ts";
import { encodeRecord } from "#lib/repository/records.ts";
import { createTasks } from "#lib/repository/block-tasks.ts";
import { createHasher } from "#lib/repository/hashing.ts";
import { createSealer, type Sealer } from "#lib/repository/sealing.ts";
import { retireStorage } from "#lib/repository/transactions/retire.ts";
import { addStorage } from "#lib/repository/transactions/storage.ts";
import type { CoordinatorContext } from "#services/coordinator/context.ts";
import { AnswerCheckers } from "../checkers/answer-checkers.ts";
import { Branches } from "../checkers/branches.ts";
import { CommitCheckers } from "../checkers/commit-checkers.ts";
import { Mirror, type Commit } from "../checkers/mirror.ts";
import { StorageCheckers } from "../checkers/storage-checkers.ts";
import { Violation } from "../checkers/violation.ts";
import { FaultPlan } from "../engine/faults.ts";
import { Scheduler } from "../engine/scheduler.ts";
import { drawSlowReads, openSimSource, SimTarget, type SimImage } from "../engine/sim-device.ts";
import { processGone, SimNetwork } from "../engine/sim-network.ts";
import { SimProcess, START_MS, type Latency } from "../engine/sim-process.ts";
import { SimStorage } from "../engine/sim-storage.ts";
import { TraceHash } from "../engine/trace-hash.ts";
import { keysFor } from "./keys.ts";
import { Oracle } from "./oracle.ts";
import { startProcess, type Role, type RunningProcess, type Surroundings } from "./roles.ts";
import type { WorldShape } from "./shape.ts";
import { isStream, Volumes } from "./volumes.ts";

/** Bytes of a block here: as few as make a sealed object. */
export const BLOCK_BYTES = 64;

/** What a target holds elsewhere: what a restore does not write must not show through. */
const OLD_BYTE = 0xee;

/** A place where a process runs, and the one that runs there now. */
export interface ProcessSlot {
  readonly name: string;
  readonly host: string;
  readonly roles: readonly Role[];
  /** How often it was started. */
  starts: number;
  running: RunningProcess | undefined;
}

/** The world. */
export class World {
  readonly shape: WorldShape;
  readonly trace: TraceHash;
  readonly scheduler: Scheduler;
  readonly random: SeededRandom;
  readonly faults: FaultPlan;
  readonly branches = new Branches();
  readonly kv: MemoryKv = openMemoryKv();
  readonly storages: SimStorage[] = [];
  /** Those that were given up: what only they had is lost. */
  readonly lostStorages: SimStorage[] = [];
  /** Of the storages of new versions. */
  readonly #storageNames: string[] = [];
  readonly slots: ProcessSlot[] = [];
  readonly volumes: Volumes;
  readonly oracle = new Oracle();
  readonly keys: RepositoryKeys;
  readonly hints = new Map<string, string>();
  /** What is restored onto, by URL. */
  readonly images = new Map<string, SimImage>();
  mirror = new Mirror();
  commits: CommitCheckers;
  /** Sources and targets that are open, by process. */
  readonly open = new Map<SimProcess, Set<string>>();
  /** The first thing that went wrong where nobody could throw it. */
  failure: Error | undefined;
  wallOffsetMs = 0;
  #answers: AnswerCheckers;
  readonly #watcher: StorageCheckers;
  readonly #sealer: Sealer;
  readonly #around: Surroundings;
  readonly #seed: string;
  readonly #latency: Latency;

  constructor(seed: string, shape: WorldShape, keep?: (line: string) => void) {
    this.#seed = seed;
    this.shape = shape;
    this.trace = new TraceHash(keep);
    this.random = seededRandom(`${seed}/world`);
    this.scheduler = new Scheduler(seededRandom(`${seed}/order`), this.trace);
    this.faults = new FaultPlan(seededRandom(`${seed}/faults`), shape.faults);
    this.volumes = new Volumes(seededRandom(`${seed}/volumes`), shape.volumes);
    this.keys = keysFor(seed);
    this.#latency = shape.latency;
    this.#sealer = createSealer(this.keys, { compression: this.keys.compression });
    this.#watcher = new StorageCheckers(() => this.mirror, this.#sealer, this.branches);
    for (let index = 0; index < shape.storages; index += 1) {
      this.storages.push(
        new SimStorage(this.scheduler, this.faults, this.#watcher, {
          id: this.random.bytes(8).toString("hex") as StorageId,
          name: `s${index}`,
          lagging: index === shape.laggingStorage,
          unreliable: index >= shape.reliableStorages,
          lockMs: shape.lockMs,
          wallMs: () => this.wallMs(),
        }),
      );
    }
    this.#storageNames.push(...this.storages.map(({ name }) => name));
    this.commits = this.#newCommitCheckers();
    this.#answers = new AnswerCheckers(this.mirror, this.branches);
    this.kv.watch((changes) => this.#committed(changes));
    const network = new SimNetwork(this.scheduler, this.faults, (where, message) =>
      this.#answers.watch(where, message),
    );
    this.#around = this.#surroundings(network);
  }

  #newCommitCheckers(): CommitCheckers {
    return new CommitCheckers({
      mirror: this.mirror,
      storages: new Map(
        [...this.storages, ...this.lostStorages].map((storage) => [storage.id, storage]),
      ),
      branches: this.branches,
      isPatient: this.shape.isPatient,
    });
  }

  #surroundings(network: SimNetwork): Surroundings {
    const { shape, keys } = this;
    return {
      kv: this.kv,
      network,
      faults: this.faults,
      storages: this.storages,
      keys,
      hasher: createHasher(keys),
      sealer: this.#sealer,
      tasks: createTasks({ hash: keys, seal: { keys, compression: keys.compression } }),
      config: {
        schema: 1,
        repository: keys.repository,
        createdMs: START_MS,
        blockBytes: BLOCK_BYTES,
        hash: keys.hash,
      },
      settings: {
        ...shape.settings,
        storages: this.#storageNames,
        quorum: 1,
      },
      slots: { slotBytes: 4 * BLOCK_BYTES, slotCount: 4 },
      log: (process) => this.#log(process),
      openSource: (process, url, frozen) => this.#openSource(process, url, frozen),
      openTarget: (process, { url, sizeBytes }) => {
        this.trace.add(`${process.name} opens ${url}`);
        const image = this.images.get(url) ?? {
          data: Buffer.alloc(sizeBytes, OLD_BYTE),
          isFinished: false,
        };
        this.images.set(url, image);
        return new SimTarget(process, url, image, this.#opened(process, url));
      },
      readHints: (path) => this.hints.get(path) ?? "",
      isRunning: (lock) =>
        this.slots.some(({ running }) => running?.process.name === lock && !running.process.isDead),
    };
  }

  get network(): SimNetwork {
    return this.#around.network;
  }

  /** Wall-clock time without anybody's skew, in ms since 1970. */
  wallMs(): number {
    return START_MS + this.wallOffsetMs + this.scheduler.nowMs;
  }

  /** Adds the storages to the metadata, and starts all processes. */
  async begin(): Promise<void> {
    await this.kv.transact((tx) => {
      tx.set(key.config, encodeRecord(this.#around.config));
      return Promise.resolve();
    });
    for (const { id, name } of this.storages) {
      await addStorage(this.kv, id, { name, site: name, state: "in-use", addedMs: START_MS });
    }
    for (const { host, roles } of this.shape.processes) {
      const name = `${host}-${roles.join("+")}-${this.slots.length}`;
      const slot: ProcessSlot = { name, host, roles, starts: 0, running: undefined };
      this.slots.push(slot);
      this.start(slot);
    }
  }

  /** A storage is gone for ever; whoever is started from now on does not have it in its configuration. */
  async loseStorage(storage: SimStorage): Promise<void> {
    this.storages.splice(this.storages.indexOf(storage), 1);
    this.#storageNames.splice(this.#storageNames.indexOf(storage.name), 1);
    this.lostStorages.push(storage);
    storage.away = true;
    await retireStorage(this.kv, storage.id, true);
  }

  /** Starts a process where none runs. */
  start(slot: ProcessSlot): void {
    this.#start(slot, this.#around);
  }

  #start(slot: ProcessSlot, around: Surroundings): void {
    if (slot.running !== undefined) return;
    slot.starts += 1;
    const who = { name: `${slot.name}.${slot.starts}`, host: slot.host, seed: this.#seed };
    const process = new SimProcess(this.scheduler, this.#latency, who, () => this.wallMs());
    slot.running = startProcess(around, process, slot.roles);
  }

  /** Processes that stand still, and whose place another one has taken. */
  readonly zombies: SimProcess[] = [];

  /** Starts another process in the place of one that stands still. */
  abandonZombie(slot: ProcessSlot): void {
    if (slot.running === undefined) return;
    this.zombies.push(slot.running.process);
    slot.running = undefined;
    this.start(slot);
  }

  /** Switches off a process whose place another one has taken. */
  retire(process: SimProcess): void {
    process.kill();
    this.open.delete(process);
  }

  /** Something went wrong where nobody waits for it. */
  fail(error: unknown): void {
    this.failure ??= error instanceof Error ? error : new Error(String(error));
  }

  /** Waits, beside all processes. */
  pass(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.scheduler.after(ms, undefined, "pass", resolve);
    });
  }

  /** Kills the process that runs there. */
  kill(slot: ProcessSlot): void {
    slot.running?.process.kill();
    if (slot.running !== undefined) this.open.delete(slot.running.process);
    slot.running = undefined;
  }

  /** Runs a job in the coordinator of a slot; Unavailable when its process is or goes away. */
  job<T>(slot: ProcessSlot, work: (context: CoordinatorContext) => Promise<T>): Promise<T> {
    const { running } = slot;
    if (running?.context === undefined) return Promise.reject(processGone(slot.name));
    const { process, context } = running;
    return new Promise((resolve, reject) => {
      const forget = process.whenDead(() => reject(processGone(process.name)));
      work(context).then(resolve, reject).finally(forget);
    });
  }

  /** Runs the world until `work` has settled. */
  async until<T>(work: Promise<T>): Promise<T> {
    let isDone = false;
    const done = work.then(
      () => (isDone = true),
      () => (isDone = true),
    );
    await this.scheduler.run(() => {
      if (this.failure !== undefined) throw this.failure;
      return isDone;
    }, this.shape.eventsMax);
    await done;
    return work;
  }

  /** Puts metadata back, or makes them empty: everything that watches begins anew. */
  async replaceMetadata(contents: MemoryKvContents | undefined): Promise<void> {
    this.kv.restore(contents ?? openMemoryKv().snapshot());
    this.mirror = new Mirror();
    this.#storageNames.push(...this.storages.map(({ name }) => name));
    this.commits = this.#newCommitCheckers();
    this.#answers = new AnswerCheckers(this.mirror, this.branches);
    const all = { start: Buffer.of(0), end: Buffer.of(0xff), limit: 10_000_000 };
    this.mirror.apply(await this.kv.read((reader) => reader.range(all)));
    this.commits.reset();
  }

  /**
   * Starts a second cluster on a clone of the metadata, with the same storages. Its versions are known to the oracle. What it
   * removes is removed, whatever the first one's metadata say: so until both have been reconciled only the oracle judges.
   */
  startClone(): ProcessSlot[] {
    const kv = openMemoryKv();
    kv.restore(this.kv.snapshot());
    this.#watcher.isOff = true;
    const mirror = new Mirror();
    kv.watch((changes) => this.#noteVersions(mirror.apply(changes)));
    const network = new SimNetwork(this.scheduler, this.faults, () => undefined);
    const around = { ...this.#around, kv, network };
    return this.shape.processes.map(({ host, roles }, index) => {
      const name = `clone-${host}-${index}`;
      const slot: ProcessSlot = {
        name,
        host: `clone-${host}`,
        roles,
        starts: 0,
        running: undefined,
      };
      this.#start(slot, around);
      return slot;
    });
  }

  /** The clone is stopped, and the metadata are reconciled. */
  endClone(): void {
    this.#watcher.isOff = false;
  }

  #committed(changes: readonly MemoryKvChange[]): void {
    const commit = this.mirror.apply(changes);
    this.trace.add(`commit ${changes.length}`);
    try {
      this.#noteVersions(commit);
      this.#answers.changed(commit.blocks);
      this.commits.check(commit);
    } catch (error) {
      // Thrown into the transaction it might be taken for an error of the actor.
      this.failure ??= error as Error;
    }
  }

  #noteVersions({ versions, sessions }: Commit): void {
    const { nowMs } = this.scheduler;
    for (const [uid, { before, after }] of versions) {
      if (after?.state === "incomplete") this.oracle.began(uid, after.source, nowMs);
      if (before?.state === "incomplete" && after?.state === "valid") {
        this.oracle.finished(uid, nowMs);
      }
      if (before?.state === "incomplete" && after === undefined) {
        this.branches.hit("incomplete-dropped");
      }
      if (after?.state === "removed") this.oracle.acknowledged.delete(uid);
    }
    for (const { before, after } of sessions.values()) {
      if (before?.state !== "dead" || after?.state !== "live") continue;
      this.branches.hit("session-resumed");
      this.oracle.resumed(after.uid, nowMs);
    }
  }

  #openSource(process: SimProcess, url: string, frozen: boolean) {
    const content = this.volumes.contentAt(url);
    if (content === undefined) {
      throw new AshlarError(ErrorCode.NotFound, `${url}: there is no such volume`);
    }
    this.oracle.opened(url, this.scheduler.nowMs, content);
    const onClose = this.#opened(process, url);
    return openSimSource(process, this.faults, {
      url,
      content,
      frozen,
      isStream: isStream(url),
      blockBytes: BLOCK_BYTES,
      slowReads: drawSlowReads(process.random, this.shape.slowSources),
      onClose,
    });
  }

  #opened(process: SimProcess, url: string): () => void {
    const open = this.open.get(process) ?? new Set();
    this.open.set(process, open);
    const name = `${url} ${this.scheduler.eventCount}`;
    open.add(name);
    return () => void open.delete(name);
  }

  #log(process: SimProcess): Log {
    const note = (level: string, message: string, fields?: Readonly<Record<string, unknown>>) => {
      const error = fields?.["error"];
      this.trace.add(`${process.name} ${level} ${message}`);
      if (level === "error" && !(error instanceof AshlarError)) {
        this.failure ??= new Violation("defect", `${process.name}: ${message}: ${describe(error)}`);
      }
    };
    return {
      debug: (message, fields) => note("debug", message, fields),
      info: (message, fields) => note("info", message, fields),
      warn: (message, fields) => note("warn", message, fields),
      error: (message, fields) => note("error", message, fields),
    };
  }
}

/** An error as text, with its causes. */
export function describe(error: unknown): string {
  if (isErrorCode(error, ErrorCode.Internal) || !(error instanceof AshlarError)) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  return `${error.code} ${error.message}`;
}
