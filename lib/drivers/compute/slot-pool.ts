// Pools of equal pieces of memory: what a pipeline may use, and so its back-pressure.
import { assert } from "#lib/core/assert.ts";
import { CountedBytes } from "#lib/drivers/counted-bytes.ts";
import type { Slot, SlotPool } from "#lib/ports/compute.ts";

// TypeScript knows this global only together with all of a browser's.
declare const WebAssembly: {
  readonly Memory: new (limits: { initial: number; maximum: number; shared: true }) => {
    readonly buffer: SharedArrayBuffer;
  };
};

/** Pages, for direct I/O wants aligned memory; WebAssembly's are larger. */
const PAGE_BYTES = 4096;
const WASM_PAGE_BYTES = 65_536;
/** A pool that is larger than this is a mistake in a configuration. */
const POOL_BYTES_MAX = 2 ** 31;

/** Makes a pool in memory that every worker thread can see. It is committed when it is first touched. */
export function createSharedSlotPool(slotBytes: number, slotCount: number): SlotPool {
  return new MemorySlotPool(slotBytes, slotCount, allocateShared);
}

/** The only shared memory that is sure to begin at a page: sources may read into it with O_DIRECT. */
function allocateShared(poolBytes: number): SharedArrayBuffer {
  const pages = Math.ceil(poolBytes / WASM_PAGE_BYTES);
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer;
  } catch {
    // It reserves 8 GiB of addresses, which a limit (ulimit -v) may forbid. Then O_DIRECT may be, too: a source falls back.
    return new SharedArrayBuffer(poolBytes);
  }
}

/** Makes a pool in memory of this thread. */
export function createLocalSlotPool(slotBytes: number, slotCount: number): SlotPool {
  return new MemorySlotPool(slotBytes, slotCount, (poolBytes) => new ArrayBuffer(poolBytes));
}

interface Waiter {
  resolve(slot: Slot): void;
  readonly stop: () => void;
}

class MemorySlotPool implements SlotPool {
  readonly slotBytes: number;
  readonly slotCount: number;
  /** The slots' memory; the one used last is taken first, for its pages are there and its cache lines may be. */
  readonly #free: Buffer[] = [];
  readonly #waiters = new Set<Waiter>();

  constructor(
    slotBytes: number,
    slotCount: number,
    allocate: (bytes: number) => ArrayBuffer | SharedArrayBuffer,
  ) {
    const strideBytes = Math.ceil(slotBytes / PAGE_BYTES) * PAGE_BYTES;
    assert(slotBytes > 0 && slotCount > 0, "a pool has slots, and slots have bytes");
    assert(strideBytes * slotCount <= POOL_BYTES_MAX, "a pool has at most 2 GiB");
    this.slotBytes = slotBytes;
    this.slotCount = slotCount;
    const memory = allocate(strideBytes * slotCount);
    for (let index = slotCount - 1; index >= 0; index -= 1) {
      this.#free.push(Buffer.from(memory, index * strideBytes, slotBytes));
    }
  }

  get freeCount(): number {
    return this.#free.length;
  }

  acquire(signal?: AbortSignal): Promise<Slot> {
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    const bytes = this.#free.pop();
    if (bytes !== undefined) return Promise.resolve(this.#slot(bytes));
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiters.delete(waiter);
        reject(signal?.reason as Error);
      };
      const waiter: Waiter = { resolve, stop: () => signal?.removeEventListener("abort", onAbort) };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }

  #slot(bytes: Buffer): Slot {
    return new CountedBytes(bytes, () => this.#giveBack(bytes));
  }

  #giveBack(bytes: Buffer): void {
    // First come, first served: nobody starves while others take turns.
    const [waiter] = this.#waiters;
    if (waiter === undefined) {
      this.#free.push(bytes);
      return;
    }
    this.#waiters.delete(waiter);
    waiter.stop();
    waiter.resolve(this.#slot(bytes));
  }
}
