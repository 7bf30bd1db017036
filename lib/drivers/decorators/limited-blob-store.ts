// A BlobStore that is read and written no faster than it may be.
import type { RateLimiter } from "#lib/core/rate-limiter.ts";
import type { BlobStore, GetOptions } from "#lib/ports/blob-store.ts";
import { lockProperties } from "./lock-properties.ts";

/** Bounds on the bytes of objects, by direction; undefined where there is none. */
export interface BandwidthLimits {
  readonly reads: RateLimiter | undefined;
  readonly writes: RateLimiter | undefined;
}

/** How much the size of the object read last changes the size that is expected of the next one. */
const LEARNING = 1 / 8;

/**
 * The store, with puts and gets that wait for the limiters: what all who use it put, and get, keeps to the rate, and what
 * has begun goes as fast as it can. Requests without an object (stat, list, delete) wait for nothing.
 */
export function limitBandwidth(store: BlobStore, { reads, writes }: BandwidthLimits): BlobStore {
  const expected = new ExpectedSize();
  return {
    capabilities: store.capabilities,
    location: store.location,
    ...lockProperties(store),
    put: async (name, bytes, options) => {
      await writes?.take(bytes.length, options.signal);
      await store.put(name, bytes, options);
    },
    get: async (name, options = {}) => {
      if (reads === undefined) return store.get(name, options);
      // The size is known only afterwards. Each read waits for those before it and not for itself, and then counts with what it
      // really took.
      const estimate = expected.of(options);
      await reads.takeTurn(estimate, options.signal);
      let took = 0;
      try {
        const bytes = await store.get(name, options);
        took = bytes.length;
        expected.learn(took);
        return bytes;
      } finally {
        reads.correct(took - estimate);
      }
    },
    stat: (name) => store.stat(name),
    delete: (names) => store.delete(names),
    list: (prefix, options) => store.list(prefix, options),
    check: () => store.check(),
    close: () => store.close(),
  };
}

/**
 * What the next object will be like: the average of those before, or, as long as there are none, the room that there is for it.
 * So even the first reads, of which many may begin at once, do not begin all at once.
 */
class ExpectedSize {
  #averageBytes: number | undefined;

  of({ range, into }: GetOptions): number {
    if (range !== undefined) return range.length;
    const room = into?.length;
    const average = this.#averageBytes ?? room ?? 0;
    return room === undefined ? average : Math.min(average, room);
  }

  learn(bytes: number): void {
    const before = this.#averageBytes ?? bytes;
    this.#averageBytes = before + (bytes - before) * LEARNING;
  }
}
