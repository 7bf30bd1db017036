// The BlobStore in memory, for tests and simulation: objects that can be damaged and lost, and faults on demand.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { checkBlobName, checkBlobPrefix } from "#lib/drivers/blob-name.ts";
import { blobExists, blobLocked, blobNotFound, blobSizeWrong } from "#lib/drivers/blob-errors.ts";
import type {
  BlobEntry,
  BlobLocking,
  BlobStore,
  BlobStoreCapabilities,
  GetOptions,
  PutOptions,
} from "#lib/ports/blob-store.ts";
import type { Clock } from "#lib/ports/clock.ts";

/** One call, as the fault hooks see it: for `list`, the name is the prefix, for `check` and of the marker empty; `delete` and `extend` are asked for each name. */
export interface BlobOperation {
  readonly kind: "put" | "get" | "stat" | "delete" | "list" | "check" | "extend";
  readonly name: string;
}

/**
 * Where a simulation takes hold of the store. Both hooks may wait, which delays the operation, and may throw:
 * - `before`: it fails and has no effect. The answer "lose" makes a put or delete succeed without an effect. The answer
 *   "late" makes the caller get Unavailable at once, while the effect lands when `landing` resolves: after a timeout.
 * - `after`: it has had its effect, and the caller gets the error nevertheless.
 */
export interface MemoryBlobFaults {
  before?(operation: BlobOperation): BlobFault | Promise<BlobFault>;
  after?(operation: BlobOperation): void | Promise<void>;
  /** Awaited before a late effect lands. */
  landing?(operation: BlobOperation): Promise<void>;
}

/** What becomes of an operation. */
export type BlobFault = "none" | "lose" | "late";

/** Options of {@link openMemoryBlobStore}. */
export interface MemoryBlobStoreOptions {
  readonly location?: string;
  readonly capabilities?: Partial<BlobStoreCapabilities>;
  readonly faults?: MemoryBlobFaults;
  /** At most so many bytes in all; more is ENOSPC. */
  readonly capacityBytes?: number;
  /** Objects are locked for so long from their put on; by this clock, the storage's own. */
  readonly lock?: { readonly periodMs: number; readonly clock: Pick<Clock, "now"> };
}

/** A BlobStore in memory. */
export interface MemoryBlobStore extends BlobStore {
  /** The objects themselves: a test may look at, damage, take away and put back. */
  readonly objects: Map<string, Buffer>;
  /** Until when objects are locked, in ms since 1970, where they are; what was locked and is put again stays so. */
  readonly locks: Map<string, number>;
  /** Set, it answers Unavailable to everything. */
  away: boolean;
  /** Replaces the hooks. */
  faults: MemoryBlobFaults;
  /** The objects as they are now, to go back to: a storage that is restored from a backup of itself. */
  snapshot(): ReadonlyMap<string, Buffer>;
  restore(snapshot: ReadonlyMap<string, Buffer>): void;
}

/** Opens an empty store. */
export function openMemoryBlobStore(options: MemoryBlobStoreOptions = {}): MemoryBlobStore {
  return new MemoryStore(options);
}

class MemoryStore implements MemoryBlobStore {
  readonly objects = new Map<string, Buffer>();
  readonly locks = new Map<string, number>();
  readonly capabilities: BlobStoreCapabilities;
  readonly location: string;
  readonly locking?: BlobLocking;
  away = false;
  faults: MemoryBlobFaults;
  readonly #lock: MemoryBlobStoreOptions["lock"];
  readonly #capacityBytes: number;

  constructor(options: MemoryBlobStoreOptions) {
    this.location = options.location ?? "memory:";
    this.capabilities = { createOnly: true, consistentListing: true, ...options.capabilities };
    this.faults = options.faults ?? {};
    this.#capacityBytes = options.capacityBytes ?? Infinity;
    this.#lock = options.lock;
    if (options.lock !== undefined) {
      this.locking = {
        mode: "governance",
        periodMs: options.lock.periodMs,
        extend: (names, untilMs) => this.#extend(names, untilMs),
        extendMarker: () => this.#run({ kind: "extend", name: "" }, undefined, () => undefined),
      };
    }
  }

