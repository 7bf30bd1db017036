// What the configuration has a storage do beside what its driver does.
import { join } from "node:path";
import type { StorageId } from "#lib/core/ids.ts";
import { RateLimiter } from "#lib/core/rate-limiter.ts";
import { cacheReads } from "#lib/drivers/decorators/cached-blob-store.ts";
import { limitBandwidth } from "#lib/drivers/decorators/limited-blob-store.ts";
import { meterStore } from "#lib/drivers/decorators/metered-blob-store.ts";
import { ObjectCache } from "#lib/drivers/decorators/object-cache.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { Ports } from "#lib/repository/repository.ts";
import type { StorageConfig } from "./config-file.ts";

/**
 * The open store, measured, with its limits and its cache.
 * @param identity tells the caches of several storages in one folder apart, whatever their names
 */
export function decorateStorage(
  store: BlobStore,
  config: StorageConfig,
  identity: StorageId,
  ports: Ports,
): BlobStore {
  const { clock, telemetry } = ports;
  const limiter = (bytesPerSecond: number | undefined): RateLimiter | undefined =>
    bytesPerSecond === undefined ? undefined : new RateLimiter(clock, bytesPerSecond);
  // Beneath the limits: latency is the storage's own, without what was waited for here.
  const metered = meterStore(store, { storage: config.name, telemetry, clock });
  const limited = limitBandwidth(metered, {
    reads: limiter(config.bandwidthRead),
    writes: limiter(config.bandwidthWrite),
  });
  if (config.cache === undefined) return limited;
  const { path, sizeBytes } = config.cache;
  const folder = join(path, identity);
  return cacheReads(
    limited,
    new ObjectCache({ ...ports, folder, sizeBytes, storage: config.name }),
  );
}
