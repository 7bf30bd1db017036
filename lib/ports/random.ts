// Random: the only source of randomness. Drivers: system (CSPRNG), seeded (tests, simulation).

/** Randomness. */
export interface Random {
  /** Unpredictable bytes, fit for ids; keys come from node:crypto directly. */
  bytes(count: number): Buffer;
  /** A whole number in [0, limit). */
  below(limit: number): number;
}
