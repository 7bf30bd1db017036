// What a store says of locks, for whoever stands before it.
import type { BlobLocking, BlobStore } from "#lib/ports/blob-store.ts";

/** The properties of `store` that are about locks, with another `locking` where one is given. */
export function lockProperties(
  store: BlobStore,
  around: (locking: BlobLocking) => BlobLocking = (locking) => locking,
): Pick<BlobStore, "locking" | "locksNoMore"> {
  const { locking, locksNoMore } = store;
  return {
    ...(locking === undefined ? {} : { locking: around(locking) }),
    ...(locksNoMore === undefined ? {} : { locksNoMore }),
  };
}
