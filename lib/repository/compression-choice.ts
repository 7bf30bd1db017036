// Which compressions there are to choose from. Apart from the codecs, so that a command that compresses nothing does not load them.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { CompressionChoice } from "#lib/ports/compute.ts";
import type { Compression } from "#proto/sealed-object.ts";

/** Names of compressions. */
export const COMPRESSIONS = ["zstd", "lz4", "none"] as const satisfies readonly Compression[];

/** The highest of zstd's levels that is taken: those above need hundreds of megabytes a thread. */
export const COMPRESSION_LEVEL_MAX = 19;

/**
 * A choice that came from elsewhere, checked.
 * @throws Usage for a compression that there is not here, or a level out of range
 */
export function requireCompression({ name, level }: CompressionChoice): Compression {
  const known = COMPRESSIONS.find((each) => each === name);
  if (known === undefined) {
    throw new AshlarError(ErrorCode.Usage, `there is no compression ${JSON.stringify(name)}`, {
      remedy: `use one of ${COMPRESSIONS.join(", ")}; a newer Ashlar may know more`,
    });
  }
  if (!Number.isInteger(level) || level < 1 || level > COMPRESSION_LEVEL_MAX) {
    throw new AshlarError(ErrorCode.Usage, `there is no compression level ${level}`, {
      remedy: `use 1 to ${COMPRESSION_LEVEL_MAX}`,
    });
  }
  return known;
}
