// BlobStore on S3 and what speaks like it: an object a key, whole in one request (objects are at most some MiB).
import { setTimeout } from "node:timers/promises";
import type { Readable } from "node:stream";
import {
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  type S3Client,
} from "@aws-sdk/client-s3";
import { AshlarError } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { blobExists, blobSizeWrong, readOnlyError } from "#lib/drivers/blob-errors.ts";
import { checkBlobName, checkBlobPrefix, isBlobName } from "#lib/drivers/blob-name.ts";
import { BucketPresence } from "#lib/drivers/bucket-presence.ts";
import { readBody } from "#lib/drivers/response-body.ts";
import { MARKER_NAME } from "#lib/drivers/storage-marker.ts";
import type {
  BlobEntry,
  BlobLocking,
  BlobStore,
  BlobStoreCapabilities,
  GetOptions,
  PutOptions,
} from "#lib/ports/blob-store.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { createS3Client } from "./s3-client.ts";
import { deleteObjects, inParallel } from "./s3-deletions.ts";
import {
  attemptsOf,
  isBare404,
  isConflict,
  isNoSuchKey,
  isTaken,
  s3Error,
  statusOf,
  unexpectedAnswer,
} from "./s3-errors.ts";
import { readS3Marker } from "./s3-marker.ts";
import { extendRetention, requireBucketLock } from "./s3-object-lock.ts";
import type { S3Settings } from "./s3-settings.ts";
import { s3Put } from "./s3-put.ts";
import { listNewest, newestVersion, type S3Version } from "./s3-versions.ts";

/** How an S3 storage is opened. */
export interface OpenS3Options {
  readonly settings: S3Settings;
  /** The storage that must be there; without it any is taken. */
  readonly expectIdentity?: StorageId | undefined;
  /** Nothing in it is ever changed. */
  readonly readOnly?: boolean;
  readonly clock: Clock;
}

const CONFLICT_TRIES = 10;
const CONFLICT_MS = 20;
const BODY_RETRY_MS = 100;

/** Opens the storage in a bucket; Unavailable when it is not there, Refused when it is another one than expected. */
export async function openS3BlobStore(options: OpenS3Options): Promise<BlobStore> {
  const { settings, expectIdentity, clock } = options;
  const client = await createS3Client(settings);
  try {
    const read = () => readS3Marker(client, settings);
    const { location } = settings;
    const presence = await BucketPresence.open({ location, read, clock }, expectIdentity);
    if (options.readOnly !== true) await requireBucketLock(client, settings);
    return new S3BlobStore(client, presence, options);
  } catch (error) {
    client.destroy();
    throw error;
  }
}

interface Listed {
  readonly key: string;
  readonly sizeBytes: number;
}

class S3BlobStore implements BlobStore {
  readonly capabilities: BlobStoreCapabilities;
  readonly location: string;
  readonly locking?: BlobLocking;
  readonly locksNoMore?: boolean;
  readonly #client: S3Client;
  readonly #settings: S3Settings;
  readonly #presence: BucketPresence;
  readonly #clock: Clock;
  readonly #readOnly: boolean;
  /** It keeps versions, and is worked with as such. */
  readonly #isVersioned: boolean;

  constructor(client: S3Client, presence: BucketPresence, options: OpenS3Options) {
    const { settings, clock, readOnly = false } = options;
    this.#client = client;
    this.#settings = settings;
    this.#presence = presence;
    this.#clock = clock;
    this.#readOnly = readOnly;
    this.#isVersioned = settings.objectLock !== undefined;
    const { mode, periodMs = 0, isInherited = false } = settings.objectLock ?? {};
    if (mode === "none") this.locksNoMore = true;
    if (mode !== undefined && mode !== "none") {
      this.locking = {
        mode,
        periodMs,
        isInherited,
        extend: (names, untilMs) => this.#extend(names, untilMs),
        extendMarker: (untilMs) => this.#extendOne(MARKER_NAME, untilMs),
      };
    }
    this.location = settings.location;
    this.capabilities = {
      createOnly: settings.conditionalWrites,
      consistentListing: settings.consistentListing,
    };
  }

