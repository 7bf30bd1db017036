// The keys of a simulated repository, out of its seed: ids are keyed, so other keys would give another run.
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { RepositoryKeys } from "#lib/repository/keys.ts";

/** Makes the keys. */
export function keysFor(seed: string): RepositoryKeys {
  const random = seededRandom(`${seed}/keys`);
  const activeKeyId = random.bytes(8).toString("hex");
  return {
    repository: random.bytes(8).toString("hex"),
    dedupKey: random.bytes(32),
    hash: "blake3",
    activeKeyId,
    repositoryKeys: new Map([[activeKeyId, { scheme: "aes", key: random.bytes(32) }]]),
    revision: 0,
    // Blocks of 64 bytes do not shrink, and trying costs most of the time.
    compression: "none",
  };
}
