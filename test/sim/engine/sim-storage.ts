// A storage of the simulated world: objects that all processes share, reached over a wire that delays, fails, and fails after
// the effect. What a process has sent takes effect also when the process dies meanwhile.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { blobExists, blobLocked, blobNotFound, blobSizeWrong } from "#lib/drivers/blob-errors.ts";
import { checkBlobName, checkBlobPrefix } from "#lib/drivers/blob-name.ts";
import type {
  BlobEntry,
  BlobLocking,
  BlobStore,
  GetOptions,
  PutOptions,
} from "#lib/ports/blob-store.ts";
import type { FaultPlan } from "./faults.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SimProcess } from "./sim-process.ts";

/** Sees every change of what a storage holds, before it happens. */
export interface StorageWatcher {
  put(storage: SimStorage, name: string, bytes: Buffer, replaced: Buffer | undefined): void;
  deleted(storage: SimStorage, name: string): void;
}

/** How a storage is made. */
export interface SimStorageOptions {
  readonly id: StorageId;
  readonly name: string;
  /** Its listings may lack what was put lately, and it says so. */
  readonly lagging: boolean;
  /** Only such storages lose, corrupt and truncate objects. */
  readonly unreliable: boolean;
  /** It locks objects for so long; undefined where it does not. */
  readonly lockMs: number | undefined;
  /** Its own clock, in ms since 1970. */
  readonly wallMs: () => number;
}

/** How late an effect lands after its caller has given up, in ms. */
const LATE_MS_MAX = 200_000;
/** How long a lagging listing does not show an object, in ms. */
const LAG_MS = 20_000;

type Fate = "ok" | "fail" | "timeout" | "late" | "lose";

/** A storage. */
export class SimStorage {
  readonly id: StorageId;
  readonly name: string;
  readonly lagging: boolean;
  readonly unreliable: boolean;
  readonly objects = new Map<string, Buffer>();
  /** Objects that a fault has touched: what may be missing or wrong here. */
  readonly harmed = new Set<string>();
  readonly lockMs: number | undefined;
  /** Until when objects are locked, in ms since 1970. */
  readonly locks = new Map<string, number>();
  away = false;
  capacityBytes = Infinity;
  usedBytes = 0;
  readonly #putAtMs = new Map<string, number>();
  readonly #scheduler: Scheduler;
  readonly #faults: FaultPlan;
  readonly #watch: StorageWatcher;
  readonly #wallMs: () => number;

  constructor(
    scheduler: Scheduler,
    faults: FaultPlan,
    watch: StorageWatcher,
    options: SimStorageOptions,
  ) {
    this.id = options.id;
    this.name = options.name;
    this.lagging = options.lagging;
    this.unreliable = options.unreliable;
    this.lockMs = options.lockMs;
    this.#wallMs = options.wallMs;
    this.#scheduler = scheduler;
    this.#faults = faults;
    this.#watch = watch;
  }

