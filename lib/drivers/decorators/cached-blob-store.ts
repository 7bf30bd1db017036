// A BlobStore with a cache of what was read before, for those who ask for it (`cached` of GetOptions).
//
// A cached object can be missing on the storage by now, or damaged there; that is why only restores ask. It can never be a wrong
// one:
// - Its name is used once: a generation that no record names any more is never named again. Only `rebuild` may name one again,
//   and then the object is another sealed form of the same block or node.
// - The cache folder belongs to one storage, by its identity, and its checksum tells what was damaged on its disk.
// - Whoever reads opens the object: it is decrypted under the block's id and compared with the keyed hash that the id is. What
//   does not open is read again from the storage ("renew") before anything is judged by it.
import type { BlobStore } from "#lib/ports/blob-store.ts";
import { isCacheable } from "./cache-entry.ts";
import type { ObjectCache } from "./object-cache.ts";
import { lockProperties } from "./lock-properties.ts";

/** The store, with whole blocks and nodes from the cache for those who ask for that. Closing it closes the cache. */
export function cacheReads(store: BlobStore, cache: ObjectCache): BlobStore {
  return {
    capabilities: store.capabilities,
    location: store.location,
    ...lockProperties(store),
    put: async (name, bytes, options) => {
      try {
        await store.put(name, bytes, options);
      } finally {
        // What fails may have been put nevertheless.
        if (options.mode === "replace" && isCacheable(name)) await cache.remove([name]);
      }
    },
    get: async (name, options = {}) => {
      const { cached, range, into, signal } = options;
      if (cached === undefined || range !== undefined || !isCacheable(name)) {
        return store.get(name, options);
      }
      signal?.throwIfAborted();
      if (cached === "renew") await cache.remove([name]);
      const kept = cached === "use" ? await cache.read(name, into) : undefined;
      if (kept !== undefined) return kept;
      const bytes = await store.get(name, options);
      // The caller's buffer is used again once it has its answer.
      await cache.write(name, bytes);
      return bytes;
    },
    stat: (name) => store.stat(name),
    delete: async (names) => {
      const failures = await store.delete(names);
      await cache.remove(names.filter(isCacheable));
      return failures;
    },
    list: (prefix, options) => store.list(prefix, options),
    check: () => store.check(),
    close: async () => {
      await cache.close();
      await store.close();
    },
  };
}
