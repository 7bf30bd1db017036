// What a configuration says of one storage.
import { z } from "zod";
import {
  bytesPerSecond,
  expecting,
  leaf,
  path,
  size,
  storageName,
  string,
  whole,
} from "./schema-values.ts";

const MIB = 1024 * 1024;
const CACHE_BYTES_MIN = 64 * MIB;
const CACHE_BYTES_MAX = 1024 ** 5;

const storageOptions = z.record(
  z.string(),
  leaf("a word, a number, true or false", (value) =>
    ["string", "number", "boolean"].includes(typeof value) ? String(value) : undefined,
  ),
  expecting("a section of options"),
);

/** Where what was read of a storage is kept on this machine. */
export const cacheSchema = z.strictObject(
  {
    path,
    size: size(
      "a size between 64MiB and 1PiB",
      (bytes) => bytes >= CACHE_BYTES_MIN && bytes <= CACHE_BYTES_MAX,
    ),
  },
  expecting("a section with path and size"),
);

/** One storage of the list `storages`. */
export const storageSchema = z.strictObject(
  {
    name: storageName,
    url: string("a URL such as file:///backup, or a path"),
    /** Where it stands; storages of one site may be lost together. */
    site: storageName.optional(),
    /** What its URL may carry as well, `region=eu-central-1`; docs/storages.md has them by kind. */
    options: storageOptions.optional(),
    /** Storages with a lower one are read first; of those with the same, all at once. */
    readOrder: whole(1, 100).default(1),
    simultaneousReads: whole(1, 256).default(8),
    simultaneousWrites: whole(1, 256).default(8),
    /** Batches of objects that are deleted at once. */
    simultaneousRemovals: whole(1, 256).default(4),
    /** Bytes per second that each process reads from it and writes to it; without a limit unless given. */
    bandwidthRead: bytesPerSecond().optional(),
    bandwidthWrite: bytesPerSecond().optional(),
    cache: cacheSchema.optional(),
  },
  expecting("a section with name and url"),
);
