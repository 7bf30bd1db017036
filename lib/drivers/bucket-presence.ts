// Whether a bucket still is the storage that was opened. A bucket of another name, an endpoint that leads elsewhere, or one that
// was emptied would otherwise pass for a storage that has lost everything.
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { untilAborted } from "#lib/core/until-aborted.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { blobNotFound } from "./blob-errors.ts";
import { MARKER_NAME, type StorageMarker } from "./storage-marker.ts";

/** For so long a look at the marker counts, in ms: reading it each time would double the requests of small objects. */
const FRESH_MS = 30_000;

/** How a storage in a bucket is looked at. */
export interface BucketPresenceOptions {
  /** For messages. */
  readonly location: string;
  /** Reads the marker; Unavailable when there is none. */
  readonly read: () => Promise<StorageMarker>;
  readonly clock: Clock;
}

/** The error for a place where no storage is. */
export function markerMissing(location: string, cause: unknown): AshlarError {
  return new AshlarError(
    ErrorCode.Unavailable,
    `there is no storage at ${location}: its marker ${MARKER_NAME} is missing`,
    {
      cause,
      details: { marker: "missing" },
      remedy:
        "correct the storage's URL; a new storage is made by `ashlar init` or `ashlar storage add`",
    },
  );
}

/** The storage in a bucket, by its marker. */
export class BucketPresence {
  readonly #options: BucketPresenceOptions;
  readonly #identity: StorageId;
  #seenMs: number;
  #looking: Promise<void> | undefined;

  private constructor(options: BucketPresenceOptions, identity: StorageId, seenMs: number) {
    this.#options = options;
    this.#identity = identity;
    this.#seenMs = seenMs;
  }

  /** Looks for the first time; Refused when it is not the expected one. */
  static async open(
    options: BucketPresenceOptions,
    expected: StorageId | undefined,
  ): Promise<BucketPresence> {
    const seenMs = options.clock.monotonic();
    const { identity } = await options.read();
    if (expected !== undefined && identity !== expected) {
      throw new AshlarError(
        ErrorCode.Refused,
        `${options.location} holds the storage ${identity}, not ${expected}`,
        { remedy: "correct the storage's URL in the configuration" },
      );
    }
    return new BucketPresence(options, identity, seenMs);
  }

  /** Throws Unavailable unless it was there lately. Of many who ask at once one looks. */
  async checkLately(signal?: AbortSignal): Promise<void> {
    if (this.#options.clock.monotonic() - this.#seenMs < FRESH_MS) return;
    this.#looking ??= this.check().finally(() => (this.#looking = undefined));
    // Whoever has enough of waiting leaves the look to the others.
    await untilAborted(this.#looking, signal);
  }

  /** The error for an object that is not there: NotFound. Throws Unavailable where the storage itself is not. */
  async absent(name: string): Promise<AshlarError> {
    await this.check();
    return blobNotFound(this.#options.location, name);
  }

  /** Throws Unavailable unless it is there now. */
  async check(): Promise<void> {
    const { clock, location, read } = this.#options;
    const startedMs = clock.monotonic();
    const { identity } = await read().catch((error: unknown) => {
      // Of a storage that cannot be told, not of the object for which somebody has asked.
      if (!isErrorCode(error, ErrorCode.Damaged)) throw error;
      const { message: what, remedy, details } = error;
      const message = `the storage ${location} is away: ${what}`;
      const rest = remedy === undefined ? { details } : { details, remedy };
      throw new AshlarError(ErrorCode.Unavailable, message, { cause: error, ...rest });
    });
    if (identity !== this.#identity) {
      throw new AshlarError(
        ErrorCode.Unavailable,
        `the storage ${location} is away: ${identity} is there instead of ${this.#identity}`,
        { remedy: "correct the storage's URL, or what its endpoint leads to" },
      );
    }
    this.#seenMs = startedMs;
  }
}
