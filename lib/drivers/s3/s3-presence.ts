// Whether a bucket still is the storage that was opened. A bucket of another name, an endpoint that leads elsewhere, or one that
// was emptied would otherwise pass for a storage that has lost everything.
import { GetObjectCommand, type S3Client } from "@aws-sdk/client-s3";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import {
  MARKER_NAME,
  parseStorageMarker,
  type StorageMarker,
} from "#lib/drivers/storage-marker.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { isNoSuchKey, s3Error } from "./s3-errors.ts";
import type { S3Settings } from "./s3-settings.ts";

/** For so long a look at the marker counts, in ms: reading it each time would double the requests of small objects. */
const FRESH_MS = 30_000;

/** Reads the marker of the storage in a bucket; Unavailable when there is none. */
export async function readS3Marker(
  client: S3Client,
  { bucket, prefix, location }: S3Settings,
): Promise<StorageMarker> {
  let text: string;
  try {
    const { Body } = await client.send(
      new GetObjectCommand({ Bucket: bucket, Key: prefix + MARKER_NAME }),
    );
    text = (await Body?.transformToString("utf8")) ?? "";
  } catch (error) {
    if (!isNoSuchKey(error)) throw s3Error(error, location, "reading its marker");
    throw new AshlarError(
      ErrorCode.Unavailable,
      `there is no storage at ${location}: its marker ${MARKER_NAME} is missing`,
      {
        cause: error,
        details: { marker: "missing" },
        remedy:
          "correct the storage's URL; a new storage is made by `ashlar init` or `ashlar storage add`",
      },
    );
  }
  return parseStorageMarker(text, `${MARKER_NAME} at ${location}`);
}

/** The storage in a bucket, by its marker. */
export class S3Presence {
  readonly #client: S3Client;
  readonly #settings: S3Settings;
  readonly #identity: StorageId;
  readonly #clock: Clock;
  #seenMs: number;
  #looking: Promise<void> | undefined;

  private constructor(
    client: S3Client,
    settings: S3Settings,
    identity: StorageId,
    clock: Clock,
    seenMs: number,
  ) {
    this.#client = client;
    this.#settings = settings;
    this.#identity = identity;
    this.#clock = clock;
    this.#seenMs = seenMs;
  }

  /** Looks for the first time; Refused when it is not the expected one. */
  static async open(
    client: S3Client,
    settings: S3Settings,
    expected: StorageId | undefined,
    clock: Clock,
  ): Promise<S3Presence> {
    const seenMs = clock.monotonic();
    const { identity } = await readS3Marker(client, settings);
    if (expected !== undefined && identity !== expected) {
      throw new AshlarError(
        ErrorCode.Refused,
        `${settings.location} holds the storage ${identity}, not ${expected}`,
        { remedy: "correct the storage's URL in the configuration" },
      );
    }
    return new S3Presence(client, settings, identity, clock, seenMs);
  }

  /** Throws Unavailable unless it was there lately. Of many who ask at once one looks. */
  async checkLately(): Promise<void> {
    if (this.#clock.monotonic() - this.#seenMs < FRESH_MS) return;
    this.#looking ??= this.check().finally(() => (this.#looking = undefined));
    await this.#looking;
  }

  /** Throws Unavailable unless it is there now. */
  async check(): Promise<void> {
    const startedMs = this.#clock.monotonic();
    const { identity } = await readS3Marker(this.#client, this.#settings);
    if (identity !== this.#identity) {
      throw new AshlarError(
        ErrorCode.Unavailable,
        `the storage ${this.#settings.location} is away: ${identity} is there instead of ${this.#identity}`,
        { remedy: "correct the storage's URL, or what its endpoint leads to" },
      );
    }
    this.#seenMs = startedMs;
  }
}