  /** The BlobStore as one process sees it. */
  client(process: SimProcess): BlobStore {
    return {
      capabilities: { createOnly: true, consistentListing: !this.lagging },
      location: `sim:${this.name}`,
      ...(this.lockMs === undefined ? {} : { locking: this.#locking(process, this.lockMs) }),
      put: (name, bytes, options) => {
        checkBlobName(name);
        // The caller may use its memory again once it has its answer, and an effect may land after that.
        const object = Buffer.from(bytes);
        // By the clock of whoever puts it, as S3 does it.
        const untilMs = process.clock.now() + (this.lockMs ?? 0);
        return this.#run(process, `put ${name}`, true, options.signal, (lost) => {
          this.#put(name, object, options, lost);
          if (this.objects.has(name) && options.unlocked !== true) this.#lock(name, untilMs);
        });
      },
      get: async (name, options = {}) => {
        checkBlobName(name);
        const object = await this.#run(process, `get ${name}`, false, options.signal, () =>
          this.#get(name),
        );
        return this.#deliver(name, object, options);
      },
      stat: (name) => {
        checkBlobName(name);
        return this.#run(process, `stat ${name}`, false, undefined, () => ({
          name,
          sizeBytes: this.#get(name).length,
        }));
      },
      delete: (names) => this.#deleteAll(process, names),
      list: (prefix, options = {}) => this.#list(process, prefix, options.signal),
      check: () => this.#run(process, "check", false, undefined, () => undefined),
      close: () => Promise.resolve(),
    };
  }

  #locking(process: SimProcess, periodMs: number): BlobLocking {
    const extendOne = (name: string, untilMs: number): Promise<void> =>
      this.#run(process, `extend ${name}`, true, undefined, () => {
        this.#get(name);
        this.#lock(name, untilMs);
      });
    return {
      mode: "governance",
      periodMs,
      extend: async (names, untilMs) => {
        const failures = new Map<string, Error>();
        await Promise.all(
          names.map((name) =>
            extendOne(name, untilMs).catch((error: unknown) => failures.set(name, error as Error)),
          ),
        );
        return failures;
      },
      extendMarker: () => this.#run(process, "extend", true, undefined, () => undefined),
    };
  }

  #lock(name: string, untilMs: number): void {
    this.locks.set(name, Math.max(untilMs, this.locks.get(name) ?? 0));
  }

  #requireUnlocked(name: string): void {
    const untilMs = this.locks.get(name) ?? 0;
    if (this.lockMs === undefined || this.#wallMs() >= untilMs) return;
    throw blobLocked(this.name, name, { untilMs, sizeBytes: this.objects.get(name)?.length ?? 0 });
  }

  /** Damages, takes away or puts back an object, as a fault. */
  harm(name: string, bytes: Buffer | undefined): void {
    this.harmed.add(name);
    this.#store(name, bytes);
  }

  /** Goes back to what it held once. */
  restore(objects: ReadonlyMap<string, Buffer>): void {
    for (const name of this.objects.keys()) if (!objects.has(name)) this.harm(name, undefined);
    for (const [name, bytes] of objects) if (!this.objects.has(name)) this.#store(name, bytes);
  }

  #store(name: string, bytes: Buffer | undefined): void {
    this.usedBytes += (bytes?.length ?? 0) - (this.objects.get(name)?.length ?? 0);
    if (bytes === undefined) this.objects.delete(name);
    else this.objects.set(name, bytes);
    if (bytes !== undefined) this.#putAtMs.set(name, this.#scheduler.nowMs);
  }

  #put(name: string, bytes: Buffer, options: PutOptions, lost: boolean): void {
    const old = this.objects.get(name);
    if (old !== undefined && options.mode === "create") throw blobExists(this.name, name);
    // A stamp or head that is lost means that the storage went back: that is a scenario of its own.
    if (lost && (name.startsWith("blocks/") || name.startsWith("nodes/"))) {
      this.#faults.count("blob-write-lost");
      this.harmed.add(name);
      return;
    }
    const grownBytes = bytes.length - (old?.length ?? 0);
    if (options.reserve !== true && this.usedBytes + grownBytes > this.capacityBytes) {
      this.#faults.count("storage-full");
      throw new AshlarError(ErrorCode.Io, `${this.name} is full: no space left (ENOSPC)`, {
        details: { errno: "ENOSPC" },
      });
    }
    this.#watch.put(this, name, bytes, old);
    this.harmed.delete(name);
    this.#store(name, bytes);
  }

  #get(name: string): Buffer {
    const object = this.objects.get(name);
    if (object === undefined) throw blobNotFound(this.name, name);
    return object;
  }

  #deliver(name: string, object: Buffer, { range, into }: GetOptions): Uint8Array {
    const { offset, length } = range ?? { offset: 0, length: object.length };
    if (offset + length > object.length) throw blobSizeWrong(this.name, name, "is too short");
    const bytes = Buffer.from(object.subarray(offset, offset + length));
    // On the wire, not on the storage: whoever takes it for damage raises a false alarm.
    if (bytes.length > 0 && this.#faults.strikes("blob-read-corrupt"))
      flipBit(bytes, this.#scheduler);
    if (into === undefined) return bytes;
    if (into.length < length) throw blobSizeWrong(this.name, name, "is too long");
    into.set(bytes);
    return into.subarray(0, length);
  }

  async #deleteAll(
    process: SimProcess,
    names: readonly string[],
  ): Promise<ReadonlyMap<string, Error>> {
    const failures = new Map<string, Error>();
    for (const name of names) checkBlobName(name);
    await Promise.all(
      names.map(async (name) => {
        try {
          await this.#run(process, `delete ${name}`, true, undefined, (lost) => {
            if (lost || !this.objects.has(name)) return;
            this.#requireUnlocked(name);
            this.#watch.deleted(this, name);
            this.#store(name, undefined);
          });
        } catch (error) {
          failures.set(name, error as Error);
        }
      }),
    );
    return failures;
  }

  async *#list(
    process: SimProcess,
    prefix: string,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<BlobEntry> {
    checkBlobPrefix(prefix);
    const entries = await this.#run(process, `list ${prefix}`, false, signal, () =>
      [...this.objects]
        .filter(([name]) => name.startsWith(prefix) && !this.#isHidden(name))
        .map(([name, { length }]) => ({ name, sizeBytes: length })),
    );
    for (const entry of entries) {
      signal?.throwIfAborted();
      yield entry;
    }
  }

  #isHidden(name: string): boolean {
    if (!this.lagging) return false;
    const age = this.#scheduler.nowMs - (this.#putAtMs.get(name) ?? 0);
    return age < LAG_MS && this.#faults.strikes("storage-listing-stale");
  }

  /** One operation: its request travels, takes effect whoever dies, and its answer travels back. */
  #run<T>(
    process: SimProcess,
    label: string,
    isWrite: boolean,
    signal: AbortSignal | undefined,
    effect: (lost: boolean) => T,
  ): Promise<T> {
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    return new Promise<T>((resolve, reject) => {
      if (process.isDead) return;
      const onAbort = (): void => reject(signal?.reason as Error);
      signal?.addEventListener("abort", onAbort, { once: true });
      const answer = (act: () => void): void => {
        this.#scheduler.after(process.drawLatencyMs(), process, `answer ${label}`, () => {
          signal?.removeEventListener("abort", onAbort);
          act();
        });
      };
      const fate = this.#fate(isWrite);
      const request = `${this.name} ${label}`;
      if (fate === "late") answer(() => reject(this.#unavailable()));
      const travelMs =
        fate === "late" ? this.#scheduler.random.below(LATE_MS_MAX) : process.drawLatencyMs();
      this.#scheduler.after(travelMs, undefined, request, () => {
        try {
          if (this.away || fate === "fail") throw this.#unavailable();
          const result = effect(fate === "lose");
          if (fate === "ok" || fate === "lose") answer(() => resolve(result));
          if (fate === "timeout") answer(() => reject(this.#unavailable()));
        } catch (error) {
          if (!(error instanceof AshlarError)) throw error;
          if (fate !== "late") answer(() => reject(error));
        }
      });
    });
  }

  #fate(isWrite: boolean): Fate {
    if (this.#faults.strikes("blob-error")) return "fail";
    if (!isWrite) return "ok";
    if (this.#faults.strikes("blob-timeout-after-success")) return "timeout";
    if (this.#faults.strikes("blob-late-effect")) return "late";
    // Counted where an object is in fact lost.
    if (this.unreliable && this.#faults.draws("blob-write-lost")) return "lose";
    return "ok";
  }

  #unavailable(): AshlarError {
    return new AshlarError(ErrorCode.Unavailable, `the storage ${this.name} does not answer`);
  }
}

/** Changes one bit. */
export function flipBit(bytes: Buffer, { random }: Scheduler): void {
  const at = random.below(bytes.length);
  bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
}