  async put(name: string, bytes: Uint8Array, options: PutOptions): Promise<void> {
    checkBlobName(name);
    this.#requireWritable();
    options.signal?.throwIfAborted();
    await this.#presence.checkLately(options.signal);
    const { signal, mode } = options;
    const isCreate = mode === "create";
    // Not atomic, and so `capabilities` say; but what is plainly there is not replaced.
    if (isCreate && !this.capabilities.createOnly && (await this.#has(name, signal))) {
      throw blobExists(this.location, name);
    }
    const put = { name, bytes, isCreate: isCreate && this.capabilities.createOnly, signal };
    const isLocked = this.locking !== undefined && options.unlocked !== true;
    for (let tries = 1; ; tries += 1) {
      try {
        const lock = isLocked ? { lockUntilMs: this.#clock.now() + this.#lockMs } : {};
        await s3Put(this.#client, this.#settings, { ...put, ...lock });
        return;
      } catch (error) {
        signal?.throwIfAborted();
        if (isCreate && isTaken(error)) {
          // An answer that was lost, and its put was tried again by the SDK or by us: then what is there is this one.
          const isRepeated = tries > 1 || attemptsOf(error) > 1;
          if (isRepeated && (await this.#holds(name, bytes, signal))) return;
          throw blobExists(this.location, name);
        }
        if (!isConflict(error) || tries >= CONFLICT_TRIES)
          throw this.#error(error, "putting", name);
      }
      await setTimeout(CONFLICT_MS * tries, undefined, signal === undefined ? {} : { signal });
    }
  }

  async get(name: string, options: GetOptions = {}): Promise<Uint8Array> {
    checkBlobName(name);
    const { signal } = options;
    signal?.throwIfAborted();
    let versionId: string | undefined;
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#getOnce(name, options, versionId);
      } catch (error) {
        if (error instanceof AshlarError) throw error;
        signal?.throwIfAborted();
        if (isNoSuchKey(error) && versionId === undefined) {
          versionId = (await this.#hidden(name, signal))?.versionId;
          if (versionId !== undefined) continue;
        }
        if (isNoSuchKey(error)) throw await this.#presence.absent(name);
        if (statusOf(error) === 416) throw this.#rangeWrong(name, options);
        // The SDK tries again until an answer begins; what breaks off later is tried here.
        const isBody = statusOf(error) === undefined && attemptsOf(error) === 1;
        if (!isBody || tries >= this.#settings.attempts) throw this.#error(error, "getting", name);
      }
      const pauseMs = BODY_RETRY_MS * 2 ** Math.min(tries, 6);
      await setTimeout(pauseMs, undefined, signal === undefined ? {} : { signal });
    }
  }

  async #getOnce(
    name: string,
    { range, into, signal }: GetOptions,
    versionId: string | undefined,
  ): Promise<Uint8Array> {
    const command = new GetObjectCommand({
      Bucket: this.#settings.bucket,
      Key: this.#key(name),
      VersionId: versionId,
      ...(range === undefined
        ? {}
        : { Range: `bytes=${range.offset}-${range.offset + range.length - 1}` }),
    });
    const {
      Body,
      ETag,
      ContentLength = 0,
    } = await this.#client.send(command, signal === undefined ? {} : { abortSignal: signal });
    const body = Body as unknown as Readable;
    if (ETag === undefined) {
      // It would be taken for a damaged object.
      body.destroy();
      throw this.#error(unexpectedAnswer("what came has no ETag"), "getting", name);
    }
    if (range !== undefined && ContentLength !== range.length) {
      body.destroy();
      throw this.#rangeWrong(name, { range });
    }
    return readBody(body, ContentLength, { location: this.location, name, into, signal });
  }

  #rangeWrong(name: string, { range }: GetOptions): AshlarError {
    const end = (range?.offset ?? 0) + (range?.length ?? 0);
    return blobSizeWrong(this.location, name, `ends before byte ${end}`);
  }

  async stat(name: string): Promise<BlobEntry> {
    checkBlobName(name);
    try {
      return { name, sizeBytes: await this.#sizeOf(name, undefined) };
    } catch (error) {
      const hidden = isNoSuchKey(error) ? await this.#hidden(name, undefined) : undefined;
      if (hidden !== undefined) return { name, sizeBytes: hidden.sizeBytes };
      if (isNoSuchKey(error)) throw await this.#presence.absent(name);
      throw this.#error(error, "looking at", name);
    }
  }

  async delete(names: readonly string[]): Promise<ReadonlyMap<string, Error>> {
    for (const name of names) checkBlobName(name);
    this.#requireWritable();
    const checkLately = (): Promise<void> => this.#presence.checkLately();
    const options = { client: this.#client, settings: this.#settings, clock: this.#clock };
    return deleteObjects({ ...options, checkLately }, names);
  }

  async *list(prefix: string, options: { signal?: AbortSignal } = {}): AsyncIterable<BlobEntry> {
    checkBlobPrefix(prefix);
    const { signal } = options;
    const entries = this.#isVersioned
      ? this.#listVersions(prefix, signal)
      : this.#listCurrent(prefix, signal);
    for await (const { key, sizeBytes } of entries) {
      signal?.throwIfAborted();
      const name = key.slice(this.#settings.prefix.length);
      // What others have put there is not ours.
      if (isBlobName(name) && name !== MARKER_NAME) yield { name, sizeBytes };
    }
    // A bucket that was emptied, or is another one, would show nothing as well.
    await this.#presence.check();
  }

  /** What somebody has put a delete marker over is there nevertheless. */
  async *#listVersions(prefix: string, signal: AbortSignal | undefined): AsyncGenerator<Listed> {
    try {
      yield* listNewest(this.#client, this.#settings, this.#key(prefix), signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#error(error, "listing", prefix);
    }
  }

  async *#listCurrent(prefix: string, signal: AbortSignal | undefined): AsyncGenerator<Listed> {
    let token: string | undefined;
    const seen = new Set<string>();
    do {
      signal?.throwIfAborted();
      const page = await this.#listPage(prefix, token, signal);
      for (const { Key = "", Size = 0 } of page.Contents ?? []) yield { key: Key, sizeBytes: Size };
      token = page.IsTruncated === true ? (page.NextContinuationToken ?? "") : undefined;
      // A listing that ends too early, or never.
      if (token === "" || (token !== undefined && seen.has(token))) {
        throw this.#error(
          unexpectedAnswer("a listing does not say how it goes on"),
          "listing",
          prefix,
        );
      }
      if (token !== undefined) seen.add(token);
    } while (token !== undefined);
  }

  async #listPage(prefix: string, token: string | undefined, signal: AbortSignal | undefined) {
    try {
      const page = await this.#client.send(
        new ListObjectsV2Command({
          Bucket: this.#settings.bucket,
          Prefix: this.#key(prefix),
          ...(token === undefined ? {} : { ContinuationToken: token }),
        }),
        signal === undefined ? {} : { abortSignal: signal },
      );
      if (page.Name === undefined) throw unexpectedAnswer("a listing does not name its bucket");
      return page;
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#error(error, "listing", prefix);
    }
  }

  async #extend(names: readonly string[], untilMs: number): Promise<ReadonlyMap<string, Error>> {
    for (const name of names) checkBlobName(name);
    const failures = new Map<string, Error>();
    await inParallel(names, async (name) => {
      await this.#extendOne(name, untilMs).catch((error: unknown) => {
        failures.set(name, error as Error);
      });
    });
    return failures;
  }

  async #extendOne(name: string, untilMs: number): Promise<void> {
    this.#requireWritable();
    await this.#presence.checkLately();
    let isThere: boolean;
    try {
      isThere = await extendRetention(this.#client, this.#settings, this.#key(name), untilMs);
    } catch (error) {
      throw this.#error(error, "extending the lock of", name);
    }
    if (!isThere) throw await this.#presence.absent(name);
  }

  check(): Promise<void> {
    return this.#presence.check();
  }

  close(): Promise<void> {
    this.#client.destroy();
    return Promise.resolve();
  }

  #key(name: string): string {
    return this.#settings.prefix + name;
  }

  /** The size of an object; NoSuchKey where it is surely not there. */
  async #sizeOf(name: string, signal: AbortSignal | undefined): Promise<number> {
    const about = { Bucket: this.#settings.bucket, Key: this.#key(name) };
    const options = signal === undefined ? {} : { abortSignal: signal };
    try {
      const { ContentLength = 0 } = await this.#client.send(new HeadObjectCommand(about), options);
      return ContentLength;
    } catch (error) {
      if (!isBare404(error)) throw error;
      const { Body, ContentLength = 0 } = await this.#client.send(
        new GetObjectCommand(about),
        options,
      );
      (Body as unknown as Readable).destroy();
      return ContentLength;
    }
  }

  async #has(name: string, signal: AbortSignal | undefined): Promise<boolean> {
    try {
      await this.#client.send(
        new HeadObjectCommand({ Bucket: this.#settings.bucket, Key: this.#key(name) }),
        signal === undefined ? {} : { abortSignal: signal },
      );
      return true;
    } catch (error) {
      signal?.throwIfAborted();
      // Whoever says so: the put that follows finds out whether it is S3.
      if (isBare404(error)) return false;
      throw this.#error(error, "looking at", name);
    }
  }

  async #holds(name: string, bytes: Uint8Array, signal: AbortSignal | undefined): Promise<boolean> {
    const found = await this.get(name, signal === undefined ? {} : { signal });
    return Buffer.compare(found, bytes) === 0;
  }

  /** In a bucket that keeps versions, what lies below a delete marker: Ashlar puts none, so somebody else has. */
  async #hidden(name: string, signal: AbortSignal | undefined): Promise<S3Version | undefined> {
    if (!this.#isVersioned) return undefined;
    try {
      return await newestVersion(this.#client, this.#settings, this.#key(name), signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#error(error, "looking for versions of", name);
    }
  }

  get #lockMs(): number {
    return this.locking?.periodMs ?? 0;
  }

  #requireWritable(): void {
    if (this.#readOnly) throw readOnlyError(this.location);
  }

  #error(error: unknown, doing: string, name: string): unknown {
    return s3Error(error, this.location, `${doing} ${name}`);
  }
}
