// A source that is read no faster than it may be.
import type { RateLimiter } from "#lib/core/rate-limiter.ts";
import type { BlockSource } from "#lib/ports/block-device.ts";

/** The source, with reads that wait for the limiter; what several sources share it bounds together. */
export function limitedSource(source: BlockSource, limiter: RateLimiter): BlockSource {
  return {
    url: source.url,
    sizeBytes: source.sizeBytes,
    seekable: source.seekable,
    frozen: source.frozen,
    identity: source.identity,
    warnings: source.warnings,
    extents: (range) => source.extents(range),
    read: async (into, offset) => {
      await limiter.take(into.length);
      return source.read(into, offset);
    },
    changed: () => source.changed(),
    close: () => source.close(),
  };
}
