/**
 * Figures of an undisturbed two-core machine (AMD EPYC with SHA-NI, AVX-512 and VAES, Node 24.21), in MB
 * per second: of one thread, on real data, where nothing else is said. The limit program must reach 80 %
 * of them on such a machine, or it would be an easy yardstick.
 */
import type { Primitives } from "./primitives.ts";

export const REFERENCE_SHARE_MIN = 0.8;

/** By block size; what is not there was not measured on the machine of reference. */
export const PRIMITIVE_FIGURES: Readonly<Record<string, Partial<Primitives>>> = {
  "4MiB": { hash: 6100, compress: 567, decompress: 1287, encrypt: 4909, chain: 490 },
  "64KiB": { hash: 3000, compress: 465, encrypt: 1767, chain: 296 },
};

/** Hash, zero check, compression, encryption and key wrap of blocks of 4 MiB, on two cores together. */
export const CHAIN_TWO_CORES = 884;
/** Objects of 4 MiB written durably, several in flight, with flushes of the folder, and nothing else. */
export const DURABLE_OBJECTS = 581;
