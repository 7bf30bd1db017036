// What the configuration has a storage do beside what its driver does.
import { RateLimiter } from "#lib/core/rate-limiter.ts";
import { limitBandwidth } from "#lib/drivers/decorators/limited-blob-store.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { Ports } from "#lib/repository/repository.ts";
import type { StorageConfig } from "./config-file.ts";

/** The open store with its limits. */
export function decorateStorage(store: BlobStore, config: StorageConfig, ports: Ports): BlobStore {
  const { clock } = ports;
  const limiter = (bytesPerSecond: number | undefined): RateLimiter | undefined =>
    bytesPerSecond === undefined ? undefined : new RateLimiter(clock, bytesPerSecond);
  return limitBandwidth(store, {
    reads: limiter(config.bandwidthRead),
    writes: limiter(config.bandwidthWrite),
  });
}
