// A BlobStore that tells what it is asked for, how long that takes and what goes wrong.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { lockOf, type BlobEntry, type BlobLocking, type BlobStore } from "#lib/ports/blob-store.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";
import { lockProperties } from "./lock-properties.ts";

type Operation = "put" | "get" | "stat" | "delete" | "list" | "check" | "extend";

/** Where a {@link meterStore metered} store tells it. */
export interface StoreMeterOptions {
  /** The storage's name, for the attribute `storage`. */
  readonly storage: string;
  readonly telemetry: Telemetry;
  readonly clock: Clock;
}

/**
 * The store, with `ashlar.storage.requests`, `.latency` (ms) and `.errors` by operation, and `ashlar.storage.bytes` by direction
 * and kind of object. A deletion of many is one request; each name that could not be deleted is an error. That something is not
 * there, or is there already, is an error here too, with its code: whoever watches chooses by the code.
 */
export function meterStore(store: BlobStore, options: StoreMeterOptions): BlobStore {
  const meter = new Meter(options);
  return {
    capabilities: store.capabilities,
    location: store.location,
    ...lockProperties(store, (locking) => meterLocking(meter, locking)),
    put: async (name, bytes, put) => {
      await meter.run("put", () => store.put(name, bytes, put), put.signal);
      meter.bytes("written", name, bytes.length);
    },
    get: async (name, get = {}) => {
      const bytes = await meter.run("get", () => store.get(name, get), get.signal);
      meter.bytes("read", name, bytes.length);
      return bytes;
    },
    stat: (name) => meter.run("stat", () => store.stat(name)),
    delete: async (names) => {
      const failures = await meter.run("delete", () => store.delete(names));
      // What is locked was to be expected.
      for (const error of failures.values()) {
        if (lockOf(error) === undefined) meter.failed("delete", error);
      }
      return failures;
    },
    list: (prefix, list) => meteredListing(meter, store.list(prefix, list), list?.signal),
    check: () => meter.run("check", () => store.check()),
    close: () => store.close(),
  };
}

/** Locks that are made longer, a batch an operation; each name that could not be is an error. */
function meterLocking(meter: Meter, locking: BlobLocking): BlobLocking {
  return {
    ...locking,
    extend: async (names, untilMs) => {
      const failures = await meter.run("extend", () => locking.extend(names, untilMs));
      for (const error of failures.values()) meter.failed("extend", error);
      return failures;
    },
    extendMarker: (untilMs) => meter.run("extend", () => locking.extendMarker(untilMs)),
  };
}

/** The time that the storage takes counts, and not that of whoever goes through the list. */
async function* meteredListing(
  meter: Meter,
  entries: AsyncIterable<BlobEntry>,
  signal: AbortSignal | undefined,
): AsyncGenerator<BlobEntry> {
  let tookMs = 0;
  let sinceMs = meter.nowMs();
  try {
    for await (const entry of entries) {
      tookMs += meter.nowMs() - sinceMs;
      yield entry;
      sinceMs = meter.nowMs();
    }
    tookMs += meter.nowMs() - sinceMs;
  } catch (error) {
    tookMs += meter.nowMs() - sinceMs;
    meter.failed("list", error, signal);
    throw error;
  } finally {
    meter.ended("list", tookMs);
  }
}

class Meter {
  readonly #storage: string;
  readonly #telemetry: Telemetry;
  readonly #clock: Clock;

  constructor({ storage, telemetry, clock }: StoreMeterOptions) {
    this.#storage = storage;
    this.#telemetry = telemetry;
    this.#clock = clock;
  }

  nowMs(): number {
    return this.#clock.monotonic();
  }

  async run<T>(operation: Operation, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const beganMs = this.nowMs();
    try {
      return await work();
    } catch (error) {
      this.failed(operation, error, signal);
      throw error;
    } finally {
      this.ended(operation, this.nowMs() - beganMs);
    }
  }

  ended(operation: Operation, tookMs: number): void {
    const attributes = { storage: this.#storage, operation };
    this.#telemetry.count("ashlar.storage.requests", 1, attributes);
    this.#telemetry.record("ashlar.storage.latency", tookMs, attributes);
  }

  failed(operation: Operation, error: unknown, signal?: AbortSignal): void {
    const code = codeOf(error, signal);
    this.#telemetry.count("ashlar.storage.errors", 1, { storage: this.#storage, operation, code });
  }

  bytes(direction: "read" | "written", name: string, bytes: number): void {
    const [kind = ""] = name.split("/");
    const attributes = { storage: this.#storage, direction, kind };
    this.#telemetry.count("ashlar.storage.bytes", bytes, attributes);
  }
}

/** Whoever stops an operation gets its own reason back, which has no code of ours. */
function codeOf(error: unknown, signal: AbortSignal | undefined): ErrorCode {
  if (error instanceof AshlarError) return error.code;
  return signal?.aborted === true ? ErrorCode.Cancelled : ErrorCode.Internal;
}
