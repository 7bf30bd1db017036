// What the configuration has a storage do beside what its driver does.
import { RateLimiter } from "#lib/core/rate-limiter.ts";
import { limitBandwidth } from "#lib/drivers/decorators/limited-blob-store.ts";
import { meterStore } from "#lib/drivers/decorators/metered-blob-store.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { Ports } from "#lib/repository/repository.ts";
import type { StorageConfig } from "./config-file.ts";

/** The open store, measured, with its limits. */
export function decorateStorage(store: BlobStore, config: StorageConfig, ports: Ports): BlobStore {
  const { clock, telemetry } = ports;
  const limiter = (bytesPerSecond: number | undefined): RateLimiter | undefined =>
    bytesPerSecond === undefined ? undefined : new RateLimiter(clock, bytesPerSecond);
  // Beneath the limits: latency is the storage's own, without what was waited for here.
  const metered = meterStore(store, { storage: config.name, telemetry, clock });
  return limitBandwidth(metered, {
    reads: limiter(config.bandwidthRead),
    writes: limiter(config.bandwidthWrite),
  });
}