  put(name: string, bytes: Uint8Array, options: PutOptions): Promise<void> {
    checkBlobName(name);
    // The caller may reuse its buffer once it has its answer, and a late effect lands after that.
    const object = Buffer.from(bytes);
    return this.#run({ kind: "put", name }, options.signal, () => {
      const old = this.objects.get(name);
      if (old !== undefined && options.mode === "create") throw blobExists(this.location, name);
      this.#checkRoom(object.length - (old?.length ?? 0));
      this.objects.set(name, object);
      if (this.#lock !== undefined && options.unlocked !== true) {
        this.#lockUntil(name, this.#lock.clock.now() + this.#lock.periodMs);
      }
    });
  }

  async get(name: string, options: GetOptions = {}): Promise<Uint8Array> {
    checkBlobName(name);
    const { into, range, signal } = options;
    const object = await this.#run({ kind: "get", name }, signal, () => this.#object(name));
    const { offset, length } = range ?? { offset: 0, length: object.length };
    if (offset + length > object.length) {
      throw blobSizeWrong(this.location, name, `has only ${object.length} bytes`);
    }
    const bytes = object.subarray(offset, offset + length);
    if (into === undefined) return Buffer.from(bytes);
    if (into.length < length) {
      throw blobSizeWrong(this.location, name, `has more than ${into.length} bytes`);
    }
    into.set(bytes);
    return into.subarray(0, length);
  }

  stat(name: string): Promise<BlobEntry> {
    checkBlobName(name);
    return this.#run({ kind: "stat", name }, undefined, () => {
      return { name, sizeBytes: this.#object(name).length };
    });
  }

  async delete(names: readonly string[]): Promise<ReadonlyMap<string, Error>> {
    for (const name of names) checkBlobName(name);
    const failures = new Map<string, Error>();
    for (const name of names) {
      try {
        await this.#run({ kind: "delete", name }, undefined, () => {
          this.#requireUnlocked(name);
          this.objects.delete(name);
          this.locks.delete(name);
        });
      } catch (error) {
        failures.set(name, error as Error);
      }
    }
    return failures;
  }

  async #extend(names: readonly string[], untilMs: number): Promise<ReadonlyMap<string, Error>> {
    const failures = new Map<string, Error>();
    for (const name of names) {
      try {
        checkBlobName(name);
        await this.#run({ kind: "extend", name }, undefined, () => {
          this.#object(name);
          this.#lockUntil(name, untilMs);
        });
      } catch (error) {
        failures.set(name, error as Error);
      }
    }
    return failures;
  }

  #lockUntil(name: string, untilMs: number): void {
    this.locks.set(name, Math.max(untilMs, this.locks.get(name) ?? 0));
  }

  #requireUnlocked(name: string): void {
    const untilMs = this.locks.get(name) ?? 0;
    if (this.#lock === undefined || this.#lock.clock.now() >= untilMs) return;
    const sizeBytes = this.objects.get(name)?.length ?? 0;
    throw blobLocked(this.location, name, { untilMs, sizeBytes });
  }

  async *list(prefix: string, options: { signal?: AbortSignal } = {}): AsyncIterable<BlobEntry> {
    checkBlobPrefix(prefix);
    const entries = await this.#run({ kind: "list", name: prefix }, options.signal, () =>
      [...this.objects]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, { length }]) => ({ name, sizeBytes: length })),
    );
    for (const entry of entries) {
      options.signal?.throwIfAborted();
      this.#checkPresent();
      yield entry;
    }
  }

  check(): Promise<void> {
    return this.#run({ kind: "check", name: "" }, undefined, () => undefined);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  snapshot(): ReadonlyMap<string, Buffer> {
    return new Map(this.objects);
  }

  restore(snapshot: ReadonlyMap<string, Buffer>): void {
    this.objects.clear();
    for (const [name, object] of snapshot) this.objects.set(name, object);
  }

  /** One operation with its faults around it; `effect` is the moment at which it happens. */
  async #run<T>(
    operation: BlobOperation,
    signal: AbortSignal | undefined,
    effect: () => T,
  ): Promise<T> {
    signal?.throwIfAborted();
    const fault = (await this.faults.before?.(operation)) ?? "none";
    signal?.throwIfAborted();
    if (fault === "late") {
      void this.#land(operation, effect);
      throw new AshlarError(ErrorCode.Unavailable, `${this.location} does not answer`);
    }
    this.#checkPresent();
    const isLost = fault === "lose" && (operation.kind === "put" || operation.kind === "delete");
    // What is lost has no result to hand out, and neither kind of operation has one.
    const result = isLost ? (undefined as T) : effect();
    await this.faults.after?.(operation);
    return result;
  }

  async #land(operation: BlobOperation, effect: () => unknown): Promise<void> {
    try {
      await this.faults.landing?.(operation);
      if (!this.away) effect();
    } catch {
      // Nobody waits for the outcome any more.
    }
  }

  #object(name: string): Buffer {
    const object = this.objects.get(name);
    if (object === undefined) throw blobNotFound(this.location, name);
    return object;
  }

  #checkPresent(): void {
    if (!this.away) return;
    throw new AshlarError(ErrorCode.Unavailable, `the storage ${this.location} is away`);
  }

  #checkRoom(moreBytes: number): void {
    if (this.#capacityBytes === Infinity) return;
    let usedBytes = 0;
    for (const { length } of this.objects.values()) usedBytes += length;
    if (usedBytes + moreBytes <= this.#capacityBytes) return;
    throw new AshlarError(ErrorCode.Io, `${this.location} is full: no space left (ENOSPC)`, {
      details: { errno: "ENOSPC" },
    });
  }
}
